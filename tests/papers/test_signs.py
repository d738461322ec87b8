"""Signs, magnitudes and the agreement of masks: starts by slow references, rows by hand, claims by made-up rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lotto
import made_up
from conftest import same_tensors
from lotto.core.errors import UsageError
from lotto.core.rng import derived_seed
from lotto.core.statistics import Verdict
from lotto.execution.serial import Serial
from lotto.experiments.claims import check_claims
from lotto.experiments.measures import ERROR
from lotto.papers.signs import measures as m
from lotto.papers.signs.claims import CLAIMS
from lotto.papers.signs.experiments import ARMS
from lotto.papers.signs.starts import Magnitudes, Signs, changed_start, turned_signs
from lotto.pruning import masks
from lotto.pruning.masks import Mask
from lotto.training.job import Job, State
from made_up import group, rows

SMALL = {"replicates": 1, "levels": 2, "rewind_to": ("5it",)}


def random_layers(seed):
    generator = np.random.default_rng(seed)
    shapes = {"one.weight": (3, 4), "two.weight": (2, 3, 2)}
    weights = {name: torch.from_numpy(generator.normal(size=s).astype("float32")) for name, s in shapes.items()}
    mask = Mask({name: torch.from_numpy(generator.random(s) < 0.6) for name, s in shapes.items()})
    return {**weights, "one.bias": torch.arange(3.0)}, mask


# --- where arms start ---------------------------------------------------------------------------------------


@given(st.integers(0, 10**6), st.sampled_from(Signs), st.sampled_from(Magnitudes))
def test_signs_and_magnitudes_change_independently_and_nothing_else_does(seed, signs, magnitudes):
    weights, mask = random_layers(seed)
    changed = changed_start(weights, mask, signs, magnitudes, seed)
    plain = changed_start(weights, mask, Signs.KEPT, magnitudes, seed)
    assert torch.equal(changed["one.bias"], weights["one.bias"])
    assert set(changed) == set(weights)
    for name, keep in mask.items():
        old, new = weights[name][keep].double().numpy(), changed[name][keep].double().numpy()
        assert changed[name][~keep].eq(0).all()
        assert torch.equal(changed[name].abs(), plain[name].abs()), "magnitudes do not hang on the signs"
        if signs is Signs.KEPT:
            assert (np.sign(new) == np.sign(old)).all()
        if magnitudes is Magnitudes.KEPT:
            assert (np.abs(new) == np.abs(old)).all()
        elif magnitudes is Magnitudes.SHUFFLED:
            assert sorted(np.abs(new)) == sorted(np.abs(old))
        elif len(old):
            np.testing.assert_allclose(np.abs(new), sum(abs(v) for v in old) / len(old), rtol=1e-6)


def test_as_they_were_is_the_masked_start():
    weights, mask = random_layers(0)
    assert same_tensors(changed_start(weights, mask, Signs.KEPT, Magnitudes.KEPT, 0), masks.apply(weights, mask))


def test_drawn_signs_are_even_and_named_by_their_seed():
    weights, mask = {"w": torch.ones(20_000)}, {"w": torch.ones(20_000, dtype=torch.bool)}
    first, again, other = (changed_start(weights, mask, Signs.DRAWN, Magnitudes.KEPT, s)["w"] for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert abs(first.mean().item()) < 0.03
    assert abs((first * other).mean().item()) < 0.03


@given(st.integers(0, 10**6), st.floats(0.01, 1.0))
def test_exactly_the_fraction_of_each_layer_turns_its_sign(seed, fraction):
    weights, mask = random_layers(seed)
    turned, less = (turned_signs(weights, mask, part, seed) for part in (fraction, fraction / 2))
    for name, keep in mask.items():
        changed = turned[name] == -weights[name]
        assert int((changed & keep).sum()) == round(fraction * int(keep.sum()))
        assert turned[name].abs().equal(masks.apply(weights, mask)[name].abs())
        fewer = (less[name] == -weights[name]) & keep
        assert bool((fewer <= changed).all()), "a smaller fraction is a part of a larger one"


def test_a_tied_weight_changes_under_all_of_its_names():
    weights = {"one": torch.randn(6, generator=torch.Generator().manual_seed(0))}
    weights["other"] = weights["one"]
    mask = Mask({"one": torch.ones(6, dtype=torch.bool)}, {"other": "one"})
    for changed in (
        changed_start(weights, mask, Signs.DRAWN, Magnitudes.SHUFFLED, 0), turned_signs(weights, mask, 0.5, 0)
    ):  # fmt: skip
        assert torch.equal(changed["one"], changed["other"])
        assert not torch.equal(changed["one"], weights["one"])


# --- rows are what they say ---------------------------------------------------------------------------------


def measured(name, store, **changes):
    return made_up.measured(f"signs.{name}", store, **{**SMALL, **changes})


def value(frame, kind, measure, level, **columns):
    return made_up.value(frame, kind, measure, level=level, **columns)


def imp(recipe, store, **changes):
    given = {"levels": 2, "rewind_to": "5it", "replicates": 1, "controls": (), "engine": Serial(store), **changes}
    return lotto.imp(recipe, **given)


def test_arms_are_trainings_from_changed_starts_beside_the_ticket_and_the_control(store):
    recipe, frame = measured("arms", store)
    levels = imp(recipe, store, controls=("reinit",), control_levels=[1, 2]).replicates[0]
    for at in levels[1:]:
        assert value(frame, m.TICKET, ERROR, at.level) == at.run.test_error
        assert value(frame, "reinit", ERROR, at.level) == at.controls["reinit"].test_error
        for kind, arm in ARMS.items():
            start = changed_start(levels[0].run.at(5), at.mask, *arm, derived_seed(0, "signs", at.level))
            job = Job(recipe, order_seed=0, start=State(start), mask=at.mask, from_step=5)
            (run,) = Serial(store).run([job])
            assert value(frame, kind, ERROR, at.level) == run.test_error


def slow_flips(one, two, mask):
    pairs = [
        (a, b)
        for name, keep in mask.items()
        for a, b, kept in zip(one[name].flatten(), two[name].flatten(), keep.flatten(), strict=True)
        if kept and a != 0 and b != 0
    ]
    return sum(1 for a, b in pairs if (a > 0) != (b > 0)) / len(pairs)


def test_flips_are_counted_weight_by_weight(store):
    recipe, frame = measured("flips", store)
    for kind, after in ((m.WEIGHT_REWINDING, "weights"), (m.LR_REWINDING, "lr")):
        levels = imp(recipe, store, after=after).replicates[0]
        rewound, ends = levels[0].run.at(5), [at.run.weights for at in levels]
        for number in (1, 2):
            mask, start = levels[number].mask, rewound if after == "weights" else ends[number - 1]
            for measure, beginning in (
                (m.FROM_REWIND_POINT, rewound), (m.IN_LEVEL, start), (m.SINCE_LEVEL, ends[number - 1])
            ):  # fmt: skip
                found = value(frame, kind, measure, number)
                assert found == pytest.approx(slow_flips(beginning, ends[number], mask), abs=1e-12)


def test_turned_signs_stay_turned_where_weights_are_rewound_and_are_trained_away_where_the_rate_is(store):
    recipe, frame = measured("perturbation", store, fractions=(0.5,), perturbed_level=1)
    seed = derived_seed(0, "turned-signs", 1)
    for kind, after in ((m.WEIGHT_REWINDING, "weights"), (m.LR_REWINDING, "lr")):
        levels = imp(recipe, store, after=after).replicates[0]
        dense, first = levels[0].run, levels[1].mask
        begin = dense.at(5) if after == "weights" else dense.weights
        moved = turned_signs(begin, first, 0.5, seed)
        (run,) = Serial(store).run([Job(recipe, order_seed=0, start=State(moved), mask=first, from_step=5)])
        second = lotto.pruning.prune(run.weights, first, recipe.pruning.rate)
        again = State(moved) if after == "weights" else State(run.weights)
        (last,) = Serial(store).run([Job(recipe, order_seed=0, start=again, mask=second, from_step=5)])
        for number, expected in ((1, run), (2, last)):
            assert value(frame, kind, m.PERTURBED_ERROR, number, x=0.5, y=1) == expected.test_error
            assert value(frame, kind, m.PERTURBED_ERROR, number, x=0.0, y=1) == levels[number].run.test_error


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"fractions": (0.0,)}, "above 0 and up to 1"),
        ({"fractions": ()}, "above 0 and up to 1"),
        ({"perturbed_level": 3}, "one of the levels 1 to 2; got perturbed_level=3"),
    ],
)
def test_what_cannot_be_turned_is_refused_before_training(store, given, said):
    with pytest.raises(UsageError, match=said):
        measured("perturbation", store, **given)
    assert not list(store.root.glob("*/*"))


def agreement(one, other):
    found = lotto.pruning.overlap(one, other)
    return (found.jaccard - found.expected) / (1 - found.expected)


def test_agreement_is_that_of_masks_found_by_hand(store):
    recipe, frame = measured("overlap", store)
    levels = imp(recipe, store).replicates[0]
    order = derived_seed(0, "another-order", 1)
    start = levels[0].run.state(5).without_optimizer
    others = {
        m.OTHER_INITIALISATION: imp(recipe, store, seed=derived_seed(0, "another-initialisation")).replicates[0],
        m.OTHER_REWINDING: imp(recipe, store, after="lr").replicates[0],
    }
    compared = {kind: [at.mask for at in found] for kind, found in others.items()}
    (run,) = Serial(store).run([Job(recipe, order_seed=order, start=start, from_step=5)])
    one = lotto.pruning.prune(run.weights, levels[0].mask, recipe.pruning.rate)
    (run,) = Serial(store).run([Job(recipe, order_seed=order, start=start, mask=one, from_step=5)])
    compared[m.OTHER_ORDER] = [levels[0].mask, one, lotto.pruning.prune(run.weights, one, recipe.pruning.rate)]
    compared[m.LEVEL_BEFORE] = [at.mask for at in (levels[0], *levels[:-1])]
    cuts = [
        lotto.pruning.prune(levels[0].run.weights, levels[0].mask, density=masks.density(at.mask)) for at in levels[1:]
    ]
    compared[m.ONE_CUT] = [levels[0].mask, *cuts]
    for kind, found in compared.items():
        for number in (1, 2):
            mine = levels[number].mask
            if kind == m.LEVEL_BEFORE and number == 1:
                continue
            assert value(frame, kind, m.AGREEMENT, number) == pytest.approx(agreement(mine, found[number]))
            assert value(frame, kind, m.OVERLAP, number) == lotto.pruning.overlap(mine, found[number]).jaccard
            for place, name in enumerate(mine):
                one, other = {name: mine[name]}, {name: found[number][name]}
                of_layer = value(frame, kind, m.LAYER_AGREEMENT, number, x=place)
                assert of_layer == pytest.approx(agreement(one, other))
    assert value(frame, m.OTHER_REWINDING, m.AGREEMENT, 1) == 1, "the first cut is of the same dense network"


# --- claims -------------------------------------------------------------------------------------------------


def perturbed(lr, weights):
    found = [(m.LR_REWINDING, 0.0, 1.0), (m.LR_REWINDING, 0.3, lr), (m.WEIGHT_REWINDING, 0.0, 1.2)]
    found.append((m.WEIGHT_REWINDING, 0.3, weights))
    return [row for kind, x, mean in found for row in rows(kind, m.PERTURBED_ERROR, mean, x=x)]


S, C, U = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("number", "parts", "expected"),
    [
        (1, [rows(m.DRAWN_CONSTANT, ERROR, 3.0), rows(m.KEPT_CONSTANT, ERROR, 1.4)], S),
        (1, [rows(m.DRAWN_CONSTANT, ERROR, 1.2), rows(m.KEPT_CONSTANT, ERROR, 1.4)], C),
        (1, [rows(m.DRAWN_CONSTANT, ERROR, 1.2)], U),
        (2, [rows(m.KEPT_CONSTANT, ERROR, 1.3), rows(m.TICKET, ERROR, 1.25)], S),
        (2, [rows(m.KEPT_CONSTANT, ERROR, 1.9), rows(m.TICKET, ERROR, 1.25)], C),
        (3, [rows(m.DRAWN_KEPT, ERROR, 2.9), rows(m.KEPT_CONSTANT, ERROR, 1.25)], S),
        (4, [rows(k, m.FROM_REWIND_POINT, v, 1) for k, v in ((m.LR_REWINDING, 0.5), (m.WEIGHT_REWINDING, 0.2))], S),
        (4, [rows(k, m.FROM_REWIND_POINT, v, 1) for k, v in ((m.LR_REWINDING, 0.1), (m.WEIGHT_REWINDING, 0.3))], C),
        (5, [perturbed(1.1, 2.0)], S),
        (5, [perturbed(1.6, 2.0)], C),
        (6, [rows(m.OTHER_INITIALISATION, m.AGREEMENT, 0.0)], S),
        (6, [rows(m.OTHER_INITIALISATION, m.AGREEMENT, 0.2)], C),
        (7, [rows(m.OTHER_ORDER, m.AGREEMENT, 0.4)], S),
        (7, [rows(m.OTHER_ORDER, m.AGREEMENT, -0.1)], C),
        (7, [], U),
    ],
)
def test_a_claim_is_decided_by_made_up_rows(number, parts, expected):
    (decision,) = check_claims([c for c in CLAIMS if c.number == number], [group(*parts)])
    assert decision.verdict is expected
    assert len(decision.findings) == (expected is not U)
