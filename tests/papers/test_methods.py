"""All methods side by side: rows against trainings by hand, their compute, claims, the figure."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

import lotto
from conftest import small_recipe
from lotto import papers
from lotto.core.errors import UsageError
from lotto.core.statistics import Verdict
from lotto.execution.serial import Serial
from lotto.experiments.claims import check_claims
from lotto.experiments.experiment import summary
from lotto.experiments.measures import ERROR, LAST_QUARTER
from lotto.experiments.results import ResultGroup
from lotto.papers.methods.claims import CLAIMS
from lotto.papers.methods.measures import COMPUTE, KINDS, METHODS, STOPPED
from lotto.pruning import masks


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    experiment = papers.get("methods.compute")
    given = {"replicates": 2, "levels": 2, "rewind_to": ("0it", "5it"), "checks": 8, "updates": 3}
    options = experiment.options(small_recipe(), given)
    store = lotto.Store(tmp_path_factory.mktemp("methods"))
    return experiment, options, experiment.run(options, Serial(store)), store


def value(frame, name, measure, k=5, replicate=1):
    rows = measure.of(frame)
    here = (rows["kind"] == KINDS[name]) & (rows["replicate"] == replicate) & (rows["rewind_step"] == k)
    (found,) = rows[here]["value"]
    return found


def test_all_methods_leave_equally_many_weights(measured):
    _, _, frame, _ = measured
    rows = COMPUTE.of(frame)
    assert set(rows["kind"]) == set(KINDS.values())
    assert len(rows) == 2 * 2 * len(METHODS)
    assert rows["density"].nunique() == 1
    assert set(rows["level"]) == {2}


def test_rows_of_rewound_methods_are_trainings_by_hand(measured):
    _, options, frame, store = measured
    recipe = options.recipe
    given = {"levels": 2, "rewind_to": "5it", "replicates": 2, "controls": (), "jobs": 1, "store": store}
    for name, more in {
        "imp": {}, "lr-rewinding": {"after": "lr"}, "fine-tuning": {"after": "finetune"}, "swamp": {"particles": 2}
    }.items():  # fmt: skip
        levels = lotto.imp(recipe, **{**given, **more}).replicates[1]
        assert value(frame, name, ERROR) == levels[2].run.test_error
        densities = [level.mask.density for level in levels]
        each = sum(densities[1:]) * 35 / 40
        assert value(frame, name, COMPUTE) == pytest.approx(1 + (2 * each + 35 / 40 if name == "swamp" else each))


def test_methods_before_and_along_training_take_one_sparse_training(measured):
    _, options, frame, store = measured
    recipe, left = options.recipe, frame["density"].min()
    for name in ("random", "magnitude", "snip", "grasp", "synflow", "set"):
        assert value(frame, name, COMPUTE) == pytest.approx(left)
        assert value(frame, name, ERROR, k=0) == value(frame, name, ERROR, k=5)
    given = {"densities": [left], "replicates": 2, "controls": (), "jobs": 1, "store": store, "prune_at": "init"}
    random = lotto.imp(recipe, **given, score="random", allocation="erk").replicates[1][1]
    assert value(frame, "random", ERROR) == random.run.test_error
    sparsity = lotto.DynamicSparsity("rigl", every=5, stop=20, fraction=0.1)
    run = lotto.train(recipe, 1, 1, mask=random.mask, sparsity=sparsity, store=store)
    assert value(frame, "rigl", ERROR) == run.test_error
    assert value(frame, "rigl", COMPUTE) == pytest.approx(left + 3 * (2 * left + 1) / 3 / 40)
    assert left < value(frame, "gradual", COMPUTE) < 1


def test_early_bird_trains_on_from_where_the_mask_has_settled(measured):
    _, options, frame, store = measured
    recipe = options.recipe
    steps = range(5, 40, 5)
    dense = lotto.train(recipe, 1, 1, keep=steps, store=store)
    ones = masks.ones(recipe)
    total = round(frame["density"].min() * masks.size(ones))
    kept = []
    for step in steps:  # slow and obvious
        every = torch.cat([dense.at(step)[name].abs().double().flatten() for name in ones])
        cut = every.sort(descending=True).values[total - 1]
        kept.append(torch.cat([(dense.at(step)[name].abs().double() >= cut).flatten() for name in ones]))
    found = [
        number for number in range(4, len(kept))
        if all(int((kept[number] ^ kept[number - i]).sum()) < 0.1 * 2 * total for i in range(1, 5))
    ]  # fmt: skip
    number = found[0] if found else len(kept) - 1
    assert value(frame, "early-bird", STOPPED) == (steps[number] / 40 if found else 1.0)
    parts = kept[number].split([ones[name].numel() for name in ones])
    mask = {name: part.reshape(ones[name].shape) for name, part in zip(ones, parts, strict=True)}
    job = lotto.Job(recipe, order_seed=1, start=dense.state(steps[number]), mask=mask, from_step=steps[number])
    (run,) = lotto.engine.make(jobs=1, store=store).run([job])
    assert value(frame, "early-bird", ERROR) == run.test_error
    done = steps[number] / 40
    assert value(frame, "early-bird", COMPUTE) == pytest.approx(done + (1 - done) * total / masks.size(ones))


def test_the_figure_has_a_point_with_its_interval_for_each_method(measured):
    experiment, _, frame, _ = measured
    (axis,) = experiment.plot(summary(frame), 0.2).axes
    labels = {text.get_text() for text in axis.texts}
    assert {"SNIP", "IMP, k = 0", "IMP, k = 5", "Early-Bird"} <= labels
    assert len(axis.containers) == 9 + 2 * 5


def test_an_unknown_method_is_refused_with_the_choices():
    experiment = papers.get("methods.compute")
    options = experiment.options(small_recipe(), {"replicates": 1, "levels": 1, "methods": ("snipp",)})
    with pytest.raises(UsageError, match="early-bird"):
        experiment.run(options, lotto.engine.make(jobs=1))


COLUMNS = ["replicate", "seed", "rewind_step", "level", "density", "kind", "measure", "unit", "sample", "value"]
ERRORS = {"imp": 1.0, "swamp": 0.8, "gradual": 2.0, "early-bird": 2.0, "one-shot": 2.0}
ERRORS |= dict.fromkeys(("random", "magnitude", "snip", "grasp", "synflow", "set", "rigl"), 4.0)


def group(errors):
    lines = []
    for seed, noise in enumerate((0.0, 0.02, -0.02, 0.01, -0.01)):
        for measure in (ERROR, COMPUTE):
            lines += [
                (seed, seed, 100, 8, 0.05, KINDS[name], *measure[:2], 0, number + i * noise)
                for i, (name, number) in enumerate(errors.items())
            ]
        lines.append((seed, seed, 100, 0, 1.0, "dense", *LAST_QUARTER[:2], 0, 0.01 + noise))
    recipe = {"name": "small", "model": "resnet-20", "tolerance": 0.2, "optimizer": "SGD(lr=0.1)", "data": "rings"}
    return ResultGroup(recipe, {"iterations": 1000}, pd.DataFrame(lines, columns=COLUMNS).assign(copy=0))


def test_claims_are_decided_by_differences_of_a_replicate():
    S, C, U = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED
    assert [d.verdict for d in check_claims(CLAIMS, [group(ERRORS)])] == [S] * 4
    other = {**{name: 6.0 - error for name, error in ERRORS.items()}, "early-bird": 5.0}
    assert [d.verdict for d in check_claims(CLAIMS, [group(other)])] == [C] * 4
    assert [d.verdict for d in check_claims(CLAIMS, [group({"one-shot": 1.0})])] == [U] * 4
    some = {name: error for name, error in ERRORS.items() if name != "snip"}
    assert [d.verdict for d in check_claims(CLAIMS, [group(some)])] == [U, S, U, S]
