"""Data frames: columns of numbers are the inputs, one column is the targets."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from lotto.core.check import checked
from lotto.core.errors import UsageError, nearest, text
from lotto.data.in_memory import Arrays

EXACT = 1 << 24
"""Whole numbers up to this are themselves as float32."""


@checked
def from_frames(
    train: pd.DataFrame,
    test: pd.DataFrame,
    target: str,
    *,
    features: Sequence[str] | None = None,
    standardise: bool = False,
    name: str = "frames",
) -> Arrays:
    """Arrays of data frames' columns.

    Texts and categories in the target column are classes, in alphabetical order; whole numbers and booleans are classes
    as they are; other numbers are values to be predicted (``loss="mse"``).

    Args:
        train: the training examples, one a row.
        test: the test examples, with the same columns.
        target: the column of the targets.
        features: the columns of the inputs; None = all others.
        standardise: whether inputs are shifted and scaled to mean 0 and standard deviation 1 of the training examples.
        name: what tables and logs call the set.

    Raises:
        UsageError: for a column that is not there, has missing values, or is text among the inputs.

    >>> frame = pd.DataFrame({"size": [1.0, 2, 3, 4], "rooms": [1, 2, 2, 3], "kind": ["flat", "house"] * 2})
    >>> data = from_frames(frame[:3], frame[2:], "kind")
    >>> data.shape, data.classes
    ((2,), 2)
    """
    names = [str(c) for c in train.columns if c != target] if features is None else list(features)
    frames = {"train": train, "test": test}
    for which, frame in frames.items():
        if len({*frame.columns}) < len(frame.columns):
            raise UsageError(f"The {which} frame has two columns of one name.")
        for column in (*names, target):
            if column not in frame.columns:
                raise UsageError(f"The {which} frame has no column {text(column)}. {nearest(column, map(str, frame))}")
            if missing := int(frame[column].isna().sum()):
                raise UsageError(
                    f"The column {text(column)} of the {which} frame has {missing} missing values: leave these rows "
                    f"out or fill them in, such as frame[{text(column)}].fillna(0)."
                )
    x = {which: _numbers(frame, names, which) for which, frame in frames.items()}
    if standardise:
        mean, std = x["train"].mean(0), x["train"].std(0)
        x = {which: (values - mean) / np.where(std > 0, std, 1.0) for which, values in x.items()}
    y = _targets(train[target], test[target], target)
    return Arrays(x["train"].astype(np.float32), y[0], x["test"].astype(np.float32), y[1], name=name)


def _numbers(frame: pd.DataFrame, names: Sequence[str], which: str) -> np.ndarray:
    """The columns in float64."""
    for column in names:
        kind = frame[column].dtype
        if not pd.api.types.is_numeric_dtype(kind) or pd.api.types.is_complex_dtype(kind):
            raise UsageError(
                f"The column {text(column)} is of type {kind}, and inputs are numbers: make columns of it before the "
                f"frames are split, pandas.get_dummies(frame, columns=[{text(column)}]), or leave it out: features."
            )
        if pd.api.types.is_integer_dtype(kind) and len(frame) and int(frame[column].abs().max()) > EXACT:
            raise UsageError(
                f"The column {text(column)} of the {which} frame holds whole numbers that float32 cannot tell apart, "
                f"such as {int(frame[column].abs().max())}: divide them, or leave it out if it is an identifier."
            )
    return frame[list(names)].to_numpy(dtype=np.float64)


def _targets(train: Any, test: Any, target: str) -> tuple[np.ndarray, np.ndarray]:
    if pd.api.types.is_bool_dtype(train.dtype) or pd.api.types.is_integer_dtype(train.dtype):
        return train.to_numpy(dtype=np.int64), test.to_numpy(dtype=np.int64)
    if pd.api.types.is_numeric_dtype(train.dtype):
        return train.to_numpy(dtype=np.float32), test.to_numpy(dtype=np.float32)
    classes = sorted({*map(str, train)})
    if unknown := {*map(str, test)} - {*classes}:
        raise UsageError(f"The class {text(sorted(unknown)[0])} of {text(target)} is in the test frame alone.")
    numbers = {label: number for number, label in enumerate(classes)}
    return np.array([numbers[str(v)] for v in train]), np.array([numbers[str(v)] for v in test])
