"""Stacked training: what alone gives, up to rounding, whatever the jobs differ in."""

from __future__ import annotations

import json
import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

import lotto
from conftest import same_tensors, small_recipe
from lotto import Adam, AdamW, Job, RMSprop, Store, recipes
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.data.in_memory import Arrays
from lotto.execution import autotune
from lotto.execution.autotune import measured_width
from lotto.execution.compute import get_or_compute_stack
from lotto.execution.engine import JobAdvanced
from lotto.execution.factory import make
from lotto.execution.processes import Processes
from lotto.execution.serial import Serial
from lotto.execution.stacking import stacks
from lotto.landscape.path import PathTask
from lotto.pruning import masks
from lotto.pruning.rule import prune
from lotto.training import loop
from lotto.training.learners.stacked import Stacked
from lotto.training.loop import Checkpoint, train, train_stack


class Normed(nn.Module):
    """A user's network with BatchNorm, a tied weight and a buffer."""

    def __init__(self):
        super().__init__()
        self.first, self.norm = nn.Linear(12, 12), nn.BatchNorm1d(12)
        self.again, self.out = nn.Linear(12, 12), nn.Linear(12, 6)
        self.again.weight = self.first.weight
        self.register_buffer("shift", torch.linspace(-1, 1, 12))

    def forward(self, x):
        return self.out(self.again(self.norm(self.first(x) + self.shift)).relu())


class Dropping(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(12, 12), nn.Dropout(0.5), nn.Linear(12, 6))


def images(count=120):
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(0, 255, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    y = torch.randint(0, 4, (count,), generator=generator)
    return Arrays(x[:80], y[:80], x[80:], y[80:])


def resnet(**changes):
    augmented = recipes.resnet20_cifar10_fast(device="cpu").augment
    given = {"model": "resnet-8", "data": images(), "batch_size": 20, "steps": "6it", "augment": augmented, **changes}
    return small_recipe(**given)


def different_jobs(recipe):
    """Other seeds, orders and masks; one begins later, one ends earlier, one goes on with its optimizer."""
    half = prune(recipe.initial(0), masks.ones(recipe), 0.5)
    dense = train(Job(recipe, keep=(3,)))
    return [
        Job(recipe, 0, 0, mask=half),
        Job(recipe, 1, 5, keep=(0, 2)),
        Job(recipe, order_seed=2, start=dense.state(3).without_optimizer, mask=half, from_step=3, keep=(3, 4)),
        Job(recipe, order_seed=0, start=dense.state(3), from_step=3),
        Job(recipe, 2, 0, to_step=4),
    ]


def check_same(one, other, rel=1e-9):
    assert set(one.states) == set(other.states)
    for step in one.states:
        for part in ("weights", "optimizer"):
            a, b = getattr(one.states[step], part), getattr(other.states[step], part)
            if part == "optimizer" and step == one.steps[1] and other.key is not None:
                continue  # the store does not keep it
            assert set(a) == set(b)
            for name in a:
                torch.testing.assert_close(b[name], a[name], rtol=rel, atol=rel)
    assert len(one.history) == len(other.history)
    for a, b in zip(one.history, other.history, strict=True):
        assert b == pytest.approx(a, rel=1e-6, nan_ok=True)


@pytest.mark.parametrize(
    "recipe",
    [
        small_recipe(steps="8it"),
        small_recipe(steps="8it", model=Normed, init="module"),
        resnet(),
        resnet(model="conv-2"),
        small_recipe(steps="8it", optimizer=Adam(1e-3, weight_decay=0.1)),
        small_recipe(steps="8it", optimizer=AdamW(1e-3)),
        small_recipe(steps="8it", optimizer=RMSprop(1e-3, momentum=0.9)),
        small_recipe(
            steps="8it", model=Normed, init="module", optimizer=lotto.SGD(0.1, 0.9, weight_decay=1e-3, nesterov=True)
        ),
    ],
    ids=["mlp", "tied", "resnet", "conv", "adam", "adamw", "rmsprop", "nesterov"],
)
def test_a_stack_gives_what_alone_gives_in_float64(recipe):
    jobs = different_jobs(recipe.replace(precision="float64"))
    told: list = []
    runs = train_stack(jobs, on_step=lambda i, step, loss: told.append((i, step)))
    for i, (job, run) in enumerate(zip(jobs, runs, strict=True)):
        check_same(train(job), run)
        assert run.steps == (job.from_step, job.end)
        assert [s for n, s in told if n == i][-1] == job.end
        if job.mask is not None:
            for state in run.states.values():
                for name, mask in job.mask.items():
                    assert not state.weights[name][~mask].any(), "exactly 0"
                    assert not any(t[~mask].any() for n, t in state.optimizer.items() if n.startswith(f"{name}/m"))


@pytest.mark.parametrize(("precision", "share"), [("float32", 1e-4), ("bfloat16", 0.2)])
def test_lower_precision_is_near(precision, share):
    recipe = resnet(precision=precision, steps="3it")
    jobs = [Job(recipe, seed, seed) for seed in range(2)]
    for job, run in zip(jobs, train_stack(jobs), strict=True):
        alone = train(job).weights
        moved = lotto.weights.distance(recipe.initial(job.init_seed), alone)
        assert lotto.weights.distance(run.weights, alone) < share * moved


def test_a_stack_goes_on_from_its_checkpoints():
    jobs = different_jobs(small_recipe(steps="8it", precision="float64"))
    points: dict[int, list[Checkpoint]] = {}

    def save(i, point):
        kept = dict(point.kept)
        points.setdefault(i, []).append(replace(point, kept=kept, history=list(point.history)))

    whole = train_stack(jobs, on_checkpoint=save, checkpoint_seconds=0)
    assert {len(found) > 1 for found in points.values()} == {True}
    resumed = train_stack(jobs, resume=[points[0][3], points[1][1], None, points[3][1], points[4][0]])
    for one, other in zip(whole, resumed, strict=True):
        check_same(one, other)


def test_a_loss_that_is_not_finite_names_its_job():
    recipe = small_recipe(model=Normed, init="module")
    bad = {n: t * 1e30 if t.is_floating_point() else t for n, t in recipe.initial(0).items()}
    jobs = [Job(recipe, label="good"), Job(recipe, start=lotto.State(bad), label="bad")]
    with pytest.raises(lotto.core.errors.DivergedError, match="The loss of bad became"):
        train_stack(jobs)


def test_what_cannot_be_stacked_is_told():
    with pytest.raises(UsageError, match="one recipe"):
        train_stack([Job(small_recipe()), Job(small_recipe(batch_size=10))])
    recipe = small_recipe(model=Dropping, init="module")
    jobs = [Job(recipe, seed) for seed in range(2)]
    with pytest.raises(UsageError, match=r"cannot train stacked.*Use a stack of 1"):
        train_stack(jobs)


def test_stacks_have_one_recipe_and_different_trainings():
    recipe, other = small_recipe(), small_recipe(steps="20it")
    jobs = [Job(recipe, seed) for seed in range(5)]
    again = Job(recipe, 0, keep=(3,))
    strange = Job(other)
    weights = recipe.initial(0)
    task = PathTask(recipe, weights, weights, 2)
    assert stacks([*jobs[:2], task, strange, again, *jobs[2:]], 4) == [
        [*jobs[:2], jobs[2], jobs[3]], [task], [strange], [again, jobs[4]]
    ]  # fmt: skip
    assert stacks([*jobs[:2]], 1) == [[jobs[0]], [jobs[1]]]


@pytest.mark.parametrize("make_engine", [lambda s: Serial(s, stack=3), lambda s: Processes(s, 2, stack=2)])
def test_engines_stack_and_remember(tmp_path, make_engine):
    recipe = small_recipe(model=Normed, init="module", precision="float64", steps="8it")
    jobs = [*(Job(recipe, seed, keep=(2,)) for seed in range(4)), Job(recipe, 0)]
    store, events = Store(tmp_path / "a"), []
    runs = make_engine(store).run(jobs, events.append)
    for job, run in zip(jobs, runs, strict=True):
        check_same(train(job), replace(run, states={s: run.states[s] for s in job.steps}))
    manifest = json.loads((store.folder(jobs[1].key) / "manifest.json").read_text())
    assert manifest["execution"]["stack"] > 1
    assert manifest["execution"]["arithmetic"].startswith("stacked")
    assert {e.job.init_seed for e in events if isinstance(e, JobAdvanced)} == {0, 1, 2, 3}
    again = Serial(store).run(jobs)
    assert all(same_tensors(a.weights, b.weights) for a, b in zip(runs, again, strict=True))
    # A step more than what is stored: that job is trained on its own, the new one beside it.
    more = [replace(jobs[1], keep=(2, 5)), Job(recipe, 9), Job(recipe, 10)]
    found = make_engine(store).run(more)
    check_same(train(more[0]), replace(found[0], states={s: found[0].states[s] for s in (2, 5, 8)}))
    check_same(train(more[1]), found[1])


def test_a_stack_that_was_killed_goes_on(tmp_path, monkeypatch):
    recipe = small_recipe(model=Normed, init="module", precision="float64", steps="30it")
    jobs = [Job(recipe, seed) for seed in range(3)]
    store = Store(tmp_path / "store")
    steps = []

    def die(i, step, loss):
        steps.append(step)
        if step >= 20:
            raise KeyboardInterrupt

    written: list = []
    original = Store.write_checkpoint
    monkeypatch.setattr(Store, "write_checkpoint", lambda s, j, p: (written.append(p.step), original(s, j, p)))
    recipe_often = [replace(job, keep=(20,)) for job in jobs]
    with pytest.raises(KeyboardInterrupt):
        get_or_compute_stack(store, recipe_often, on_step=die, checkpoint_seconds=0)
    assert max(written) >= 15
    steps.clear()
    found = get_or_compute_stack(store, recipe_often, on_step=lambda i, step, loss: steps.append(step))
    assert min(steps) > 15, "not from the start"
    for job, (run, trained) in zip(recipe_often, found, strict=True):
        assert trained
        check_same(train(job), replace(run, states=dict(run.states)))


def test_unidentified_jobs_are_stacked_too(tmp_path):
    namespace = {"nn": nn}
    exec("def local(): return nn.Sequential(nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 6))", namespace)
    recipe = small_recipe(model=namespace["local"], init="module", precision="float64", steps="4it")
    jobs = [Job(recipe, seed) for seed in range(3)]
    assert jobs[0].key is None
    for engine in (Serial(Store(tmp_path / "a"), stack=3), Processes(Store(tmp_path / "b"), 2, stack=2)):
        for job, run in zip(jobs, engine.run(jobs), strict=True):
            check_same(train(job), run)
            assert run.arithmetic.startswith("stacked") or isinstance(engine, Processes)


def test_measuring_decides_once_and_says_why(store, monkeypatch, caplog):
    recipe = small_recipe(model=Normed, init="module", steps="4it")
    width, why = measured_width(recipe, store, 1)
    assert width in (1, autotune.WIDTH)
    assert "ms alone" in why
    monkeypatch.setattr(autotune, "_best", lambda *given: pytest.fail("measured again"))
    assert measured_width(recipe, store, 1) == (width, why)
    caplog.set_level(logging.INFO)
    runs = Serial(store, stack=None).run([Job(recipe, seed) for seed in range(2)])
    assert why in caplog.text
    assert runs[0].steps == (0, 4)
    paces = iter([1e-3, 8 * 0.5e-3, 1e-3, 8 * 0.95e-3])
    monkeypatch.setattr(autotune, "_best", lambda *given: next(paces))
    assert measured_width(recipe.replace(batch_size=10), store, 1)[0] == autotune.WIDTH
    assert "2.0 times as quick" in measured_width(recipe.replace(batch_size=10), store, 1)[1]
    assert measured_width(recipe.replace(batch_size=12), store, 1)[0] == 1


def test_measuring_falls_back_where_stacking_is_impossible(store):
    width, why = measured_width(small_recipe(model=Dropping, init="module"), store, 1)
    assert width == 1
    assert "cannot train stacked" in why


def test_make_and_command(tmp_path, capsys):
    assert make(1, stack=4).stack == 4
    assert make(2, stack="measured").stack is None
    assert make(1).stack == 1
    with pytest.raises(UsageError, match="'measured' or a whole number from 1; got 'many'"):
        make(1, stack="many")
    main(
        ["imp", "mlp-mnist1d", "--steps", "40it", "--levels", "2", "--replicates", "3", "--jobs", "1", "--stack", "3",
         "--controls", "none", "--out", str(tmp_path)]
    )  # fmt: skip
    assert "9 computed" in capsys.readouterr().out


def test_one_of_a_stack_that_is_on_its_way_by_itself_is_computed_as_the_others(monkeypatch):
    recipe = small_recipe(steps="12it", precision="float64")
    kinds = []
    original = loop.learner_of

    def noted(*given, **named):
        learner = original(*given, **named)
        kinds.append((type(learner), len(given[0])))
        return learner

    monkeypatch.setattr(loop, "learner_of", noted)
    jobs = [Job(recipe, 0, 0, to_step=6), Job(recipe, 1, 1)]
    runs = train_stack(jobs)
    assert kinds == [(Stacked, 2), (Stacked, 1)]
    for job, run in zip(jobs, runs, strict=True):
        check_same(train(job), run)
