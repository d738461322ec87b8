"""Masks that change along a training, as an experiment: rows against trainings by hand, arithmetic, claims."""

from __future__ import annotations

import math

import pandas as pd
import pytest
import torch
from torch import nn

import lotto
from conftest import small_recipe
from lotto import DynamicSparsity, papers
from lotto.core.errors import UsageError
from lotto.core.statistics import Verdict
from lotto.execution.serial import Serial
from lotto.experiments.claims import check_claims
from lotto.experiments.experiment import summary
from lotto.experiments.measures import LAST_QUARTER
from lotto.experiments.results import ResultGroup
from lotto.papers.rigging import measures as m
from lotto.papers.rigging.claims import CLAIMS
from lotto.pruning import masks
from lotto.pruning.allocation import erk_counts, random_erk
from lotto.training.passes import multiplications, training_fraction

S, C = Verdict.SUPPORTED, Verdict.CONTRADICTED


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    experiment = papers.get("rigging.dynamic")
    given = {"replicates": 2, "levels": 3, "rewind_to": ("5it",), "eval_levels": (3,), "updates": 3, "exploring": 4}
    options = experiment.options(small_recipe(), given)
    store = lotto.Store(tmp_path_factory.mktemp("rigging"))
    return experiment, options, experiment.run(options, Serial(store)), store


def value(frame, kind, measure, replicate=1):
    rows = measure.of(frame)
    (found,) = rows[(rows["kind"] == kind) & (rows["replicate"] == replicate) & (rows["level"] == 3)]["value"]
    return found


def test_rows_are_trainings_by_hand(measured):
    experiment, options, frame, store = measured
    recipe = options.recipe
    total = masks.count(lotto.imp(recipe, levels=3, rewind_to="5it", replicates=1, controls=(), jobs=1, store=store)
                        .ticket(level=3).mask)  # fmt: skip
    start = random_erk(masks.ones(recipe), total, 1)
    assert {n: int(k.sum()) for n, k in start.items()} == erk_counts(masks.ones(recipe), total)
    by_hand = {
        m.STATIC: None,
        m.SET: DynamicSparsity("set", every=5, stop=20),
        m.RIGL: DynamicSparsity("rigl", every=5, stop=20),
        m.SET_FEWER: DynamicSparsity("set", every=5, stop=20, fraction=0.1),
        m.RIGL_FEWER: DynamicSparsity("rigl", every=5, stop=20, fraction=0.1),
        m.SET_EXPLORING: DynamicSparsity("set", every=4, stop=20, decay="constant"),
        m.RIGL_EXPLORING: DynamicSparsity("rigl", every=4, stop=20, decay="constant"),
    }
    for kind, sparsity in by_hand.items():
        run = lotto.train(recipe, 1, 1, mask=start, sparsity=sparsity, store=store)
        assert value(frame, kind, lotto.experiments.measures.ERROR) == run.test_error
        assert value(frame, kind, m.EXPLORED) == run.history[-1].get("explored", start.density)
        last = run.mask or start
        empty = [not bool(row.any()) for keep in last.values() for row in keep]
        assert value(frame, kind, m.EMPTY) == sum(empty) / len(empty)
    gradual = DynamicSparsity("gradual", every=4, stop=20, density=start.density)
    run = lotto.train(recipe, 1, 1, sparsity=gradual, keep=range(1, 40), store=store)
    assert value(frame, m.GRADUAL, lotto.experiments.measures.ERROR) == run.test_error
    assert value(frame, m.GRADUAL, m.EXPLORED) == 1.0
    each = {name: keep.numel() for name, keep in start.items()}  # of linear layers
    mean = sum(run.mask_at(step).density for step in range(1, 41)) / 40
    assert value(frame, m.GRADUAL, m.ARITHMETIC) == pytest.approx(mean)
    assert value(frame, m.STATIC, m.ARITHMETIC) == pytest.approx(start.density)
    assert value(frame, m.RIGL, m.ARITHMETIC) == pytest.approx(start.density + 3 * (2 * start.density + 1) / 3 / 40)
    assert multiplications(recipe) == each
    assert experiment.trainings(options) == 2 * (1 + 3 + 8)
    made = experiment.plot(summary(frame), 0.2)
    assert all(axis.has_data() for axis in made.axes[:4])


class Convolved(nn.Module):
    """A convolution over 12 places and a linear layer."""

    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv1d(1, 4, 3, padding=1, bias=False), nn.Linear(48, 6)

    def forward(self, x):
        return self.fc(self.conv(x.unsqueeze(1)).flatten(1))


def test_a_convolution_multiplies_its_weights_at_each_place():
    recipe = small_recipe(model=Convolved, init="module")
    assert multiplications(recipe) == {"conv.weight": 12 * 12, "fc.weight": 48 * 6}
    assert training_fraction([(10, 0.5), (30, 0.1)], 40, dense_gradients=6) == pytest.approx(
        (5 + 3 + 6 * (2 * 0.2 + 1) / 3) / 40
    )


def test_what_cannot_change_its_mask_is_refused_before_training():
    trainable = lotto.Trainable(lambda: nn.Linear(4, 2), lambda model, *, start_step, seed: {"error": 0.0})
    experiment = papers.get("rigging.dynamic")
    with pytest.raises(UsageError, match="loop of your own"):
        experiment.run(experiment.options(trainable, {"replicates": 1, "levels": 1, "rewind_to": ("0it",)}),
                       lotto.engine.make(jobs=1))  # fmt: skip


COLUMNS = ["replicate", "seed", "rewind_step", "level", "density", "kind", "measure", "unit", "sample", "value"]


def group(errors, explored, density=0.05):
    """Results of five replicates whose kinds have these errors and these weights explored."""
    lines = []
    for seed, noise in enumerate((0.0, 0.02, -0.02, 0.01, -0.01)):
        for measure, values in ((lotto.experiments.measures.ERROR, errors), (m.EXPLORED, explored)):
            lines += [
                (seed, seed, 100, 8, density, kind, *measure[:2], 0, number + i * noise)
                for i, (kind, number) in enumerate(values.items())
            ]
        lines.append((seed, seed, 100, 0, 1.0, "dense", *LAST_QUARTER[:2], 0, 0.01 + noise))
    recipe = {"name": "small", "model": "resnet-20", "tolerance": 0.2, "optimizer": "SGD(lr=0.1)", "data": "rings"}
    return ResultGroup(recipe, {"iterations": 40}, pd.DataFrame(lines, columns=COLUMNS).assign(copy=0))


ERRORS = {
    "static": 5.0, "set": 4.0, "set, exploring": 3.5, "rigl": 3.0, "rigl, exploring": 2.5, "rigl, fewer": 2.0,
    "gradual": 2.9, "imp": 1.0,
}  # fmt: skip
EXPLORED = {
    "static": 0.05, "set": 0.1, "set, exploring": 0.2, "rigl": 0.1, "rigl, exploring": 0.2, "rigl, fewer": 0.08,
    "gradual": 1.0, "imp": 1.0,
}  # fmt: skip


def verdicts(made):
    return [decision.verdict for decision in check_claims(CLAIMS, [made])]


def test_claims_are_supported_and_contradicted_by_differences_of_a_replicate():
    assert verdicts(group(ERRORS, EXPLORED)) == [S] * 10
    other_way = {kind: 6.0 - error for kind, error in ERRORS.items()}
    less = {kind: 1.1 - part for kind, part in EXPLORED.items()}
    assert verdicts(group(other_way, less))[:3] == [C] * 3
    assert verdicts(group(other_way, less))[4:] == [C] * 6


def test_claims_say_nothing_far_from_their_density_or_without_rows():
    assert set(verdicts(group(ERRORS, EXPLORED, density=0.3))) == {Verdict.UNDECIDED}
    only = {"static": 5.0, "set": 4.0}
    found = check_claims(CLAIMS, [group(only, only)])
    assert [d.claim.number for d in found if d.findings] == [2]
    assert math.isfinite(found[1].findings[0].p)


def test_random_masks_are_another_one_for_each_seed():
    recipe = small_recipe()
    one, other, again = (random_erk(masks.ones(recipe), 200, seed) for seed in (0, 1, 0))
    assert all(torch.equal(one[n], again[n]) for n in one)
    assert not all(torch.equal(one[n], other[n]) for n in one)
