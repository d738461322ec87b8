"""Equal budgets and moved tickets: rows by trainings by hand, claims by made-up rows, refusals before training."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import lotto
import made_up
from conftest import small_recipe
from lotto import papers
from lotto.core.errors import DivergedError, UsageError
from lotto.core.statistics import Verdict
from lotto.execution.serial import Serial
from lotto.experiments.case import lost_in_last_quarter
from lotto.experiments.claims import check_claims
from lotto.experiments.measures import DENSE, ERROR, IMP, RANDOM
from lotto.papers.hidden import measures as m
from lotto.papers.hidden.budget import at_rate, best, nearest_width, parameters_left
from lotto.papers.hidden.claims import CLAIMS
from lotto.papers.hidden.moved import OPTIMIZERS, mirrored, moves
from lotto.pruning import masks
from lotto.training.job import Job, Run, State
from made_up import group, rows

SMALL = {"replicates": 1, "levels": 2, "rewind_to": ("5it",)}


def measured(name, store, **changes):
    return made_up.measured(f"hidden.{name}", store, **{**SMALL, **changes})


def imp(recipe, store):
    return lotto.imp(
        recipe, levels=2, rewind_to="5it", replicates=1, controls=(), engine=Serial(store)
    ).replicates[0]  # fmt: skip


# --- equal budgets ------------------------------------------------------------------------------------------


def sizes(*hidden):
    """Parameters of a perceptron of 12 inputs and 6 classes."""
    return sum(a * b + b for a, b in itertools.pairwise((12, *hidden, 6)))


@given(st.integers(60, 814))
def test_the_nearest_width_is_that_of_all_there_are(parameters):
    candidates = {(round(24 * w / 24), round(16 * w / 24)) for w in range(1, 25)}
    found = min(candidates, key=lambda h: abs(math.log(sizes(*h) / parameters)))
    model, count = nearest_width(small_recipe(), parameters)
    assert count == sizes(*map(int, model.split("-")[1:]))
    assert abs(math.log(count / parameters)) == pytest.approx(abs(math.log(sizes(*found) / parameters)))


def test_layers_of_unlike_widths_keep_a_unit_each():
    model, count = nearest_width(small_recipe(model="mlp-64-4"), 200)
    hidden = [int(width) for width in model.split("-")[1:]]
    assert min(hidden) >= 1
    assert count == sizes(*hidden)


def test_no_network_is_given_for_fewer_parameters_than_the_narrowest_has():
    assert nearest_width(small_recipe(), 41) == ("mlp-2-1", sizes(2, 1))
    said = "No network of another width has as many parameters as the ticket, 10: .* the nearest is 'mlp-1-1' with 27"
    with pytest.raises(UsageError, match=said):
        nearest_width(small_recipe(), 10)


def test_a_ticket_has_its_weights_and_what_is_never_pruned(store):
    recipe = small_recipe()
    for at in imp(recipe, store):
        others = sum(p.numel() for n, p in recipe.build().named_parameters() if n not in at.mask)
        assert parameters_left(recipe, masks.density(at.mask)) == int(masks.count(at.mask)) + others
    assert parameters_left(recipe, 1.0) == recipe.parameter_count == sizes(24, 16)


def run_with(*, validation=1.0, diverged=""):
    return Run((0, 1), [{"step": 1, "validation_error": validation, "test_error": 9.0}], {}, diverged=diverged)


def test_the_best_rate_has_the_least_held_out_error_and_is_nearest_to_the_recipes():
    assert best({0.5: run_with(validation=3.0), 1.0: run_with(validation=2.0), 2.0: run_with(validation=2.5)}) == 1.0
    assert best({0.25: run_with(), 2.0: run_with()}) == 2.0, "equal ones: the nearer to 1"
    assert best({1.0: run_with(diverged="gone"), 2.0: run_with()}) == 2.0
    with pytest.raises(DivergedError, match="gone"):
        best({1.0: run_with(diverged="gone")})


def test_rows_of_budgets_are_trainings_at_all_rates_and_the_one_that_is_chosen(store):
    factors = (0.25, 1.0)
    recipe, frame = measured("budget", store, factors=factors, eval_levels=(2,))
    assert recipe.validation == 24, "a tenth of the training set is held out to choose by"
    levels = imp(recipe, store)
    left = parameters_left(recipe, masks.density(levels[2].mask))
    narrow, count = nearest_width(recipe, left)
    networks = {(0, DENSE): {}, (2, IMP): {}, (2, m.NARROW): {}}
    for factor in factors:
        own = recipe.replace(optimizer__lr=0.1 * factor)
        start = State(levels[0].run.at(5))
        jobs = {
            (0, DENSE): Job(own, 0, 0),
            (2, IMP): Job(own, order_seed=0, start=start, mask=levels[2].mask, from_step=5),
            (2, m.NARROW): Job(own.replace(model=narrow), 0, 0),
        }
        for place, job in jobs.items():
            (networks[place][factor],) = Serial(store).run([job])
    assert networks[2, IMP][1.0].test_error == levels[2].run.test_error
    parameters = {DENSE: recipe.parameter_count, IMP: left, m.NARROW: count}
    for (level, kind), runs in networks.items():
        held_out = {factor: run.history[-1]["validation_error"] for factor, run in runs.items()}
        chosen = min(held_out, key=lambda f: (held_out[f], -f))
        for measure, expected in (
            (m.PARAMETERS, parameters[kind]), (m.BEST_FACTOR, chosen), (m.TUNED_ERROR, runs[chosen].test_error)
        ):  # fmt: skip
            assert made_up.value(frame, kind, measure, level=level) == expected
        for factor, run in runs.items():
            assert made_up.value(frame, kind, m.RATE_ERROR, level=level, x=factor) == run.test_error


@pytest.mark.parametrize(
    ("recipe", "options", "said"),
    [
        ({"model": "conv1d"}, {}, "got the model 'conv1d'"),
        ({}, {"factors": (0.0,)}, "some positive number of times the recipe's; got the factor 0.0"),
    ],
)
def test_what_has_no_equal_budget_is_refused_before_training(store, recipe, options, said):
    experiment = papers.get("hidden.budget")
    chosen = experiment.options(small_recipe(**recipe), {**SMALL, **options})
    with pytest.raises(UsageError, match=said):
        experiment.run(chosen, Serial(store))
    assert not list(store.root.glob("*/*"))


def test_rates_are_not_tuned_where_none_can_be_chosen(store):
    without = papers.Options(small_recipe(), **SMALL)
    with pytest.raises(UsageError, match="held-out examples, of which there are none: set validation=N"):
        papers.get("hidden.budget").run(without, Serial(store))
    grouped = small_recipe(optimizer=lotto.SGD(0.1, groups={"fc1.*": {"lr": 0.01}}))
    with pytest.raises(UsageError, match="groups with lr of their own"):
        at_rate(grouped, 2.0)


# --- moved tickets ------------------------------------------------------------------------------------------


def test_mirrored_data_are_the_recipes_backwards_and_hold_the_same_examples_out():
    recipe = small_recipe(validation=40)
    (move,) = moves(recipe, ("mirrored",))
    for split in ("train", "test", "validation"):
        one, other = recipe.arrays.x[split].numpy(), move.recipe.arrays.x[split].numpy()
        assert (np.ascontiguousarray(one[:, ::-1]) == other).all()
        assert torch.equal(recipe.arrays.y[split], move.recipe.arrays.y[split])
    assert move.recipe.arrays.fingerprint != recipe.arrays.fingerprint
    assert mirrored(recipe).name == "rings, mirrored"


def test_rows_of_moved_tickets_are_trainings_there(store):
    recipe, frame = measured("moved", store, eval_levels=(2,))
    here = imp(recipe, store)
    random = masks.random_like(here[2].mask, 2)
    for what, target in {
        "optimizer": recipe.replace(optimizer=OPTIMIZERS["adam"]), "data": recipe.replace(data=mirrored(recipe))
    }.items():  # fmt: skip
        there, error = imp(target, store), m.MOVED_ERRORS[what]
        for kind, begin, mask in (
            (m.MOVED, here, here[2].mask), (m.MASK, there, here[2].mask), (RANDOM, there, random)
        ):  # fmt: skip
            job = Job(target, order_seed=0, start=State(begin[0].run.at(5)), mask=mask, from_step=5)
            (run,) = Serial(store).run([job])
            assert made_up.value(frame, kind, error, level=2) == run.test_error
        assert made_up.value(frame, m.OWN, error, level=2) == there[2].run.test_error
        assert made_up.value(frame, DENSE, error, level=0) == there[0].run.test_error
    assert made_up.value(frame, IMP, ERROR, level=2) == here[2].run.test_error
    assert not len(m.LATE["data"].of(frame)), "two records are too few to say whether it has converged"


def test_whether_the_dense_network_has_converged_there_is_measured(store):
    recipe = small_recipe(evaluations=4)
    experiment = papers.get("hidden.moved")
    frame = experiment.run(experiment.options(recipe, {**SMALL, "levels": 1, "methods": ("adam",)}), Serial(store))
    target = recipe.replace(optimizer=OPTIMIZERS["adam"])
    (dense,) = Serial(store).run([Job(target, 0, 0, keep=(5,))])
    fraction, lost, _ = lost_in_last_quarter(target, dense)
    assert made_up.value(frame, DENSE, m.LATE["optimizer"], x=fraction) == lost
    assert not len(m.MOVED_ERRORS["data"].of(frame)), "it was not asked for"


@pytest.mark.parametrize(
    ("changes", "methods", "said"),
    [
        ({}, ("sgd",), "moved to another optimizer; small is trained by sgd already"),
        ({}, ("adams",), "Unknown optimizer or data set to move tickets to 'adams'.*Did you mean"),
        ({}, ("mirrored", "digits"), "one optimizer and one data set at most; got mirrored and digits"),
        ({}, ("digits",), r"data of the same shapes and classes; for digits fc1.weight has the shape \(24, 64\)"),
        ({"data": "digits"}, ("digits",), "moved to other data; small is trained on digits already"),
    ],
)
def test_where_a_ticket_cannot_be_moved_is_said_before_training(store, changes, methods, said):
    experiment = papers.get("hidden.moved")
    chosen = experiment.options(small_recipe(**changes), {**SMALL, "methods": methods})
    with pytest.raises(UsageError, match=said):
        experiment.run(chosen, Serial(store))
    assert not list(store.root.glob("*/*"))


def test_data_that_are_no_tensor_in_memory_are_not_mirrored():
    loaded = [(torch.zeros(12), 0), (torch.ones(12), 1)] * 20
    recipe = small_recipe(data=lotto.data.Indexed(loaded, loaded))
    with pytest.raises(UsageError, match=r"lie in memory as one tensor \(lotto.data.Arrays\)"):
        moves(recipe, ("mirrored",))


# --- claims -------------------------------------------------------------------------------------------------


def tuned(ticket, narrow=3.0, dense=1.3):
    return [
        *rows(IMP, m.TUNED_ERROR, ticket), *rows(m.NARROW, m.TUNED_ERROR, narrow),
        *rows(DENSE, m.TUNED_ERROR, dense, 0, density=1.0),
        *rows(IMP, m.PARAMETERS, 2000), *rows(m.NARROW, m.PARAMETERS, 1800),
    ]  # fmt: skip


def elsewhere(what, ticket, own=1.3, random=3.0, late=0.02):
    error = m.MOVED_ERRORS[what]
    return [
        *rows(m.MOVED, error, ticket), *rows(m.OWN, error, own), *rows(RANDOM, error, random),
        *rows(DENSE, m.LATE[what], late, 0, 0.75, 1.0),
    ]  # fmt: skip


S, C, U = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED


@pytest.mark.parametrize(
    ("number", "parts", "expected"),
    [
        (6, [tuned(1.3)], S),
        (6, [tuned(1.3, narrow=1.1)], C),
        (7, [tuned(1.3)], S),
        (7, [tuned(1.9)], C),
        (8, [elsewhere("optimizer", 1.3)], S),
        (8, [elsewhere("optimizer", 2.3)], C),
        (8, [elsewhere("optimizer", 1.3, late=0.9)], Verdict.AGREES),
        (9, [elsewhere("optimizer", 1.3)], S),
        (9, [elsewhere("optimizer", 3.3)], C),
        (10, [elsewhere("data", 1.3)], S),
        (10, [elsewhere("optimizer", 1.3)], U),
        (11, [elsewhere("data", 3.3)], C),
    ],
)
def test_a_claim_is_decided_by_made_up_rows(number, parts, expected):
    (decision,) = check_claims([c for c in CLAIMS if c.number == number], [group(*parts)])
    assert decision.verdict is expected
    assert len(decision.findings) == (expected is not U)
    if number == 6:
        assert "(1800 against 2000 parameters)" in decision.findings[0].figure
