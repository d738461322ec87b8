"""The error landscape: paths and planes between networks, subspaces, stability, curvature."""

from __future__ import annotations

from functools import partial

from lotto.core.moved import renamed_name
from lotto.landscape import curvature, permutation
from lotto.landscape.curvature.pruning_limit import largest_prunable
from lotto.landscape.path import Path, PathTask, barrier, evaluate_path
from lotto.landscape.plane import Plane, PlaneTask, evaluate_plane
from lotto.landscape.stability import (
    Distances,
    Instability,
    instability,
    stability_to_data_order,
    stability_to_pruning,
)

__all__ = [
    "Distances",
    "Instability",
    "Path",
    "PathTask",
    "Plane",
    "PlaneTask",
    "barrier",
    "curvature",
    "evaluate_path",
    "evaluate_plane",
    "instability",
    "largest_prunable",
    "permutation",
    "stability_to_data_order",
    "stability_to_pruning",
]


__getattr__ = partial(renamed_name, __name__)  # names of the first edition
