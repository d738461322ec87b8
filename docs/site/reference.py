"""The pages of the API reference, one a package, made of what each package says is public."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import lotto

PACKAGES = (
    "lotto", "lotto.pruning", "lotto.recipe", "lotto.data", "lotto.training", "lotto.execution", "lotto.lottery",
    "lotto.landscape", "lotto.landscape.curvature", "lotto.landscape.permutation", "lotto.inference", "lotto.report",
)  # fmt: skip


def documented(package: str) -> list[str]:
    """The classes and functions of a package that are not documented as names of `lotto` itself."""
    module = import_module(package)
    found = {name: getattr(module, name) for name in module.__all__}
    above = {id(getattr(lotto, name)) for name in lotto.__all__} if package != "lotto" else set()
    own = {name: value for name, value in found.items() if id(value) not in above}
    return [name for name, value in own.items() if inspect.isclass(value) or inspect.isfunction(value)]


def page(package: str) -> str:
    """Its page."""
    purpose = (import_module(package).__doc__ or "").partition("\n")[0]
    lines = [package, "=" * len(package), "", purpose, "", f".. currentmodule:: {package}", ""]
    for name in sorted(documented(package), key=str.lower):
        kind = "class" if isinstance(getattr(import_module(package), name), type) else "function"
        options = ["   :members:", "   :show-inheritance:"] if kind == "class" else []
        lines += [f".. auto{kind}:: {package}.{name}", *options, ""]
    return "\n".join(lines)


def write(app: object) -> None:
    """Write all pages."""
    folder = Path(app.srcdir) / "docs" / "site" / "made" / "api"  # type: ignore[attr-defined]
    folder.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        (folder / f"{package}.rst").write_text(page(package))


def as_text(app: object, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """|w| in a docstring is a magnitude, no substitution."""
    for at, line in enumerate(lines):
        if "``" not in line and ">>>" not in line:
            lines[at] = re.sub(r"\|(?=\S)(.+?)\|", r"\\|\1\\|", line)


def setup(app: object) -> dict[str, bool]:
    """Write them before the pages are read."""
    app.connect("builder-inited", write)  # type: ignore[attr-defined]
    app.connect("autodoc-process-docstring", as_text)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True}
