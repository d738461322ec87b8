"""The error landscape: paths and planes between networks, subspaces, curvature, how much can be pruned at once."""

from __future__ import annotations

from lotto.landscape import hessian
from lotto.landscape.limit import largest_prunable
from lotto.landscape.path import Path, PathTask, barrier, evaluate_path
from lotto.landscape.plane import Plane, PlaneTask, evaluate_plane

__all__ = [
    "Path",
    "PathTask",
    "Plane",
    "PlaneTask",
    "barrier",
    "evaluate_path",
    "evaluate_plane",
    "hessian",
    "largest_prunable",
]
