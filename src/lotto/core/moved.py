"""Names of the first edition where they stood: served for one version, with a warning that says where they are now."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MODULES = {
    "lotto.errors": "lotto.core.errors",
    "lotto.files": "lotto.core.files",
    "lotto.weights": "lotto.core.weights",
    "lotto.streams": "lotto.core.rng",
    "lotto.compiled": "lotto.core.jit",
    "lotto.steps": "lotto.core.duration",
    "lotto.identity": "lotto.core.fingerprint",
    "lotto.masks": "lotto.pruning.masks",
    "lotto.channels": "lotto.pruning.channels",
    "lotto.tickets": "lotto.pruning.ticket",
    "lotto.optimizers": "lotto.recipe.optimizers",
    "lotto.schedules": "lotto.recipe.lr_schedules",
    "lotto.objectives": "lotto.recipe.objectives",
    "lotto.initialisation": "lotto.recipe.initializers",
    "lotto.recipes": "lotto.recipe.presets",
    "lotto.data.arrays": "lotto.data.in_memory",
    "lotto.data.folder": "lotto.data.image_folder",
    "lotto.data.catalog": "lotto.data.sources.catalog",
    "lotto.data.fetch": "lotto.data.sources.download",
    "lotto.data.decode": "lotto.data.sources.decode",
    "lotto.data.procedural": "lotto.data.sources.synthetic",
    "lotto.job": "lotto.training.job",
    "lotto.training.autograd": "lotto.training.learners.autograd",
    "lotto.training.stacked": "lotto.training.learners.stacked",
    "lotto.training.perceptron": "lotto.training.learners.perceptron",
    "lotto.training.compacted": "lotto.training.learners.channel_skipping",
    "lotto.training.sparse": "lotto.training.learners.sparse_linear",
    "lotto.training.cross_entropy": "lotto.training.learners.cross_entropy",
    "lotto.task": "lotto.execution.task",
    "lotto.store": "lotto.execution.store",
    "lotto.entries": "lotto.execution.entries",
    "lotto.engine": "lotto.execution",
    "lotto.engine.base": "lotto.execution.engine",
    "lotto.engine.serial": "lotto.execution.serial",
    "lotto.engine.processes": "lotto.execution.processes",
    "lotto.engine.stacks": "lotto.execution.stacking",
    "lotto.engine.threads": "lotto.execution.threads",
    "lotto.engine.memory": "lotto.execution.memory",
    "lotto.api": "lotto.execution.single_run",
    "lotto.stability": "lotto.landscape.stability",
    "lotto.hessian": "lotto.landscape.curvature",
    "lotto.landscape.hessian": "lotto.landscape.curvature",
    "lotto.landscape.lanczos": "lotto.landscape.curvature.lanczos",
    "lotto.landscape.quadratic": "lotto.landscape.curvature.quadratic",
    "lotto.landscape.limit": "lotto.landscape.curvature.pruning_limit",
    "lotto.plan": "lotto.lottery.plan",
    "lotto.levels": "lotto.lottery.procedure",
    "lotto.adaptive": "lotto.lottery.adaptive",
    "lotto.particles": "lotto.lottery.averaging",
    "lotto.papers.experiment": "lotto.experiments.experiment",
    "lotto.papers.claims": "lotto.experiments.claims",
    "lotto.papers.stored": "lotto.experiments.results",
    "lotto.papers.stabilizing_claims": "lotto.papers.stabilizing.claims",
    "lotto.papers.unmasking_claims": "lotto.papers.unmasking.claims",
    "lotto.report.stabilizing": "lotto.papers.stabilizing.plots",
    "lotto.report.unmasking": "lotto.papers.unmasking.plots",
    "lotto.progress": "lotto.cli.display",
}
"""Modules of the first edition that are elsewhere."""

PERMANENT = ("lotto.engine", "lotto.weights", "lotto.recipes")
"""Public names of packages that are what they were: no warning."""

FORMER = {
    **{now: before for before, now in MODULES.items()},
    "lotto.models.fully_connected": "lotto.models.mlp",
    "lotto.training.evaluation": "lotto.training.evaluate",
    **dict.fromkeys((f"lotto.pruning.{part}" for part in ("rule", "scores", "allocation", "density")), "lotto.pruning"),
    "lotto.recipe.recipe": "lotto.recipe",
    "lotto.lottery.search": "lotto.imp",
    "lotto.execution.factory": "lotto.engine",
    "lotto.landscape.curvature.operator": "lotto.landscape.curvature",
    "lotto.landscape.curvature.eigenvalues": "lotto.landscape.hessian",
}
"""Where definitions of ours stood when the keys of stored runs were defined: a user's code is identified by them."""

NAMES = {
    **dict.fromkeys(("DataError", "DivergedError", "StorageError", "UsageError", "WorkerError"), "lotto.core.errors"),
    **dict.fromkeys(("Distances", "Instability", "Path", "Plane", "barrier", "evaluate_path"), "lotto.landscape"),
    **dict.fromkeys(("evaluate_plane", "instability", "largest_prunable"), "lotto.landscape"),
    **dict.fromkeys(("stability_to_data_order", "stability_to_pruning"), "lotto.landscape"),
    **dict.fromkeys(("After", "ImpResult"), "lotto.lottery"),
    **dict.fromkeys(("Pruning", "prune"), "lotto.pruning"),
    "Augment": "lotto.data",
    "Engine": "lotto.execution",
}
"""Names that `lotto` itself had."""

RENAMED = {
    "After": "Retraining",
    "Chain": "Procedure",
    "Folder": "ImageFolder",
    "Setting": "ResultGroup",
    "Stored": "StoredResult",
    "settings": "grouped",
    "together": "gather",
}
"""Names that are called otherwise where they are now."""

_BEFORE = {now: before for before, now in RENAMED.items()}


def moved_name(name: str) -> Any:
    """What `lotto` called ``name``, with a warning.

    Raises:
        AttributeError: if it never had such a name.
    """
    full = f"lotto.{name}"
    if full in MODULES:
        return import_module(full)
    if name not in NAMES:
        raise AttributeError(f"module 'lotto' has no attribute {name!r}")
    now = RENAMED.get(name, name)
    _warn(full, f"{NAMES[name]}.{now}")
    return getattr(import_module(NAMES[name]), now)


def renamed_name(package: str, name: str) -> Any:
    """What ``package`` itself called ``name`` before it was renamed in place, with a warning.

    Raises:
        AttributeError: if it never had such a name.
    """
    now, home = RENAMED.get(name), import_module(package)
    if now is None or not hasattr(home, now):
        raise AttributeError(f"module {package!r} has no attribute {name!r}")
    _warn(f"{package}.{name}", f"{package}.{now}")
    return getattr(home, now)


def former_name(module: str | None, name: str) -> str:
    """What a definition was called, module and all, when the keys of stored runs were defined."""
    if module is not None and module.split(".")[0] == "lotto":
        module, name = FORMER.get(module, module), _BEFORE.get(name, name)
    return f"{module}.{name}"


def serve_moved_modules() -> None:
    """Let ``import lotto.masks`` and its like work where the import system finds no such module."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder(MetaPathFinder, Loader):
    """Makes modules whose names are looked up in those that have taken their place."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in MODULES:
            return None
        return ModuleSpec(name, self, is_package=any(other.startswith(f"{name}.") for other in MODULES))

    def exec_module(self, module: ModuleType) -> None:
        now = MODULES[module.__name__]
        target = import_module(now)
        if module.__name__ not in PERMANENT:
            _warn(module.__name__, now)

        def found(name: str) -> Any:
            return getattr(target, RENAMED.get(name, name))

        module.__doc__ = target.__doc__
        module.__getattr__ = found  # type: ignore[method-assign]


def _warn(before: str, now: str) -> None:
    warnings.warn(f"{before} is {now} now; the old name goes with the next version.", DeprecationWarning, stacklevel=3)
