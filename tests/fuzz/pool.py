"""Values that nobody means, but everybody types at some time."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

LONG = "x" * 10_000

POOL: dict[str, Callable[[], Any]] = {
    "None": lambda: None,
    "empty text": lambda: "",
    "text": lambda: "abc",
    "long text": lambda: LONG,
    "brackets": lambda: "[/b] {x} \x00 $",
    "number as text": lambda: "3",
    "-1": lambda: -1,
    "0": lambda: 0,
    "10**30": lambda: 10**30,
    "10**5000": lambda: 10**5000,
    "1.5": lambda: 1.5,
    "nan": lambda: math.nan,
    "inf": lambda: math.inf,
    "complex": lambda: 1j,
    "True": lambda: True,
    "bytes": lambda: b"abc",
    "[]": lambda: [],
    "[1, 2]": lambda: [1, 2],
    "ragged": lambda: [[1], [2, 3]],
    "['a']": lambda: ["a"],
    "['3it']": lambda: ["3it"],
    "[None]": lambda: [None],
    "[LONG]": lambda: [LONG],
    "tuple": lambda: (1, "b", None),
    "{}": lambda: {},
    "{'a': 1}": lambda: {"a": 1},
    "{1: 'a'}": lambda: {1: "a"},
    "{'a': tensor}": lambda: {"a": torch.zeros(2)},
    "{'fc1.weight': list}": lambda: {"fc1.weight": [[1.0, 2.0]]},
    "set": lambda: {1, 2},
    "generator": lambda: (i for i in range(3)),
    "object": lambda: object(),
    "function": lambda: lambda: 0,
    "class": lambda: int,
    "exception": lambda: ValueError("abc"),
    "date": lambda: datetime.date(2020, 1, 1),
    "np.int64(-3)": lambda: np.int64(-3),
    "np.float64(nan)": lambda: np.float64("nan"),
    "np.str_": lambda: np.str_("abc"),
    "array of text": lambda: np.array(["a", "b"]),
    "array of objects": lambda: np.array([None, {}], dtype=object),
    "empty array": lambda: np.array([]),
    "array": lambda: np.arange(6.0).reshape(2, 3),
    "scalar tensor": lambda: torch.tensor(math.nan),
    "tensor": lambda: torch.zeros(2, 3),
    "complex tensor": lambda: torch.zeros(3, dtype=torch.complex64),
    "meta tensor": lambda: torch.zeros(3, device="meta"),
    "sparse tensor": lambda: torch.zeros(2, 2).to_sparse(),
    "module": lambda: nn.Linear(2, 2),
    "module class": lambda: nn.Linear,
    "missing path": lambda: Path("/nonexistent/file"),
}


class Unprintable:
    """An object whose text cannot be had."""

    def __repr__(self) -> str:
        raise RuntimeError("no text")


POOL["unprintable"] = Unprintable
