"""Rows that no experiment has measured, to decide claims by; and values of rows that one has."""

from __future__ import annotations

import math

import pandas as pd

from conftest import small_recipe
from lotto import papers
from lotto.execution.serial import Serial
from lotto.experiments.measures import ERROR, LAST_QUARTER
from lotto.experiments.results import ResultGroup

NOISE = (0.0, 0.02, -0.02, 0.01, -0.01)
COLUMNS = [
    "replicate", "seed", "rewind_step", "level", "density", "kind", "measure", "unit", "sample", "value", "x",
    "points", "examples", "bn_examples",
]  # fmt: skip


def rows(kind, measure, mean, level=8, x=math.nan, density=0.058):
    """Five replicates of a measure, of k = 100."""
    return [
        (r, r, 100, level, density, kind, measure.name, measure.unit, 0, mean + d, x, 10, 5000, 2000)
        for r, d in enumerate(NOISE)
    ]


def group(*parts):
    """Rows beside those of a dense network that has converged, as one network's results."""
    lines = [*rows("dense", ERROR, 1.3, 0, density=1.0), *rows("dense", LAST_QUARTER, 0.02, 0, 0.75, 1.0)]
    recipe = {"name": "some", "model": "resnet-20-w8", "data": "mnist1d-50k", "tolerance": 0.2}
    facts = {"iterations": 1000, "per_epoch": 100, "learning_rate": 0.2, "warmup": 0}
    frame = pd.DataFrame([*lines, *(row for part in parts for row in part)], columns=COLUMNS)
    return ResultGroup(recipe, facts, frame.assign(copy=0))


def measured(experiment, store, **options):
    """The recipe, and the rows of an experiment of it."""
    chosen = papers.get(experiment).options(small_recipe(), options)
    return chosen.recipe, papers.get(experiment).run(chosen, Serial(store))


def value(frame, kind, measure, **columns):
    """The only value of a measure, of a kind and of columns."""
    found = measure.of(frame)
    for column, expected in {"kind": kind, **columns}.items():
        found = found[found[column] == expected]
    (one,) = found["value"]
    return one
