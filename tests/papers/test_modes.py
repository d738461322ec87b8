"""Modes of solutions: rows against trainings and paths by hand, claims by made-up rows."""

from __future__ import annotations

import math

import pytest

import lotto
import made_up
from lotto import papers
from lotto.core.errors import UsageError
from lotto.core.rng import derived_seed
from lotto.core.statistics import Verdict
from lotto.execution.serial import Serial
from lotto.experiments.claims import check_claims
from lotto.experiments.experiment import summary
from lotto.experiments.measures import DENSE, ERROR, IMP, ONE_SHOT
from lotto.papers.modes import measures as m
from lotto.papers.modes.claims import CLAIMS
from lotto.papers.modes.methods import changing
from lotto.pruning import masks
from lotto.pruning.allocation import random_erk
from lotto.training.job import Job
from made_up import rows, value

SMALL = {"replicates": 1, "levels": 2, "rewind_to": ("5it",), "points": 3}
OTHER = derived_seed(0, "another-order", 1)


def measured(name, store, **changes):
    return (*made_up.measured(f"modes.{name}", store, **{**SMALL, **changes}), papers.get(f"modes.{name}"))


def imp(recipe, store, **changes):
    given = {"levels": 2, "rewind_to": "5it", "replicates": 1, "controls": (), "engine": Serial(store), **changes}
    return lotto.imp(recipe, **given).replicates[0]


def test_rows_are_those_of_trainings_and_paths_by_hand(store):
    recipe, frame, experiment = measured("solutions", store)
    _, beside, other_experiment = measured("copies", store)
    _, starts, _ = measured("starts", store)
    chain, cut = imp(recipe, store), imp(recipe, store, one_shot=True)
    dense, last = chain[0].run, chain[2].mask
    point = dense.state(5).without_optimizer
    before = {"densities": (masks.density(last),), "prune_at": "init", "rewind_to": 0, "levels": None}
    snip = imp(recipe, store, score="snip", allocation="global", **before)[1].mask
    random = random_erk(masks.ones(recipe), masks.count(last), 0)
    started = {"order_seed": 0, "start": point, "from_step": 5}
    jobs = {
        IMP: (Job(recipe, mask=last, **started), Job(recipe, mask=last, **{**started, "order_seed": OTHER})),
        ONE_SHOT: (Job(recipe, mask=cut[1].mask, **started),),
        m.SNIP: (Job(recipe, 0, 0, mask=snip), Job(recipe, 0, OTHER, mask=snip)),
        m.RANDOM: (Job(recipe, 0, 0, mask=random),),
        m.SET: (Job(recipe, 0, 0, mask=random, sparsity=changing(recipe, "set", 0.5)),),
        m.GRADUAL: (Job(recipe, 0, 0, sparsity=changing(recipe, "gradual", masks.density(last))),),
    }  # fmt: skip
    engine = Serial(store)
    runs = {kind: engine.run(list(made)) for kind, made in jobs.items()}
    (moved,) = engine.run([Job(recipe, mask=random, **started)])

    def between(a, b):
        return lotto.landscape.barrier(recipe, a.weights, b.weights, points=3, store=store)

    for kind, (own, *others) in runs.items():
        assert value(frame, kind, ERROR) == own.test_error
        assert value(frame, kind, m.BETWEEN, x=0) == between(dense, own)
        for other in others:
            assert value(beside, kind, m.COPY_ERROR) == other.test_error
            assert value(beside, kind, m.COPIES) == between(own, other)
    assert value(frame, m.SNIP, m.BETWEEN, x=1) == between(runs[IMP][0], runs[m.SNIP][0])
    assert value(starts, m.RANDOM, m.MOVED_ERROR) == moved.test_error
    assert value(starts, m.RANDOM, m.MOVED_BETWEEN) == between(dense, moved)
    assert masks.count(runs[m.GRADUAL][0].mask) == masks.count(runs[m.SET][0].mask) == masks.count(last)
    assert len(experiment.plot(summary(frame), 5.0).axes) == 2
    (axis,) = other_experiment.plot(summary(beside), 5.0).axes
    assert len(axis.containers) == len(m.METHODS)


def test_some_methods_are_measured_alone_and_unknown_ones_are_refused(store):
    _, frame, experiment = measured("solutions", store, methods=("snip",))
    assert set(frame["kind"]) == {DENSE, m.SNIP}
    assert experiment.plot(summary(frame), 5.0).axes
    with pytest.raises(UsageError, match="wanda"):
        measured("starts", store, methods=("wanda",))


# --- claims -------------------------------------------------------------------------------------------------


def to_dense(kind, mean):
    return rows(kind, m.BETWEEN, mean, x=0.0)


def ticket(kind, copies, error):
    return [*rows(kind, m.COPIES, copies), *rows(kind, ERROR, error)]


def each(mean, measure=m.BETWEEN):
    x = 0.0 if measure == m.BETWEEN else math.nan
    return [row for kind in m.AT_INIT for row in rows(kind, measure, mean, x=x)]


def group(*parts):
    return made_up.group(rows(IMP, m.COPIES, 0.3), *parts)


S, C, U = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("number", "parts", "expected"),
    [
        (1, [to_dense(IMP, 0.5)], S),
        (1, [to_dense(IMP, 9.0)], C),
        (1, [], U),
        (2, [each(60.0)], S),
        (2, [each(0.5)], C),
        (2, [to_dense(m.SNIP, 60.0), to_dense(m.RANDOM, 0.5)], C),
        (3, [each(60.0), to_dense(IMP, 9.0)], S),
        (3, [each(5.0), to_dense(IMP, 9.0)], C),
        (4, [each(60.0), each(30.0, m.MOVED_BETWEEN)], S),
        (4, [each(30.0), each(60.0, m.MOVED_BETWEEN)], C),
        (5, [rows(IMP, m.MOVED_BETWEEN, 60.0)], S),
        (5, [rows(IMP, m.MOVED_BETWEEN, 1.0)], C),
        (6, [rows(IMP, ERROR, 1.1), ticket(m.RANDOM, 40.0, 5.0)], S),
        (6, [rows(IMP, ERROR, 1.1), ticket(m.RANDOM, 40.0, 5.0), ticket(m.SNIP, 0.5, 4.0)], C),
        (6, [], U),
    ],
)  # fmt: skip
def test_a_claim_is_decided_by_made_up_rows(number, parts, expected):
    (decision,) = check_claims([c for c in CLAIMS if c.number == number], [group(*parts)])
    assert decision.verdict is expected
    assert len(decision.findings) == (expected is not U)
