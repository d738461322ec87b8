"""Names of the first edition still work, and say where they are now."""

from __future__ import annotations

from importlib import import_module
from inspect import isfunction
from pathlib import Path

import pytest

import interpreter
import lotto
from lotto.core import moved

OLD_NAMES = [
    "After",
    "Augment",
    "DataError",
    "Distances",
    "DivergedError",
    "Engine",
    "ImpResult",
    "Instability",
    "Path",
    "Plane",
    "Pruning",
    "StorageError",
    "UsageError",
    "WorkerError",
    "barrier",
    "evaluate_path",
    "evaluate_plane",
    "instability",
    "largest_prunable",
    "prune",
    "stability_to_data_order",
    "stability_to_pruning",
]


@pytest.mark.parametrize("name", OLD_NAMES)
def test_names_of_the_first_edition_warn_and_are_what_they_were(name):
    with pytest.warns(DeprecationWarning, match=rf"lotto\.{name} is lotto\.\S+ now"):
        found = getattr(lotto, name)
    home = import_module(moved.NAMES[name])
    assert found is getattr(home, moved.RENAMED.get(name, name))


@pytest.mark.parametrize("name", moved.MODULES)
def test_every_moved_module_has_its_new_home(name):
    assert import_module(moved.MODULES[name])


def test_modules_of_the_first_edition_can_be_imported():
    script = """
import warnings
with warnings.catch_warnings(record=True) as seen:
    warnings.simplefilter("always")
    import lotto.masks, lotto.landscape.hessian
    from lotto.store import Store
    from lotto.engine.base import Chain, JobStarted, together
    from lotto.papers.stored import Setting, settings
    from lotto.recipes import lenet_mnist_sgd
    from lotto import masks, streams
import lotto
assert masks.ones is lotto.pruning.masks.ones and streams.stream
from lotto import execution
from lotto.experiments import results
assert Chain is execution.Procedure and together is execution.gather
assert Setting is results.ResultGroup and settings is results.grouped
assert Store is lotto.Store and JobStarted is lotto.engine.JobStarted
assert lotto.landscape.hessian.top is lotto.landscape.curvature.top
assert lenet_mnist_sgd is lotto.recipes.lenet_mnist_sgd
print(sorted(str(w.message).split(";")[0] for w in seen if w.category is DeprecationWarning))
"""
    done = interpreter.run(script)
    assert done.returncode == 0, done.stderr
    for text in ("lotto.masks is lotto.pruning.masks now", "lotto.store is lotto.execution.store now"):
        assert text in done.stdout
    assert "lotto.recipes is" not in done.stdout, "a public name stays"


def test_a_class_renamed_in_place_is_found_by_both_names():
    with pytest.warns(DeprecationWarning, match=r"lotto\.data\.Folder is lotto\.data\.ImageFolder now"):
        assert lotto.data.Folder is lotto.data.ImageFolder
    with pytest.warns(DeprecationWarning, match=r"lotto\.data\.folder is lotto\.data\.image_folder now"):
        folder = import_module("lotto.data.folder")
    with pytest.warns(DeprecationWarning, match=r"folder\.Folder is lotto\.data\.image_folder\.ImageFolder now"):
        assert folder.Folder is lotto.data.ImageFolder
    with pytest.raises(AttributeError, match=r"module 'lotto\.data' has no attribute 'gather'"):
        lotto.data.gather  # noqa: B018


IN_PACKAGES = {
    "engine.Chain": "execution.procedures.Procedure",
    "engine.together": "execution.procedures.gather",
    "landscape.hessian.top": "landscape.curvature.top",
    "training.train_together": "training.train_stack",
    "data.Folder": "data.ImageFolder",
    "hessian.Hessian": "landscape.curvature.Hessian",
    "masks.ones": "pruning.masks.ones",
}


def test_names_in_packages_of_the_first_edition_warn_and_work():
    # Each name is the first that its process looks for: a fork of one that has imported what lotto itself needs.
    script = f"""
import importlib, os, sys, warnings
import numba, numpy, pandas, scipy, torch
def looks_for(name, now):
    import lotto, lotto.training
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        found = lotto
        for part in name.split("."):
            found = getattr(found, part)
    module, _, inner = ("lotto." + now).rpartition(".")
    assert found is getattr(importlib.import_module(module), inner), name
    assert any(w.category is DeprecationWarning for w in seen), name
for name, now in {IN_PACKAGES}.items():
    if not (child := os.fork()):
        looks_for(name, now)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, name
"""
    done = interpreter.run(script)
    assert done.returncode == 0, done.stderr


def test_names_of_modules_that_have_been_divided_are_found():
    script = """
import warnings
warnings.simplefilter("ignore")
from lotto.levels import REINIT_CONTROL, Level, LevelFinished, level_chain, random_control
from lotto.engine.base import Chain, Engine, JobStarted, together
from lotto.engine.stacks import companies, measured_width, PaceTask
from lotto.store import Store, Work
from lotto.stability import Distances, Spread, instability_chain
from lotto.identity import Identified, Unidentifiable, canonical
from lotto.optimizers import SGD, Updates
from lotto.training.together import train_together
from lotto.papers.claims import CONFIDENCE, Claim, interval
from lotto.papers.adaptive_shares import adaptive
from lotto.benchmarks.rivals import usual
"""
    done = interpreter.run(script)
    assert done.returncode == 0, done.stderr


def test_threads_may_be_the_first_to_use_public_names():
    script = """
import os
from concurrent.futures import ThreadPoolExecutor
import numba, numpy, pandas, scipy, torch
import lotto
def look():
    with ThreadPoolExecutor(16) as threads:
        return len([*threads.map(lambda i: getattr(lotto, lotto.__all__[i % len(lotto.__all__)]), range(400))])
for _ in range(3):
    if not (child := os.fork()):
        os._exit(look() != 400)
    assert os.waitpid(child, 0)[1] == 0
"""
    done = interpreter.run(script)
    assert done.returncode == 0, done.stderr


def test_what_never_was_is_not_found():
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        lotto.nothing  # noqa: B018
    with pytest.raises(ModuleNotFoundError):
        import_module("lotto.nothing")


PACKAGES = [
    "data",
    "execution",
    "inference",
    "landscape",
    "landscape.curvature",
    "lottery",
    "models",
    "pruning",
    "recipe",
    "report",
    "training",
]


def test_no_module_bears_a_public_function_s_name():
    functions = set()
    for module in (lotto, *(import_module(f"lotto.{package}") for package in PACKAGES)):
        names = getattr(module, "__all__", [name for name in vars(module) if not name.startswith("_")])
        functions |= {name for name in names if isfunction(getattr(module, name))}
    paths = [*Path(lotto.__file__).parent.rglob("*.py")]
    assert {"imp", "prune", "train", "evaluate"} <= functions
    assert not functions & {name for path in paths for name in (path.stem, path.parent.name)}
