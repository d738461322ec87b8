"""Imports that leave a process with one thread, so that it can be forked."""

from __future__ import annotations

import sys
from importlib import import_module


def import_pandas() -> None:
    """Import pandas as if pyarrow were not installed: it would import that, which starts a thread.

    Whoever imports pyarrow afterwards gets it. In a process that knows one of the two already nothing happens.

    >>> import_pandas()
    """
    if {"pandas", "pyarrow"} & sys.modules.keys():
        return
    sys.modules["pyarrow"] = None  # type: ignore[assignment]
    try:
        import_module("pandas")
    finally:
        del sys.modules["pyarrow"]
