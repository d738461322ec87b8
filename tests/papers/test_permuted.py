"""Permuted masks: rows against trainings by hand, widths by name, claims by made-up rows."""

from __future__ import annotations

import pytest

import lotto
import made_up
from lotto.core.rng import derived_seed
from lotto.core.statistics import Verdict
from lotto.core.weights import distance
from lotto.execution.serial import Serial
from lotto.experiments.claims import check_claims
from lotto.experiments.measures import ERROR
from lotto.landscape.permutation import match_units, permuted
from lotto.papers.permuted import measures as m
from lotto.papers.permuted.claims import CLAIMS
from lotto.training.job import Job
from made_up import group, rows

SMALL = {"replicates": 1, "levels": 2, "rewind_to": ("5it",), "points": 3}
OTHER = derived_seed(0, "another-initialisation")


def measured(name, store, **changes):
    return made_up.measured(f"permuted.{name}", store, **{**SMALL, **changes})


def value(frame, kind, measure, level, **columns):
    return made_up.value(frame, kind, measure, level=level, **columns)


def imp(recipe, store, seed):
    given = {"levels": 2, "rewind_to": "5it", "replicates": 1, "controls": (), "engine": Serial(store)}
    return lotto.imp(recipe, seed=seed, **given).replicates[0]


def both(recipe, store):
    one, two = imp(recipe, store, 0), imp(recipe, store, OTHER)
    ends = one[0].run.weights, two[0].run.weights
    return one, two, {kind: match_units(recipe, *ends, how, store=store) for how, kind in m.PERMUTED.items()}


def test_masks_are_trained_from_the_other_rewind_point_as_they_are_and_permuted(store):
    recipe, frame = measured("transplant", store)
    one, two, orders = both(recipe, store)
    for number in (1, 2):
        mask = one[number].mask
        given = {m.NAIVE: mask, **{kind: permuted(order, mask) for kind, order in orders.items()}}
        for kind, moved in given.items():
            start = two[0].run.state(5).without_optimizer
            (run,) = Serial(store).run([Job(recipe, order_seed=OTHER, start=start, mask=moved, from_step=5)])
            assert value(frame, kind, ERROR, number) == run.test_error
            found = lotto.pruning.overlap(moved, two[number].mask)
            above = (found.jaccard - found.expected) / (1 - found.expected)
            assert value(frame, kind, m.AGREEMENT, number) == pytest.approx(above)
        assert value(frame, m.OWN, ERROR, number) == one[number].run.test_error
        assert value(frame, m.OTHERS_OWN, ERROR, number) == two[number].run.test_error
    for kind, order in orders.items():
        ends, mask = (one[0].run.weights, two[0].run.weights), one[0].mask
        nearer = distance(permuted(order, ends[0]), ends[1], mask) / distance(*ends, mask)
        assert value(frame, kind, m.DISTANCE, 0) == pytest.approx(nearer)
    assert value(frame, m.BY_WEIGHTS, m.DISTANCE, 0) < 1


def test_barriers_are_those_between_both_solutions(store):
    recipe, frame = measured("barriers", store, eval_levels=(2,))
    one, two, orders = both(recipe, store)
    for number in (0, 2):
        a, b = one[number].run.weights, two[number].run.weights
        moved = {m.NAIVE: a, **{kind: permuted(order, a) for kind, order in orders.items()}}
        for kind, weights in moved.items():
            expected = lotto.landscape.barrier(recipe, weights, b, points=3, store=store)
            assert value(frame, kind, m.BETWEEN, number) == expected
    assert not m.RECOMPUTED_BETWEEN.of(frame).size, "there is no BatchNorm"


def test_widths_are_measured_on_models_of_other_widths(store):
    recipe, frame = measured("widths", store, factors=(0.5, 1.0), levels=1)
    for factor, model in ((0.5, "mlp-12-8"), (1.0, "mlp-24-16")):
        wide = recipe.replace(model=model)
        one = lotto.imp(
            wide, levels=1, rewind_to="5it", replicates=1, controls=(), engine=Serial(store)
        ).replicates[0]  # fmt: skip
        (two,) = Serial(store).run([Job(wide, OTHER, OTHER, keep=(5,))])
        order = match_units(wide, one[0].run.weights, two.weights, store=store)
        for kind, mask in ((m.NAIVE, one[1].mask), (m.BY_ACTIVATIONS, permuted(order, one[1].mask))):
            start = two.state(5).without_optimizer
            (run,) = Serial(store).run([Job(wide, order_seed=OTHER, start=start, mask=mask, from_step=5)])
            assert value(frame, kind, m.WIDTH_ERROR, 1, x=factor) == run.test_error
        assert value(frame, m.OWN, m.WIDTH_ERROR, 1, x=factor) == one[1].run.test_error
        assert value(frame, m.OWN, m.WIDTH_ERROR, 0, x=factor) == one[0].run.test_error


# --- claims -------------------------------------------------------------------------------------------------


def by_width(narrow, wide):
    given = (
        (0.5, m.OWN, 1.0),
        (0.5, m.BY_ACTIVATIONS, 1 + narrow),
        (2.0, m.OWN, 0.8),
        (2.0, m.BY_ACTIVATIONS, 0.8 + wide),
    )
    return [row for x, kind, mean in given for row in rows(kind, m.WIDTH_ERROR, mean, x=x)]


S, C, U = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED
PERMUTED = rows(m.BY_ACTIVATIONS, ERROR, 1.4)


@pytest.mark.parametrize(
    ("number", "parts", "expected"),
    [
        (1, [PERMUTED, rows(m.NAIVE, ERROR, 3.0)], S),
        (1, [PERMUTED, rows(m.NAIVE, ERROR, 1.2)], C),
        (1, [PERMUTED], U),
        (2, [PERMUTED, rows(m.OWN, ERROR, 1.35)], S),
        (2, [PERMUTED, rows(m.OWN, ERROR, 1.0)], C),
        (3, [by_width(1.0, 0.2)], S),
        (3, [by_width(0.2, 1.0)], C),
        (4, [rows(m.NAIVE, m.RECOMPUTED_BETWEEN, 40), rows(m.BY_ACTIVATIONS, m.RECOMPUTED_BETWEEN, 10)], S),
        (4, [rows(m.NAIVE, m.RECOMPUTED_BETWEEN, 10), rows(m.BY_ACTIVATIONS, m.RECOMPUTED_BETWEEN, 40)], C),
        (5, [rows(m.BY_ACTIVATIONS, m.RECOMPUTED_BETWEEN, 0.2)], S),
        (5, [rows(m.BY_ACTIVATIONS, m.RECOMPUTED_BETWEEN, 2.0)], C),
        (5, [], U),
    ],
)  # fmt: skip
def test_a_claim_is_decided_by_made_up_rows(number, parts, expected):
    (decision,) = check_claims([c for c in CLAIMS if c.number == number], [group(*parts)])
    assert decision.verdict is expected
    assert len(decision.findings) == (expected is not U)
