"""Trackers of experiments: a CSV of one's own, TensorBoard, MLflow, Weights & Biases, or anything with four methods."""

from __future__ import annotations

from lotto.integrations.trackers.tracking import Tracker, Tracking, track

__all__ = ["Tracker", "Tracking", "track"]
