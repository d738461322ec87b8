"""Every public class and function shows in its docstring how it is used, and every example of ours runs."""

from __future__ import annotations

import doctest
import inspect
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

import lotto
from conftest import small_recipe

ROOT = Path(lotto.__file__).parent
MODULES = sorted(
    ".".join(("lotto", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__")
    for path in ROOT.rglob("*.py")
    if ">>>" in path.read_text("utf-8")
)
OPTIONAL = {
    "lotto.integrations.lightning": "lightning",
    "lotto.integrations.huggingface": "transformers",
    "lotto.inference.onnx_graphs": "onnxruntime",
    "lotto.execution.ray": "ray",
}
"""Modules that need optional packages."""
PACKAGES = [
    "lotto", "lotto.benchmarks", "lotto.core.statistics", "lotto.data", "lotto.execution", "lotto.inference",
    "lotto.integrations.trackers", "lotto.landscape", "lotto.landscape.curvature",
    "lotto.landscape.permutation", "lotto.lottery", "lotto.papers", "lotto.pruning", "lotto.recipe",
    "lotto.report", "lotto.training",
]  # fmt: skip


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What examples need not make: a small recipe on procedural data, two networks of it, a mask, a store."""
    recipe = small_recipe()
    store = lotto.Store(tmp_path_factory.mktemp("store"))
    weights, other = (lotto.train(recipe, 0, order, store=store).weights for order in (0, 1))
    mask = lotto.pruning.prune(weights, lotto.pruning.masks.ones(recipe), 0.5)
    return {
        "lotto": lotto, "torch": torch, "np": np, "store": store,
        "recipe": recipe, "weights": dict(weights), "other": dict(other), "mask": mask,
    }  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(m, marks=pytest.mark.extras if m in OPTIONAL else ()) for m in MODULES])
def test_the_examples_of_a_module_run(name, known, tmp_path, monkeypatch):
    if name in OPTIONAL:
        pytest.importorskip(OPTIONAL[name])
    monkeypatch.chdir(tmp_path)
    tried = doctest.testmod(import_module(name), extraglobs=known)
    assert tried.attempted
    assert not tried.failed


def public(package: str) -> Iterator[tuple[str, Any]]:
    """The classes and functions that a package offers; not modules, types of arguments, or errors."""
    home = import_module(package)
    for name in home.__all__:
        value = getattr(home, name)
        error = isinstance(value, type) and issubclass(value, Exception)
        if (inspect.isfunction(value) or isinstance(value, type)) and not error:
            yield name, value


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_class_and_function_has_an_example_which_is_run(package):
    assert [*public(package)]
    for name, value in public(package):
        own = inspect.getdoc(value) if "__doc__" in vars(value) or inspect.isfunction(value) else None
        assert own, f"{package}.{name} has no docstring"
        assert ">>>" in own, f"the docstring of {package}.{name} has no example"
        home: ModuleType = import_module(value.__module__)
        found = {test.name for test in doctest.DocTestFinder().find(home) if test.examples}
        assert f"{home.__name__}.{value.__name__}" in found, f"the example of {package}.{name} is not found"


def test_no_package_that_offers_classes_or_functions_is_left_out():
    offering = [path for path in ROOT.rglob("__init__.py") if "\n__all__ = " in path.read_text("utf-8")]
    names = {".".join(("lotto", *path.parent.relative_to(ROOT).parts)) for path in offering}
    assert {name for name in names if [*public(name)]} == set(PACKAGES)
