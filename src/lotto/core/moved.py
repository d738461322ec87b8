"""Names of the first edition where they stood: served for one version, with a warning that says where they are now."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from importlib.machinery import ModuleSpec

TYPE_CHECKING = False  # without `typing`, as `lotto` itself
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

_MOVED = {
    "core": (
        "errors files weights streams=rng compiled=jit steps=duration identity=fingerprint "
        "experiments.statistics=statistics"
    ),
    "pruning": "masks channels tickets=ticket",
    "recipe": "optimizers schedules=lr_schedules objectives initialisation=initializers recipes=presets",
    "data": (
        "data.arrays=in_memory data.folder=image_folder data.catalog=sources.catalog "
        "data.fetch=sources.download data.decode=sources.decode data.procedural=sources.synthetic"
    ),
    "training": (
        "job training.autograd=learners.autograd training.stacked=learners.stacked "
        "training.perceptron=learners.perceptron training.compacted=learners.channel_skipping "
        "training.sparse=learners.sparse_linear training.cross_entropy=learners.cross_entropy "
        "training.together=loop training.optimizer_state=learners.base"
    ),
    "execution": (
        "task store entries engine= engine.base=engine engine.serial=serial engine.processes=processes "
        "engine.stacks=stacking engine.threads=threads engine.memory=memory api=single_run"
    ),
    "landscape": (
        "stability hessian=curvature landscape.hessian=curvature landscape.lanczos=curvature.lanczos "
        "landscape.quadratic=curvature.quadratic landscape.limit=curvature.pruning_limit"
    ),
    "lottery": "plan levels=procedure adaptive particles=averaging",
    "experiments": "papers.experiment=experiment papers.claims=claims papers.stored=results",
    "papers": (
        "papers.stabilizing_claims=stabilizing.claims papers.unmasking_claims=unmasking.claims "
        "report.stabilizing=stabilizing.plots report.unmasking=unmasking.plots "
        "papers.adaptive_shares=unmasking.adaptive"
    ),
    "benchmarks": "benchmarks.rivals=baselines",
    "cli": "progress=display",
}
"""By package: modules of the first edition, as ``before=now`` where the name is another (none: the package itself)."""
MODULES = {
    f"lotto.{before}": ".".join(filter(None, ("lotto", package, now if equals else before)))
    for package, modules in _MOVED.items()
    for before, equals, now in (module.partition("=") for module in modules.split())
}
"""Modules of the first edition that are elsewhere: where they were, where they are."""

ALSO = {
    "lotto.levels": "lotto.lottery.replicate",
    "lotto.engine.base": "lotto.execution.procedures",
    "lotto.engine.stacks": "lotto.execution.autotune",
    "lotto.papers.claims": "lotto.core.statistics",
    "lotto.stability": "lotto.landscape",
}
"""Where the rest is of modules that have been divided."""

PERMANENT = ("lotto.engine", "lotto.weights", "lotto.recipes")
"""Public names of packages that are what they were: no warning."""

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
    "Found": "Result",
    "Identified": "Cacheable",
    "LOOK_EVERY": "LOG_EVERY",
    "Setting": "ResultGroup",
    "Spread": "Samples",
    "Unidentifiable": "NotCacheableError",
    "Updates": "OptimizerState",
    "Work": "WorkItem",
    "adaptive_chain": "adaptive_procedure",
    "averaged_chain": "averaged_procedure",
    "companies": "stacks",
    "data_order_chain": "data_order_procedure",
    "instability_chain": "instability_procedure",
    "level_chain": "level_procedure",
    "model_identity": "model_fingerprint",
    "pruning_chain": "pruning_procedure",
    "rewind_point_chain": "rewind_point_procedure",
    "hessian": "curvature",
    "Stored": "StoredResult",
    "settings": "grouped",
    "together": "gather",
    "train_together": "train_stack",
}
"""Names that are called otherwise where they are now."""


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


def serve_moved_modules() -> None:
    """Let ``import lotto.masks`` and its like work where the import system finds no such module."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder:
    """Makes modules whose names are looked up in those that have taken their place.

    Not a child of the classes of `importlib.abc`, which take longer to import than all the rest here.
    """

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in MODULES:
            return None
        is_package = any(other.startswith(f"{name}.") for other in MODULES)
        return ModuleSpec(name, self, is_package=is_package)  # type: ignore[arg-type]

    def create_module(self, spec: ModuleSpec) -> None:
        """The usual one."""

    def exec_module(self, module: ModuleType) -> None:
        now = MODULES[module.__name__]
        target = import_module(now)
        if module.__name__ not in PERMANENT:
            _warn(module.__name__, now)

        def found(name: str) -> Any:
            if name in RENAMED:
                _warn(f"{module.__name__}.{name}", f"{now}.{RENAMED[name]}")
            now_called = RENAMED.get(name, name)
            if not hasattr(target, now_called) and module.__name__ in ALSO:
                return getattr(import_module(ALSO[module.__name__]), now_called)
            return getattr(target, now_called)

        module.__doc__ = target.__doc__
        module.__getattr__ = found  # type: ignore[method-assign]


def _warn(before: str, now: str) -> None:
    warnings.warn(f"{before} is {now} now; the old name goes with the next version.", DeprecationWarning, stacklevel=3)
