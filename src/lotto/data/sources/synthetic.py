"""Small sets that need no download: MNIST-1D is computed, the digits come with scikit-learn."""

from __future__ import annotations

import random

import numpy as np

from lotto.core.errors import UsageError
from lotto.data.in_memory import Arrays


def mnist1d() -> Arrays:
    """MNIST-1D (Greydanus): 4,000 training and 1,000 test signals of 40 points, 10 classes."""
    from mnist1d.data import get_dataset_args, make_dataset

    # The package seeds the global generators; put them back as they were.
    legacy, python = np.random.get_state(), random.getstate()
    try:
        made = make_dataset(get_dataset_args())
    finally:
        np.random.set_state(legacy)
        random.setstate(python)
    # Rounded, so that the last bits of a platform's mathematics do not change the data's fingerprint.
    x_train, x_test = (np.round(made[key], 5).astype(np.float32) for key in ("x", "x_test"))
    return Arrays(x_train, made["y"], x_test, made["y_test"], name="mnist1d")


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
