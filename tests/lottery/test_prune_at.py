"""Pruning before training: masks of the initial weights or of those at the rewind step, trained from there."""

from __future__ import annotations

import math
import re

import pytest

import lotto
from conftest import same_tensors, small_recipe
from lotto import Job
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.core.rng import derived_seed
from lotto.execution.engine import JobFinished
from lotto.execution.processes import Processes
from lotto.execution.serial import Serial
from lotto.lottery.forecast import forecast
from lotto.lottery.plan import make_plan
from lotto.lottery.scoring import ScoreTask
from lotto.pruning import masks
from lotto.training.loop import train

DENSITIES = (0.5, 0.2, 0.1)


@pytest.fixture
def engine(store):
    return Serial(store)


@pytest.mark.parametrize("score", ["magnitude", "random", "snip", "grasp", "synflow"])
@pytest.mark.parametrize(("prune_at", "k"), [("init", 0), ("rewind", 7)])
def test_every_level_is_one_cut_of_the_weights_at_which_it_starts(score, prune_at, k, engine):
    recipe = small_recipe()
    given = {"densities": DENSITIES, "score": score, "seed": 5, "replicates": 1, "controls": (), "engine": engine}
    where = {} if prune_at == "init" else {"rewind_to": "7it"}
    result = lotto.imp(recipe, prune_at=prune_at, **where, **given)
    assert (result.plan.rewind_step, result.plan.densities) == (
        k,
        [masks.density(at.mask) for at in result.replicates[0][1:]],
    )
    dense = train(Job(recipe, init_seed=5, order_seed=5, keep=(k,)))
    start, every, seed = dense.state(k).without_optimizer, masks.ones(recipe), derived_seed(5, "pruning", 0)
    for level, density in zip(result.replicates[0][1:], DENSITIES, strict=True):
        kept = round(density * masks.size(every))
        if score in ("magnitude", "random"):
            mask = lotto.pruning.prune(start.weights, every, density=density, score=score, seed=seed)
        else:
            left = kept / masks.size(every) if score == "synflow" else None
            scores = lotto.lottery.score_weights(
                recipe, start.weights, score=score, seed=seed, density=left, store=None
            )
            mask = lotto.pruning.prune(start.weights, every, density=density, score=scores)
        assert masks.count(mask) == kept
        assert same_tensors(level.mask, mask)
        expected = train(Job(recipe, order_seed=5, start=start, mask=mask, from_step=k))
        assert same_tensors(level.run.weights, expected.weights)
        ticket = result.ticket(level.level)
        assert ticket.rewind_step == k
        assert same_tensors(ticket.start, masks.apply(start.weights, mask))


def test_at_the_step_0_both_words_are_the_same_computation(engine):
    options = {"levels": 2, "score": "snip", "replicates": 2, "engine": engine}
    one = lotto.imp(small_recipe(), prune_at="init", **options)
    events: list = []
    two = lotto.imp(small_recipe(), prune_at="rewind", rewind_to="0it", progress=events.append, **options)
    assert not any(e.trained for e in events if isinstance(e, JobFinished))
    assert one.table().equals(two.table())


def test_one_score_is_for_all_levels_unless_it_asks_for_their_density(engine):
    for score, asked in (("magnitude", 0), ("snip", 1), ("synflow", 3)):
        events: list = []
        lotto.imp(
            small_recipe(), densities=DENSITIES, score=score, prune_at="init", replicates=2, controls=("random",),
            engine=engine, progress=events.append,
        )  # fmt: skip
        finished = [e for e in events if isinstance(e, JobFinished)]
        plan = make_plan(
            small_recipe(), densities=DENSITIES, score=score, prune_at="init", replicates=2, controls=("random",)
        )
        assert sum(isinstance(e.job, ScoreTask) for e in finished) == 2 * asked
        assert len(finished) == plan.jobs == 2 * (1 + 3 + 3 + asked)


def test_processes_and_the_forecast_agree_with_one_after_another(engine, tmp_path):
    options = {"densities": DENSITIES, "score": "grasp", "prune_at": "init", "replicates": 2}
    plan = make_plan(small_recipe(), **options)
    before = forecast(plan, engine)
    assert (before.trainings, before.remembered) == (2 * (1 + 3 + 6), 0)
    result = lotto.imp(small_recipe(), engine=engine, **options)
    other = lotto.imp(small_recipe(), engine=Processes(lotto.Store(tmp_path / "other"), 2), **options)
    assert result.table().equals(other.table())
    after = forecast(plan, engine)
    assert (after.remembered, after.seconds) == (before.trainings, 0)


def test_controls_verdicts_tickets_and_saved_results_are_those_of_any_result(engine, tmp_path):
    result = lotto.imp(
        small_recipe(), densities=DENSITIES, score="synflow", prune_at="init", replicates=2, engine=engine
    )
    level = result.replicates[1][2]
    shuffled = masks.random_like(level.mask, 1 * 200 + 2)  # the control `random`: the mask shuffled within layers
    assert masks.layer_densities(shuffled) == masks.layer_densities(level.mask)
    run = train(Job(small_recipe(), order_seed=1, start=result.replicates[1][0].run.state(0), mask=shuffled))
    assert level.controls["random"].test_error == run.test_error
    table = result.table()
    assert set(table["verdict"]) <= {"dense", "matching", "failing", "borderline"}
    assert result.plan.describe()["prune_at"] == "init"
    assert "prune_at" not in make_plan(small_recipe(), levels=1).describe()
    again = lotto.load(result.save(tmp_path / "here"))
    page = (tmp_path / "here" / "report.html").read_text()
    assert "pruned by synflow at initialisation, 2 replicates" in page
    assert "IMP" not in re.sub(r"<svg.*?</svg>", "", page, flags=re.DOTALL)
    assert [t.get_text() for t in again.plot().axes[0].get_legend().get_texts()].count("synflow at initialisation") == 1
    assert again.table().equals(table)
    assert same_tensors(again.ticket(3, 1).mask, result.ticket(3, 1).mask)
    assert again.sign_table().equals(result.sign_table())
    assert list(result.overlap_table()["level"])


def test_layers_with_rates_of_their_own_and_allocations_are_kept(engine):
    recipe = small_recipe(pruning__rates={"fc3": 0.0})
    result = lotto.imp(
        recipe, densities=(0.5, 0.3), score="random", allocation="erk", prune_at="init", replicates=1, controls=(),
        engine=engine,
    )  # fmt: skip
    for level, density in zip(result.replicates[0][1:], (0.5, 0.3), strict=True):
        assert bool(level.mask["fc3.weight"].all())
        assert masks.count(level.mask) == round(density * masks.size(level.mask))


def test_a_ticket_may_be_pruned_before_training(engine):
    recipe = small_recipe()
    first = lotto.imp(recipe, densities=(0.5,), replicates=1, controls=(), engine=engine).ticket(1)
    result = lotto.imp(
        recipe, densities=(0.3,), score="snip", prune_at="init", start=first, replicates=1, controls=(), engine=engine
    )
    (dense, level) = result.replicates[0]
    assert masks.count(dense.mask) == masks.count(first.mask)
    assert all(not (level.mask[n] & ~first.mask[n]).any() for n in first.mask)
    assert masks.count(level.mask) == round(0.3 * masks.size(first.mask))


def test_a_level_that_diverges_ends_its_replicate_only(engine, monkeypatch):
    from lotto.lottery import replicate as module

    random = module.Replicate.job_of

    def with_a_nan(self, level, mask, last=None):
        job = random(self, level, mask, last)
        if (self.index, level) != (1, 2):
            return job
        recipe = job.recipe.replace(optimizer__lr=1e9)
        return Job(recipe, order_seed=job.order_seed, start=job.start, mask=job.mask)

    monkeypatch.setattr(module.Replicate, "job_of", with_a_nan)
    result = lotto.imp(small_recipe(), densities=DENSITIES, prune_at="init", replicates=2, controls=(), engine=engine)
    if result.replicates[1][2].diverged:
        assert [len(levels) for levels in result.replicates] == [4, 3]
        assert result.table()["verdict"].iloc[2] == "diverged"
        assert math.isfinite(result.table()["error"].iloc[3])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"prune_at": "start"}, "Unknown time of pruning 'start'. .*Choices: end, init, rewind"),
        (
            {"prune_at": "init", "adaptive": True},
            "prunes before training; adaptive pruning chooses its cuts by trained",
        ),
        ({"prune_at": "rewind", "schedule": "adaptive"}, "adaptive pruning chooses its cuts"),
        ({"prune_at": "init", "after": "lr"}, "trains every level from those weights: after='weights'; got after='lr'"),
        ({"prune_at": "init", "after": "reinit"}, "got after='reinit'"),
        ({"prune_at": "init", "particles": 2}, "particles are averaged to be pruned"),
        (
            {"prune_at": "init", "rewind_to": "5it"},
            "its rewind step is 0; got rewind_to='5it'. prune_at='rewind' prunes",
        ),
        ({"prune_at": "init", "score": "magnitude-increase"}, "no weight has grown yet"),
    ],
)
def test_what_does_not_go_together_is_said_before_training(options, said, engine):
    with pytest.raises(UsageError, match=said):
        lotto.imp(small_recipe(rewind_to="5it"), levels=1, replicates=1, engine=engine, **options)
    assert not any(engine.store.root.glob("??/*"))


def test_the_command_line_prunes_at_init(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = [
        "imp",
        "mlp-mnist1d",
        "--steps",
        "20it",
        "--densities",
        "0.5,0.1",
        "--score",
        "synflow",
        "--prune-at",
        "init",
    ]
    main([*arguments, "--replicates", "2", "--controls", "none", "--jobs", "1", "--out", "here"])
    assert "10 computed, 0 remembered" in capsys.readouterr().out  # 2 * (dense + 2 levels + 2 scores)
    assert lotto.load(tmp_path / "here").plan.describe()["prune_at"] == "init"
