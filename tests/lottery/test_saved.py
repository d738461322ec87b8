"""A result that is written and read again says the same, and what is damaged or foreign is refused."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import lotto
from conftest import same_tensors, small_arrays, small_recipe
from lotto.core import files
from lotto.core.errors import UsageError
from lotto.execution.serial import Serial
from lotto.lottery.record import RecordedPlan
from lotto.lottery.saved import RESULT_FILE
from lotto.report.save import save_result


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    store = lotto.Store(tmp_path_factory.mktemp("store"))
    recipe = small_recipe(data=small_arrays(test=300), steps="30it")
    return lotto.imp(recipe, levels=2, rate=0.5, rewind_to="5it", replicates=3, jobs=1, store=store, progress=False)


@pytest.fixture(scope="module")
def folder(result, tmp_path_factory):
    return result.save(tmp_path_factory.mktemp("saved") / "here")


def same(a, b):
    """Whether two results say the same, trained weights left out."""
    for name in ("table", "runs_table", "trials_table", "overlap_table"):
        pd.testing.assert_frame_equal(getattr(a, name)(), getattr(b, name)(), check_exact=True)
    for name in ("matching_level", "likely_level", "chosen_level", "open_level", "diverged", "left_out", "trainings"):
        assert getattr(a, name) == getattr(b, name), name
    assert repr(a) == repr(b)
    assert a._repr_html_() == b._repr_html_()
    assert a.plan.describe() == b.plan.describe()
    assert a.plan.recipe.describe() == b.plan.recipe.describe()


def test_all_that_a_result_says_is_said_again(result, folder):
    again = lotto.load(folder)
    same(result, again)
    for replicate in range(3):
        for level in range(3):
            one, two = (at.ticket(level, replicate) for at in (result, again))
            assert same_tensors(one.start, two.start)
            assert same_tensors(one.mask, two.mask)
            assert (one.info, one.rewind_step) == (two.info, two.rewind_step)
    assert again.compare(0, 2) == result.compare(0, 2)
    assert again.compare(2, (2, "random")) == result.compare(2, (2, "random"))
    for form in ("markdown", "latex", "csv"):
        assert again.table_as(form) == result.table_as(form)


def test_runs_come_back_with_histories_mistakes_and_weights(result, folder):
    again = lotto.load(str(folder))
    assert list(again.runs) == list(result.runs)
    assert (0, 1, "random") in again.runs
    for key, run in result.runs.items():
        found = again.runs[key]
        assert [dict(record) for record in found.history] == [dict(record) for record in run.history]
        assert (found.steps, found.key, found.seconds, found.crossovers) == (
            run.steps, run.key, run.seconds, run.crossovers,
        )  # fmt: skip
        assert np.array_equal(found.mistakes.wrong, run.mistakes.wrong)
        assert same_tensors(found.weights, run.weights)
    pd.testing.assert_frame_equal(again.sign_table(), result.sign_table())


def test_a_loaded_ticket_trains_to_the_same_bits(result, folder):
    ticket = lotto.load(folder).ticket(2)
    run = lotto.train(result.plan.recipe, start=ticket, order_seed=ticket.info["order_seed"], progress=False)
    assert same_tensors(run.weights, result.replicates[0][2].run.weights)


def test_without_trained_weights_it_is_small_and_says_so(result, tmp_path):
    small = result.save(tmp_path / "small", weights=False)
    again = lotto.load(small)
    same(result, again)
    assert (small / RESULT_FILE).stat().st_size < 0.5 * (result.save(tmp_path / "large") / RESULT_FILE).stat().st_size
    with pytest.raises(UsageError, match=r"this result was not saved: lotto.imp\(...\).save\(folder\) keeps them"):
        again.sign_table()


def test_the_same_result_goes_to_the_same_folder_and_another_beside_it(result, folder, store):
    assert result.save(folder) == folder
    other = lotto.imp(small_recipe(), levels=1, replicates=1, controls=(), engine=Serial(store))
    assert other.save(folder) == folder.with_name("here-2")
    same(other, lotto.load(folder.with_name("here-2")))


def test_what_the_command_writes_is_loaded_as_well(result, tmp_path):
    save_result(result, tmp_path, "lotto imp small", 1.0)
    same(result, lotto.load(tmp_path))


def test_particles_come_back(store, tmp_path):
    options = {"replicates": 2, "controls": (), "engine": Serial(store)}
    particles = lotto.imp(small_recipe(steps="20it"), levels=1, particles=2, **options)
    again = lotto.load(particles.save(tmp_path / "particles"))
    same(particles, again)
    assert [kind for _, level, kind in again.runs if level == 1][:3] == ["imp", "particle 1", "particle 2"]
    assert again.replicates[0][1].average is again.replicates[0][1].run
    dense = particles.replicates[0][0]
    assert same_tensors(again.replicates[0][0].average.weights, dense.average.weights)
    assert math.isnan(again.compare(0, 1).test_variance)  # nothing can be evaluated
    assert again.compare(0, 1).gaps == particles.compare(0, 1).gaps


def test_adaptive_cuts_and_what_diverged_come_back(store, tmp_path):
    recipe = small_recipe(tolerance=50.0, steps="20it")
    adaptive = lotto.imp(recipe, levels=1, adaptive=True, replicates=2, controls=(), engine=Serial(store))
    whole = adaptive.replicates
    broken = replace(whole[1][1].run, diverged="The loss became nan.", states={}, mistakes=None)
    lost = replace(adaptive, replicates=[whole[0], [whole[1][0], replace(whole[1][1], run=broken)]])
    again = lotto.load(lost.save(tmp_path / "lost"))
    same(lost, again)
    assert again.trials == adaptive.trials
    assert again.diverged == ["Replicate 2, level 1: The loss became nan."]


def test_tied_weights_are_masked_under_all_their_names(store, tmp_path):
    class Tied(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = torch.nn.Linear(12, 12, bias=False), torch.nn.Linear(12, 12, bias=False)
            self.second.weight = self.first.weight
            self.last = torch.nn.Linear(12, 6)

        def forward(self, x):
            return self.last(torch.relu(self.second(torch.relu(self.first(x)))))

    result = lotto.imp(
        small_recipe(model=Tied, init="module"), levels=1, rate=0.5, replicates=1, controls=(), engine=Serial(store)
    )
    ticket = lotto.load(result.save(tmp_path / "tied")).ticket(1)
    assert ticket.mask.shared == result.ticket(1).mask.shared != {}
    assert same_tensors(ticket.start, result.ticket(1).start)
    assert torch.equal(ticket.start["first.weight"], ticket.start["second.weight"])


def test_folders_without_a_result_get_one_sentence(result, tmp_path):
    def said(folder):
        with pytest.raises(UsageError) as error:
            lotto.load(folder)
        assert len(str(error.value).splitlines()) == 1
        return str(error.value)

    assert "There is no folder" in said(tmp_path / "nowhere")
    assert "holds no result of imp" in said(tmp_path)
    (tmp_path / "result.json").write_text(json.dumps({"format": "lotto.result"}))
    assert "is of a former version, which kept no masks" in said(tmp_path)
    result.ticket(1).save(tmp_path / RESULT_FILE)
    assert "is not a lotto.imp-result file (its format is 'lotto.ticket')" in said(tmp_path)
    files.save_tensors(tmp_path / RESULT_FILE, {}, {"format": "lotto.imp-result", "version": "2", "result": "{}"})
    assert "written by a newer lotto" in said(tmp_path)
    files.save_tensors(tmp_path / RESULT_FILE, {}, {"format": "lotto.imp-result", "version": "1", "result": "{}"})
    assert "cannot be read: it is damaged or of another kind" in said(tmp_path)


def test_no_damage_goes_unnoticed(folder, tmp_path):
    whole = (folder / RESULT_FILE).read_bytes()
    generator = np.random.default_rng(0)
    shutil.copytree(folder, tmp_path / "damaged")
    path: Path = tmp_path / "damaged" / RESULT_FILE
    for at in [8, 400, *generator.integers(0, len(whole), 40).tolist()]:
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises(UsageError) as error:
            lotto.load(path.parent)
        assert len(str(error.value).splitlines()) == 1
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UsageError, match=r"is not a lotto\.imp-result file"):
        lotto.load(path.parent)


def test_what_was_not_saved_is_said(result, folder):
    again = lotto.load(folder)
    assert isinstance(again.plan, RecordedPlan)
    with pytest.raises(AttributeError, match="A loaded result has no 'model'"):
        _ = again.plan.recipe.model
    with pytest.raises(AttributeError, match="A loaded result has no 'pruning'"):
        _ = again.plan.pruning
    with pytest.raises(UsageError, match="copy that one"):
        again.save("elsewhere")
