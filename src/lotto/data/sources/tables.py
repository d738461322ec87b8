"""Tables of numbers and categories: 53,940 diamonds with their prices.

Source: the data set diamonds of R's package ggplot2 (H. Wickham), as a CSV file in the PyPI package plotnine.
"""

from __future__ import annotations

import csv
import hashlib
import io
import math
import zipfile
import zlib
from pathlib import Path

import numpy as np

from lotto.core.errors import DataError
from lotto.data.sources.decode import Decoded

TABLE = "plotnine/data/diamonds.csv"
TEST = 10_000
MEDIAN = 2_401.0
"""Dollars; prices are told from it."""
NUMBERS = {
    "carat": (0.798, 0.474),
    "depth": (61.75, 1.43),
    "table": (57.46, 2.23),
    "x": (5.73, 1.12),
    "y": (5.73, 1.14),
    "z": (3.54, 0.71),
}
"""Columns of numbers with their mean and standard deviation."""
FAR = 5.0
"""Standard deviations, at most: a few lengths of 0 and of 58 mm are errors of measurement."""
CATEGORIES = {
    "cut": ("Fair", "Good", "Very Good", "Premium", "Ideal"),
    "color": tuple("DEFGHIJ"),
    "clarity": ("I1", "SI2", "SI1", "VS2", "VS1", "VVS2", "VVS1", "IF"),
}
"""Columns that are one number for each category, 1 for the one that it is."""
COLUMNS = len(NUMBERS) + sum(map(len, CATEGORIES.values()))


def diamonds(wheel: Path) -> Decoded:
    """Standardised measures and grades of diamonds, and the natural logarithm of their prices over the median price.

    The 10,000 for testing are those whose rows have the smallest SHA-256; of equal rows the first remains.

    Raises:
        DataError: if the file is damaged, or holds another table.
    """
    try:
        with zipfile.ZipFile(wheel) as found:
            text = found.read(TABLE).decode()
    except (zipfile.BadZipFile, KeyError, OSError, zlib.error, UnicodeDecodeError) as error:
        raise DataError(f"{wheel.name} is damaged, or has no {TABLE}: {error}.") from error
    lines = list(dict.fromkeys(text.splitlines()))
    rows = list(csv.DictReader(io.StringIO("\n".join(lines))))
    try:
        x = np.array([_inputs(row) for row in rows], np.float32)
        y = np.array([[math.log(float(row["price"]) / MEDIAN)] for row in rows], np.float32)
    except (KeyError, ValueError, TypeError) as error:
        raise DataError(f"{TABLE} in {wheel.name} is not the table of diamonds: {error}.") from error
    ordered = sorted(range(len(rows)), key=lambda i: hashlib.sha256(lines[i + 1].encode()).digest())
    test, train = ordered[:TEST], sorted(ordered[TEST:])
    return {"x_train": x[train], "y_train": y[train], "x_test": x[test], "y_test": y[test]}


def _inputs(row: dict[str, str]) -> list[float]:
    numbers = [min(max((float(row[name]) - mean) / std, -FAR), FAR) for name, (mean, std) in NUMBERS.items()]
    grades = [kinds.index(row[name]) for name, kinds in CATEGORIES.items()]
    return numbers + [
        float(at == i) for kinds, at in zip(CATEGORIES.values(), grades, strict=True) for i in range(len(kinds))
    ]
