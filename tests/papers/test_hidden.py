"""What matching hides: measures by slow references, rows by hand, claims by made-up rows, refusals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lotto
import made_up
from conftest import small_arrays, small_recipe
from lotto import papers
from lotto.core.errors import UsageError
from lotto.core.rng import derived_seed
from lotto.core.statistics import Verdict
from lotto.execution.serial import Serial
from lotto.experiments.claims import check_claims
from lotto.experiments.measures import DENSE, ERROR, IMP, RANDOM
from lotto.papers.hidden import measures as m
from lotto.papers.hidden.calibration import BINS, brier, calibration_error, log_loss
from lotto.papers.hidden.claims import CLAIMS
from lotto.papers.hidden.predictions import PredictionsTask, predictions_of
from lotto.training.job import Job
from made_up import group, rows

SMALL = {"replicates": 1, "levels": 2, "rewind_to": ("5it",)}


def measured(name, store, **changes):
    return made_up.measured(f"hidden.{name}", store, **{**SMALL, **changes})


def imp(recipe, store, **changes):
    given = {"levels": 2, "rewind_to": "5it", "replicates": 1, "controls": (), "engine": Serial(store), **changes}
    return lotto.imp(recipe, **given).replicates[0]


# --- calibration --------------------------------------------------------------------------------------------


def slow_probabilities(logits):
    found = []
    for row in logits.tolist():
        powers = [math.exp(value - max(row)) for value in row]
        found.append([power / sum(powers) for power in powers])
    return found


def slow_calibration_error(logits, targets, bins):
    """Counts the examples of each bin one by one, the larger bins first."""
    examples = []
    for number, (row, target) in enumerate(zip(slow_probabilities(logits), targets.tolist(), strict=True)):
        sure = max(row)
        examples.append((sure, number, row.index(sure) == target))
    examples.sort()
    total, first = 0.0, 0
    for number in range(bins):
        size = len(examples) // bins + (number < len(examples) % bins)
        inside = examples[first : first + size]
        confidence = sum(sure for sure, _, _ in inside) / size
        accuracy = sum(right for _, _, right in inside) / size
        total += size / len(examples) * abs(accuracy - confidence)
        first += size
    assert first == len(examples)
    return total


@given(
    st.integers(0, 10**6), st.integers(2, 5), st.integers(7, 40), st.integers(1, 7), st.sampled_from((0.1, 1.0, 9.0))
)
def test_probabilities_are_judged_as_by_slow_references(seed, classes, count, bins, scale):
    generator = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, generator=generator)
    targets = torch.randint(classes, (count,), generator=generator)
    probabilities = slow_probabilities(logits.double())
    likelihood = sum(-math.log(row[y]) for row, y in zip(probabilities, targets.tolist(), strict=True)) / count
    squares = [
        sum((p - (c == y)) ** 2 for c, p in enumerate(row))
        for row, y in zip(probabilities, targets.tolist(), strict=True)
    ]
    assert log_loss(logits, targets) == pytest.approx(likelihood, rel=1e-12)
    assert brier(logits, targets) == pytest.approx(sum(squares) / count, rel=1e-12)
    expected = slow_calibration_error(logits.double(), targets, bins)
    assert calibration_error(logits, targets, bins) == pytest.approx(expected, abs=1e-12)


def test_equal_confidences_stay_in_the_order_of_the_examples():
    logits, targets = torch.tensor([[2.0, 0.0]] * 4), torch.tensor([0, 0, 1, 1])
    sure = 1 / (1 + math.exp(-2))
    assert calibration_error(logits, targets, 2) == pytest.approx((1 - sure + sure) / 2)
    assert calibration_error(logits, targets, 1) == pytest.approx(sure - 0.5)
    for bins in (0, 5):
        with pytest.raises(UsageError, match=f"1 to 4 of them; got {bins}"):
            calibration_error(logits, targets, bins)


# --- rows are what they say ---------------------------------------------------------------------------------


def by_hand(recipe, weights):
    """Logits by the plain module, and the targets."""
    module = recipe.build()
    module.load_state_dict(dict(weights))
    with torch.no_grad():
        return module.eval()(recipe.arrays.x["test"]), recipe.arrays.y["test"]


def slow_class_errors(logits, targets):
    pairs = list(zip(logits.argmax(1).tolist(), targets.tolist(), strict=True))
    found = {}
    for number in sorted(set(targets.tolist())):
        own = [guess for guess, target in pairs if target == number]
        found[number] = 100 * sum(guess != number for guess in own) / len(own)
    return found


def test_rows_of_examples_are_those_of_predictions_by_hand(store):
    recipe, frame = measured("examples", store, eval_levels=(2,))
    levels = imp(recipe, store, controls=("random",), control_levels=[2])
    start, order = levels[0].run.state(5).without_optimizer, derived_seed(0, "another-order", 1)
    (other,) = Serial(store).run([Job(recipe, order_seed=order, start=start, from_step=5)])
    networks = {(0, DENSE): levels[0].run, (0, m.OTHER_ORDER): other, (2, RANDOM): levels[2].controls["random"]}
    networks |= {(at.level, IMP): at.run for at in levels[1:]}
    assert {*zip(frame["level"], frame["kind"], strict=True)} == {*networks}
    dense, targets = by_hand(recipe, levels[0].run.weights)
    dense_errors = slow_class_errors(dense, targets)
    for (level, kind), run in networks.items():

        def value(measure, level=level, kind=kind, **columns):
            return made_up.value(frame, kind, measure, level=level, **columns)

        logits, _ = by_hand(recipe, run.weights)
        errors = slow_class_errors(logits, targets)
        assert value(m.ORDER_ERROR if kind == m.OTHER_ORDER else ERROR) == run.test_error
        for number, error in errors.items():
            assert value(m.CLASS_ERROR, x=number) == pytest.approx(error)
        mean = sum(errors.values()) / len(errors)
        spread = (sum((error - mean) ** 2 for error in errors.values()) / len(errors)) ** 0.5
        assert value(m.WORST_CLASS) == pytest.approx(max(errors.values()))
        assert value(m.CLASS_SPREAD) == pytest.approx(spread)
        assert value(m.LOG_LOSS) == pytest.approx(log_loss(logits, targets), rel=1e-5)
        assert value(m.BRIER) == pytest.approx(brier(logits, targets), rel=1e-5)
        assert value(m.CALIBRATION) == pytest.approx(calibration_error(logits, targets, BINS), rel=1e-4)
        if kind == DENSE:
            assert not len(m.CHANGED.of(frame[frame["kind"] == DENSE])), "nothing is changed against itself"
            continue
        guesses = list(zip(logits.argmax(1).tolist(), dense.argmax(1).tolist(), targets.tolist(), strict=True))
        assert value(m.CHANGED) == sum(a != b for a, b, _ in guesses) / len(guesses)
        assert value(m.FLIPPED) == sum((a == y) != (b == y) for a, b, y in guesses) / len(guesses)
        assert value(m.CLASS_RISE) == pytest.approx(max(errors[c] - dense_errors[c] for c in errors))


def test_at_the_start_the_other_order_is_another_training_from_the_same_weights(store):
    recipe, frame = measured("examples", store, rewind_to=("0it",), levels=1)
    order = derived_seed(0, "another-order", 1)
    (other,) = Serial(store).run([Job(recipe, init_seed=0, order_seed=order)])
    assert made_up.value(frame, m.OTHER_ORDER, m.ORDER_ERROR) == other.test_error


def test_a_class_without_test_examples_has_no_error(store):
    data = small_arrays()
    there = data.y["test"] != 3
    some = lotto.data.Arrays(data.x["train"], data.y["train"], data.x["test"][there], data.y["test"][there])
    recipe = small_recipe(data=some)
    (outcome,) = Serial(store).run([PredictionsTask(recipe, recipe.initial(0))])
    found = predictions_of(outcome)
    assert np.isnan(found.class_errors).tolist() == [False, False, False, True, False, False]
    assert found.worst_class == np.nanmax(found.class_errors)
    assert found.mistakes.error == pytest.approx(lotto.evaluate(recipe, recipe.initial(0)).error)


FEW = {"data": small_arrays(test=14)}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": "mse"}, "trained by cross-entropy and judged by its share of mistakes; small is"),
        (FEW, "15 bins of test examples, of all there are; rings has 14 test examples"),
    ],
)
def test_what_has_no_probabilities_to_judge_is_refused_before_training(store, changes, said):
    recipe = small_recipe(**changes)
    experiment = papers.get("hidden.examples")
    with pytest.raises(UsageError, match=said):
        experiment.run(experiment.options(recipe, SMALL), Serial(store))
    assert not list(store.root.glob("*/*"))


# --- claims -------------------------------------------------------------------------------------------------

MATCHING = rows(IMP, ERROR, 1.2)


def pair(measure, ticket, other, kind=m.OTHER_ORDER):
    level, density = (8, 0.058) if kind == RANDOM else (0, 1.0)
    return [*scaled(rows(IMP, measure, 0.0), ticket), *scaled(rows(kind, measure, 0.0, level, density=density), other)]


def scaled(found, mean):
    """Noise of a tenth of the mean at most, for shares that are small."""
    at = made_up.COLUMNS.index("value")
    return [(*row[:at], mean * (1 + 5 * row[at]), *row[at + 1 :]) for row in found]


S, C, U = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("number", "parts", "expected"),
    [
        (1, [MATCHING, pair(m.CHANGED, 0.010, 0.010)], S),
        (1, [MATCHING, pair(m.CHANGED, 0.020, 0.010)], C),
        (1, [rows(IMP, ERROR, 2.2), pair(m.CHANGED, 0.010, 0.010)], Verdict.AGREES),
        (1, [pair(m.CHANGED, 0.010, 0.010)], Verdict.AGREES),
        (1, [MATCHING], U),
        (2, [MATCHING, pair(m.CLASS_RISE, 0.5, 0.6)], S),
        (2, [MATCHING, pair(m.CLASS_RISE, 1.5, 0.6)], C),
        (3, [MATCHING, pair(m.CALIBRATION, 0.004, 0.005, DENSE)], S),
        (3, [MATCHING, pair(m.CALIBRATION, 0.009, 0.005, DENSE)], C),
        (4, [MATCHING, pair(m.LOG_LOSS, 0.03, 0.04, DENSE)], S),
        (4, [MATCHING, pair(m.LOG_LOSS, 0.05, 0.04, DENSE)], C),
        (5, [pair(m.CHANGED, 0.01, 0.03, RANDOM)], S),
        (5, [pair(m.CHANGED, 0.03, 0.01, RANDOM)], C),
    ],
)
def test_a_claim_is_decided_by_made_up_rows(number, parts, expected):
    (decision,) = check_claims([c for c in CLAIMS if c.number == number], [group(*parts)])
    assert decision.verdict is expected
    assert len(decision.findings) == (expected is not U)
