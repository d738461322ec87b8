"""The error landscape: what lies between networks."""

from __future__ import annotations

from lotto.landscape.path import Path, PathTask, barrier, evaluate_path

__all__ = ["Path", "PathTask", "barrier", "evaluate_path"]
