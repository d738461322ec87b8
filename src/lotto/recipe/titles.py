"""What the presets are, in a line each: read from their source, as to import it is to import PyTorch."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TypeGuard

from lotto.core import registry
from lotto.core.errors import unknown

ENTRY_POINTS = "lotto.recipes"
"""The group in which installed packages name recipes of theirs."""
PRESETS = Path(__file__).with_name("presets.py")


def preset_titles() -> dict[str, str]:
    """The first lines of the presets' docstrings by the presets' names, in their order.

    >>> preset_titles()["lenet-mnist-fast"]
    'LeNet-300-100 on MNIST in 4 epochs of a triangular schedule.'
    """
    presets = [node for node in ast.parse(PRESETS.read_text("utf-8")).body if _is_preset(node)]
    return {node.name.replace("_", "-"): (ast.get_docstring(node) or "").partition("\n")[0] for node in presets}


def check_name(name: str) -> None:
    """Raise ``UsageError`` for a recipe's name that is none of ours or of installed packages, nor ``module:recipe``."""
    others = registry.entries(ENTRY_POINTS)
    if ":" not in name and name.replace("_", "-") not in (ours := preset_titles()) and name not in others:
        raise unknown("recipe", name, {*ours, *others})


def _is_preset(node: ast.stmt) -> TypeGuard[ast.FunctionDef]:
    decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
    return any(isinstance(each, ast.Name) and each.id == "preset" for each in decorators)
