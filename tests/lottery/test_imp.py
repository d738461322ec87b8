"""IMP with rewinding against its definition (STAB algorithm 1)."""

from __future__ import annotations

import logging

import numpy as np
import pytest
import torch
from torch import nn

import lotto
from conftest import same_tensors, small_recipe
from lotto import Job, Ticket
from lotto.core.errors import UsageError
from lotto.core.rng import derived_seed
from lotto.execution.engine import JobFinished
from lotto.execution.serial import Serial
from lotto.lottery.plan import REINIT_CONTROL, make_plan
from lotto.pruning import masks
from lotto.training.loop import train


@pytest.fixture
def engine(store):
    return Serial(store)


def test_levels_against_a_loop_by_hand(engine):
    recipe = small_recipe()
    result = lotto.imp(recipe, levels=3, rate=0.3, rewind_to="7it", replicates=2, seed=5, engine=engine)
    for replicate, chain in enumerate(result.replicates):
        seed = 5 + replicate
        dense = train(Job(recipe, init_seed=seed, order_seed=seed, keep=(7,)))
        mask, run = masks.ones(recipe), dense
        for level in chain:
            if level.level:
                before = masks.count(mask)
                mask = lotto.pruning.prune(run.weights, mask, rate=0.3)
                assert before - masks.count(mask) == round(0.3 * before)
                start = dense.state(7).without_optimizer
                run = train(Job(recipe, order_seed=seed, start=start, mask=mask, from_step=7))
            assert same_tensors(level.mask, mask)
            assert same_tensors(level.run.weights, run.weights)
            assert level.run.steps == ((7, 40) if level.level else (0, 40))
    table = result.table()
    assert list(table["level"]) == [0, 1, 2, 3]
    errors = np.array([[at.run.test_error for at in chain] for chain in result.replicates])
    assert np.allclose(table["error"], errors.mean(0))
    assert np.allclose(table["error_std"], errors.std(0, ddof=1))
    gaps = errors - errors[:, :1]
    bounds = gaps.mean(0) + 6.313751514675043 * gaps.std(0, ddof=1) / np.sqrt(2)  # Student's t, one degree of freedom
    assert np.allclose(table["gap"], gaps.mean(0))
    assert np.allclose(table["gap_high"], bounds)
    assert np.allclose(table["gap_low"], 2 * gaps.mean(0) - bounds)
    assert list(table["matching"]) == [True, *(bounds[1:] < recipe.tolerance)]
    assert (table["n"] == 2).all()


def test_controls_are_what_the_papers_say(engine):
    recipe = small_recipe()
    result = lotto.imp(recipe, levels=2, rewind_to="7it", replicates=1, control_levels=[2], engine=engine)
    at = result.replicates[0][2]
    assert not result.replicates[0][1].controls
    new = recipe.initial(1_000_000)
    reinit = train(Job(recipe, start=lotto.State(new), mask=at.mask))
    assert same_tensors(at.controls["reinit"].weights, reinit.weights)
    assert not torch.equal(new["fc1.weight"], recipe.initial(0)["fc1.weight"])
    random = at.controls["random"]
    kept = {n: (random.weights[n] != 0).sum() for n in at.mask}
    assert kept == {n: m.sum() for n, m in at.mask.items()}
    assert any(not torch.equal(random.weights[n] != 0, at.mask[n]) for n in at.mask)
    table = result.table()
    assert np.isnan(table["reinit"][1])
    assert table["random"][2] == random.test_error


def test_the_second_run_trains_nothing(engine):
    options = {"levels": 2, "replicates": 2, "engine": engine}
    lotto.imp(small_recipe(), **options)
    events: list = []
    again = lotto.imp(small_recipe(), progress=events.append, **options)
    finished = [e for e in events if isinstance(e, JobFinished)]
    assert len(finished) == 2 * (3 + 4)
    assert not any(e.trained for e in finished)
    assert again.table().equals(lotto.imp(small_recipe(), **options).table())


def test_replicates_share_what_more_replicates_need(engine):
    lotto.imp(small_recipe(), levels=1, replicates=1, controls=(), engine=engine)
    events: list = []
    lotto.imp(small_recipe(), levels=1, replicates=2, controls=(), engine=engine, progress=events.append)
    assert [e.trained for e in events if isinstance(e, JobFinished)].count(False) == 2


def test_a_ticket_is_the_rewound_start_and_the_mask(engine, tmp_path):
    recipe = small_recipe(tolerance=100.0)
    result = lotto.imp(recipe, levels=2, rewind_to="7it", replicates=1, controls=(), engine=engine)
    assert result.sparsest_matching().density == 1.0, "one replicate shows nothing"
    ticket = result.sparsest_within_tolerance()
    level = result.replicates[0][2]
    assert same_tensors(ticket.mask, level.mask)
    start = masks.apply(result.replicates[0][0].run.at(7), level.mask)
    assert same_tensors(ticket.start, start)
    assert not same_tensors(ticket.start, level.run.weights)
    assert ticket.density == level.mask.density
    loaded = Ticket.load(ticket.save(tmp_path / "ticket.safetensors"))
    assert same_tensors(loaded.start, ticket.start)
    assert same_tensors(loaded.mask, ticket.mask)
    assert (loaded.rewind_step, loaded.info["level"]) == (7, 2)
    assert same_tensors(lotto.train(recipe, start=loaded).weights, level.run.weights)


def test_files_that_are_not_tickets(tmp_path):
    (tmp_path / "x").write_bytes(b"\x80\x04pickle")
    with pytest.raises(UsageError, match=r"is not a lotto\.ticket file"):
        Ticket.load(tmp_path / "x")
    lotto.Mask({"w": torch.ones(2)}).save(tmp_path / "m")
    with pytest.raises(UsageError, match=r"its format is 'lotto\.mask'"):
        Ticket.load(tmp_path / "m")


@pytest.mark.parametrize("after", ["lr", "finetune", "reinit"])
def test_other_policies(engine, after):
    recipe = small_recipe()
    options = {"levels": 1, "replicates": 1, "controls": (), "engine": engine}
    if after != "reinit":
        options["rewind_to"] = "7it"
    result = lotto.imp(recipe, after=after, **options)
    dense, level = result.replicates[0]
    if after == "lr":
        start, changed, first = lotto.State(dense.run.weights), recipe, 7
    elif after == "finetune":
        # The schedule ends near 0, so fine-tuning uses 1 % of the peak or the last rate, whichever is more.
        rate = recipe.optimizer.lr * max(0.01, 1 / 40)
        changed = recipe.replace(schedule=lotto.Constant(), optimizer__lr=rate)
        start, first = lotto.State(dense.run.weights), 7
    else:
        start, changed, first = lotto.State(recipe.initial(derived_seed(0, "reinit", 1))), recipe, 0
    direct = train(Job(changed, start=start, mask=level.mask, from_step=first))
    assert same_tensors(level.run.weights, direct.weights)
    with pytest.raises(UsageError, match="makes no tickets"):
        result.ticket(1)


def test_rewound_optimizer_and_fresh_orders_are_options_that_matter(engine):
    options = {"levels": 2, "rewind_to": "7it", "replicates": 1, "controls": (), "engine": engine}
    plain, restored, fresh = (
        lotto.imp(small_recipe(), **options, **extra).replicates[0][2].run.weights
        for extra in ({}, {"rewind_optimizer": True}, {"order": "fresh"})
    )
    assert not same_tensors(plain, restored)
    assert not same_tensors(plain, fresh)


def test_one_shot_makes_a_single_cut_to_the_same_density(engine):
    result = lotto.imp(small_recipe(), levels=3, one_shot=True, replicates=1, controls=(), engine=engine)
    assert len(result.replicates[0]) == 2
    assert result.replicates[0][1].mask.density == pytest.approx(0.8**3, abs=1e-3)


def test_target_density_sets_the_levels():
    plan = make_plan(small_recipe(), density=0.25)
    assert plan.levels == 7  # 0.8 ** 6 = 0.262
    layered = small_recipe(pruning__scope="layer", pruning__rates={"fc3": 0.1})
    assert make_plan(small_recipe(), density=0.05).levels == 14
    assert make_plan(layered, density=0.05).levels > 14


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"levels": 0}, "levels is between 1 and 200"),
        ({"rate": 0.0}, "greater than 0 and less than 1"),
        ({"rate": 1}, "greater than 0 and less than 1"),
        ({"rewind_to": "40it"}, "rewind step 40 is not before the end of training at 40"),
        ({"rewind_to": "9ep"}, "rewind step 108 is not before the end"),
        ({"density": 1e-9}, r"density 1e-09 cannot be reached"),
        ({"density": 1.5}, "target density is greater than 0 and less than 1"),
        ({"density": 0.1, "levels": 3}, "not both"),
        ({"controls": ["renit"]}, "Unknown control 'renit'.*Did you mean 'reinit'"),
        ({"control_levels": [17]}, "Control levels are between 1 and 16"),
        ({"order": "new"}, "Unknown order 'new'"),
        ({"after": "weigths"}, "Unknown after-prune policy 'weigths'.*Did you mean 'weights'"),
        ({"replicates": 0}, "replicates is 1 or more"),
        ({"after": "lr", "rewind_optimizer": True}, "rewind_optimizer goes with after='weights'"),
        ({"after": "reinit", "rewind_to": "3it"}, "has no rewind step"),
        ({"after": "finetune", "finetune_lr": 0.0}, "learning rate is greater than 0"),
    ],
)
def test_bad_options_are_named_before_any_training(options, text, engine):
    events: list = []
    with pytest.raises(UsageError, match=text):
        lotto.imp(small_recipe(), engine=engine, progress=events.append, **options)
    assert not events


def test_a_density_behind_a_layer_that_stays():
    recipe = small_recipe(pruning__scope="layer", pruning__rates={"fc1": 0.0})
    with pytest.raises(UsageError, match=r"cannot be reached: pruning stops at 0\.\d+ \(layers with rate 0 stay"):
        make_plan(recipe, density=0.1)


def test_a_model_that_does_not_run_on_the_data_is_refused_before_training(engine):
    with pytest.raises(
        UsageError, match=r"cannot be trained \(a batch has inputs \(20, 12\) and targets \(20,\)\): mat1 and mat2"
    ):
        lotto.imp(small_recipe(model=lambda: nn.Linear(7, 2), init="module"), engine=engine)
    with pytest.raises(UsageError, match="no prunable weights"):
        lotto.imp(small_recipe(model=lambda: nn.BatchNorm1d(12), init="module"), engine=engine)


def test_the_trial_step_is_taken_once_and_only_if_something_is_trained(engine, monkeypatch):
    tried = []
    monkeypatch.setattr(
        lotto.execution.schedule, "check_trainable", lambda recipe, parts: tried.append(recipe) or 0.001
    )
    for _ in range(2):
        lotto.imp(small_recipe(), levels=1, replicates=2, engine=engine)
    assert len(tried) == 1
    lotto.imp(small_recipe(), levels=1, replicates=2, engine=Serial(engine.store))
    assert len(tried) == 1, "all is remembered"


def test_a_layer_pruned_to_nothing_warns_goes_on_and_shows(engine, caplog):
    recipe = small_recipe(pruning__rates={"fc2": 0.9999})
    with caplog.at_level(logging.WARNING):
        result = lotto.imp(recipe, levels=1, replicates=1, controls=(), engine=engine)
    assert "pruned to nothing: fc2" in caplog.text
    assert list(result.table()["empty_layers"]) == ["", "fc2"]


def test_runs_table_and_bounds(engine):
    result = lotto.imp(small_recipe(), levels=1, replicates=2, engine=engine)
    runs = result.runs_table()
    assert len(runs) == 2 * (2 + 2)
    assert set(runs["kind"]) == {"imp", "reinit", "random"}
    with pytest.raises(UsageError, match="Replicates are 0 to 1; got 2"):
        result.ticket(0, replicate=2)
    with pytest.raises(UsageError, match="Levels are 0 to 1; got 5"):
        result.ticket(5)


def test_without_a_matching_level_the_ticket_is_dense(engine):
    recipe = small_recipe(tolerance=0.0, steps="60it")
    result = lotto.imp(recipe, levels=1, rate=0.97, replicates=1, controls=(), engine=engine)
    assert result.sparsest_matching().density == 1.0
    assert result.sparsest_within_tolerance().density == 1.0


@pytest.mark.parametrize("score", ["random", "magnitude-increase"])
def test_other_scores(engine, score):
    recipe = small_recipe(pruning__score=score, steps="4it")
    result = lotto.imp(recipe, levels=2, replicates=1, controls=(), engine=engine)
    assert result.replicates[0][2].mask.density == pytest.approx(0.64, abs=1e-2)


@pytest.mark.parametrize("order", ["shared", "fresh"])
def test_a_ticket_trains_as_it_did_when_it_was_found(tmp_path, order):
    engine = lotto.engine.make(1, lotto.Store(tmp_path / "store"))
    recipe = small_recipe()
    result = lotto.imp(recipe, 2, 0.4, "5it", 2, (), order=order, engine=engine)
    result.ticket(2, 1).save(tmp_path / "ticket.safetensors")
    for ticket in (result.ticket(2, 1), lotto.Ticket.load(tmp_path / "ticket.safetensors")):
        trained = []
        run = lotto.train(recipe, start=ticket, engine=engine, progress=trained.append)
        assert same_tensors(run.weights, result.replicates[1][2].run.weights)
        assert not any(event.trained for event in trained if isinstance(event, JobFinished))
    other = lotto.train(recipe, order_seed=9, start=ticket, engine=engine)
    assert not same_tensors(other.weights, run.weights)


def test_a_start_is_where_level_0_begins_and_a_ticket_s_mask_is_what_it_has(engine):
    recipe = small_recipe()
    source = train(Job(recipe, init_seed=7, order_seed=9))
    for start in (source, source.weights):
        result = lotto.imp(recipe, levels=1, rate=0.5, rewind_to="4it", replicates=2, start=start, engine=engine)
        for replicate, (dense, level) in enumerate(result.replicates):
            expected = train(Job(recipe, order_seed=replicate, start=lotto.State(source.weights), keep=(4,)))
            assert same_tensors(dense.run.weights, expected.weights)
            mask = lotto.pruning.prune(expected.weights, masks.ones(recipe), rate=0.5)
            by_hand = Job(
                recipe, order_seed=replicate, start=lotto.State(expected.at(4)), mask=mask, from_step=4
            )  # fmt: skip
            assert same_tensors(level.run.weights, train(by_hand).weights)
            drawn = train(Job(recipe, replicate + REINIT_CONTROL, replicate, mask=mask))
            assert same_tensors(level.controls["reinit"].weights, drawn.weights), "its weights are new"
    ticket = result.ticket(1, 0)
    further = lotto.imp(recipe, levels=1, rate=0.5, replicates=1, controls=(), start=ticket, engine=engine)
    level_0, level_1 = further.replicates[0]
    expected = train(Job(recipe, start=lotto.State(ticket.start), mask=ticket.mask))
    assert same_tensors(level_0.run.weights, expected.weights)
    assert same_tensors(level_0.mask, ticket.mask)
    assert same_tensors(level_1.mask, lotto.pruning.prune(expected.weights, ticket.mask, rate=0.5))
    assert further.table()["density"].tolist() == pytest.approx([0.5, 0.25], abs=1e-3)
    with pytest.raises(UsageError, match="fc1"):
        lotto.imp(recipe.replace(model="mlp-8"), levels=1, replicates=1, start=ticket, engine=engine)
