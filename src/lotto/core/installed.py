"""Whose code it is: Python's, torch's, an installed package's, or the user's own."""

from __future__ import annotations

import importlib.metadata
import json
import sys
import sysconfig
from functools import lru_cache
from pathlib import Path

UNVERSIONED = ("torch", "numpy", "lotto")
"""Packages that are named in a key without their version: it is recorded beside each run."""

PYTHON = "python"


@lru_cache(maxsize=1024)
def owner(module: str) -> str | None:
    """The package that a module belongs to, as ``NAME VERSION``; None for the user's own code.

    Python's standard library is ``python``; `UNVERSIONED` packages have no version. What was installed from a folder or
    in editable mode is the user's own: its version does not change with its code.
    """
    top = module.partition(".")[0]
    if top in UNVERSIONED:
        return top
    path = _path(top)
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return PYTHON if path is None or (_is_standard(path) and not _is_installed(path)) else None
    if top == "__main__" or path is None or not _is_installed(path):
        return None
    distribution = _distribution(top)
    if distribution is None or _from_a_folder(distribution):
        return None
    return f"{top} {distribution.version.partition('+')[0]}"


def _path(top: str) -> Path | None:
    module = sys.modules.get(top)
    file = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    return Path(file) if file else None


def _is_standard(path: Path) -> bool:
    return any(path.is_relative_to(sysconfig.get_path(kind)) for kind in ("stdlib", "platstdlib"))


def _is_installed(path: Path) -> bool:
    return bool({"site-packages", "dist-packages"}.intersection(path.parts))


def _distribution(top: str) -> importlib.metadata.Distribution | None:
    names = [top]
    try:
        return importlib.metadata.distribution(top)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        names = list(importlib.metadata.packages_distributions().get(top, ()))
    return importlib.metadata.distribution(sorted(names)[0]) if names else None


def _from_a_folder(distribution: importlib.metadata.Distribution) -> bool:
    """Whether it was installed from a local folder (`PEP 610 <https://peps.python.org/pep-0610>`_)."""
    text = distribution.read_text("direct_url.json")
    return text is not None and "dir_info" in json.loads(text)
