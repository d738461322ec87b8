"""Small sets that need no download: MNIST-1D is computed, the digits come with scikit-learn."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from functools import cache
from types import FunctionType
from typing import Any

import numpy as np

from lotto.core.errors import UsageError
from lotto.data.in_memory import Arrays

EVERY = 500
"""Signals after which progress is said."""
SIGNAL_BYTES = 160
"""Of one signal: 40 float32 numbers. Progress is counted in bytes, as that of a download."""


def mnist1d(count: int, progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, np.ndarray]:
    """MNIST-1D (Greydanus): ``count`` signals of 40 points, 10 classes, a fifth of them to test; 5,000 are published.

    All settings but the number are as published, the seed among them. 50,000 take about 5 seconds.

    Args:
        count: how many.
        progress: called with (bytes made, bytes in all).
    """
    from mnist1d.data import get_dataset_args, get_templates, make_dataset
    from mnist1d.transform import transform

    settings = get_dataset_args()
    settings.num_samples = count
    templates = get_templates()
    templates["x"] = _Counted(templates["x"], lambda done: progress(done * SIGNAL_BYTES, count * SIGNAL_BYTES))
    # The package seeds the global generators; put them back as they were.
    legacy, python = np.random.get_state(), random.getstate()
    try:
        make = _with_names(make_dataset, transform=_with_names(transform, interpolate=_interpolated()))
        made = make(settings, templates)
    finally:
        np.random.set_state(legacy)
        random.setstate(python)
    # Rounded, so that the last bits of a platform's mathematics do not change the data's fingerprint.
    return {
        "x_train": np.round(made["x"], 5).astype(np.float32),
        "y_train": made["y"].astype(np.int64),
        "x_test": np.round(made["x_test"], 5).astype(np.float32),
        "y_test": made["y_test"].astype(np.int64),
    }


def _with_names(function: Callable[..., Any], **names: Any) -> Callable[..., Any]:
    """A function that calls others under some names; in its module nothing changes."""
    code, known = function.__code__, {**function.__globals__, **names}
    return FunctionType(code, known, function.__name__, function.__defaults__, function.__closure__)


def _interpolated() -> Callable[[np.ndarray, int], np.ndarray]:
    """A signal on another number of points, as scipy's `interp1d` calls numpy for it, which is most of its time.

    It is called four times for every signal, twice for an axis that is the same each time.
    """
    grid = cache(lambda count: np.linspace(0, 1, count))
    return lambda signal, count: np.interp(grid(count), grid(len(signal)), signal)


class _Counted:
    """The templates, which the package reads once for every signal: the one place where its progress shows."""

    def __init__(self, values: Sequence[np.ndarray], emit: Callable[[int], None]) -> None:
        self.values, self.emit, self.read = values, emit, 0

    def __getitem__(self, index: int) -> np.ndarray:
        self.read += 1
        if self.read % EVERY == 0:
            self.emit(self.read)
        return self.values[index]


def digits() -> Arrays:
    """The 8x8 digits of scikit-learn: 1,437 training and 360 test images (every fifth), 10 classes."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UsageError("The data set 'digits' needs scikit-learn: pip install scikit-learn.") from error
    bunch = load_digits()
    x = (bunch.images[:, None] / 16.0 - 0.3053).astype(np.float32)
    test = np.arange(len(x)) % 5 == 0
    return Arrays(x[~test], bunch.target[~test], x[test], bunch.target[test], name="digits")
