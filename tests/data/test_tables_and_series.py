"""Diamonds and vowels: what becomes of the files that packages carry."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path

import numpy as np
import pytest

from lotto.core.errors import DataError
from lotto.data.sources import series, tables
from lotto.data.sources.series import japanese_vowels, padded
from lotto.data.sources.tables import diamonds

HEADER = '"carat","cut","color","clarity","depth","table","price","x","y","z"'
ROWS = [
    '0.23,"Ideal","E","SI2",61.5,55,326,3.95,3.98,2.43',
    '1.27,"Fair","J","IF",61.75,57.46,4802,5.73,58.9,0',
    '0.324,"Good","D","I1",61.75,57.46,2401,5.73,5.73,3.54',
]


def wheel(folder: Path, **contents: str) -> Path:
    path = folder / "some.whl"
    with zipfile.ZipFile(path, "w") as made:
        for name, content in contents.items():
            made.writestr({"table": tables.TABLE}.get(name) or series.FILE.format(name.upper()), content)
    return path


def by_price(found: dict[str, np.ndarray], price: float) -> np.ndarray:
    x, y = (np.concatenate([found[f"{part}_train"], found[f"{part}_test"]]) for part in "xy")
    (at,) = np.flatnonzero(np.abs(y[:, 0] - math.log(price / 2_401)) < 1e-6)
    return x[at]


def test_measures_are_standardised_and_cut_and_grades_are_one_hot(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "TEST", 1)
    found = diamonds(wheel(tmp_path, table="\n".join([HEADER, *ROWS, ROWS[1]]) + "\n"))
    assert {name: (a.shape, str(a.dtype)) for name, a in found.items()} == {
        "x_train": ((2, 26), "float32"), "y_train": ((2, 1), "float32"),
        "x_test": ((1, 26), "float32"), "y_test": ((1, 1), "float32"),
    }, "a row that is there twice counts once"  # fmt: skip
    row = by_price(found, 2_401)
    np.testing.assert_allclose(row[:6], [(0.324 - 0.798) / 0.474, 0, 0, 0, 0, 0], atol=1e-6)
    assert np.flatnonzero(row[6:]).tolist() == [1, 5 + 0, 5 + 7 + 0], "Good, D, I1"
    far = by_price(found, 4_802)
    assert (far[4], far[5]) == (5, pytest.approx(-3.54 / 0.71)), "58.9 mm is 47 standard deviations away"
    assert np.flatnonzero(far[6:]).tolist() == [0, 5 + 6, 5 + 7 + 7], "Fair, J, IF"


def test_which_rows_test_does_not_depend_on_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(tables, "TEST", 2)
    one = diamonds(wheel(tmp_path, table="\n".join([HEADER, *ROWS])))
    two = diamonds(wheel(tmp_path, table="\n".join([HEADER, *ROWS[::-1]])))
    np.testing.assert_array_equal(one["x_test"], two["x_test"])


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [('"carat"', '"karat"', "'carat'"), ("326", "much", "much"), ('"SI2"', '"SI9"', "not in tuple")],
)
def test_another_table_is_refused(tmp_path, old, new, text):
    content = "\n".join([HEADER, *ROWS]).replace(old, new)
    with pytest.raises(DataError, match=f"is not the table of diamonds: .*{text}"):
        diamonds(wheel(tmp_path, table=content))


def channels(*lengths: int, count: int = 12) -> str:
    rows = [":".join(",".join(str(10 * c + t) for t in range(n)) for c in range(count)) for n in lengths]
    return "#a comment\n@data\n" + "".join(f"{row}:{i + 3}\n" for i, row in enumerate(rows))


def test_series_are_padded_with_a_mask(tmp_path):
    x, y = padded(channels(7, 29))
    assert (x.shape, x.dtype, y.tolist()) == ((2, 13, 29), np.float32, [2, 3])
    for row, length in zip(x, (7, 29), strict=True):
        np.testing.assert_array_equal(row[:12, :length], [[10 * c + t for t in range(length)] for c in range(12)])
        assert not row[:, length:].any()
        assert row[12].tolist() == [1.0] * length + [0.0] * (29 - length)
    found = japanese_vowels(wheel(tmp_path, train=channels(7, 8), test=channels(9)))
    assert {name: len(a) for name, a in found.items()} == {"x_train": 2, "y_train": 2, "x_test": 1, "y_test": 1}


@pytest.mark.parametrize(
    "content", [channels(5, count=11), channels(30), "@data\n1,2:x\n", channels(4).replace("3", "")]
)
def test_what_are_no_such_series_is_refused(tmp_path, content):
    with pytest.raises(DataError, match="does not hold the series of the vowels"):
        japanese_vowels(wheel(tmp_path, train=content, test=content))


def test_damaged_wheels_are_named(tmp_path):
    for content in (b"", b"no wheel"):
        (tmp_path / "some.whl").write_bytes(content)
        for decode in (diamonds, japanese_vowels):
            with pytest.raises(DataError, match=r"some\.whl is damaged"):
                decode(tmp_path / "some.whl")
    for decode in (diamonds, japanese_vowels):
        with pytest.raises(DataError, match="or has no"):
            decode(wheel(tmp_path))
