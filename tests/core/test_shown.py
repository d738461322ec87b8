"""Whatever a user gets prints as one or two lines, and reads no file for it."""

from __future__ import annotations

import html.parser

import numpy as np
import pytest
import torch

import lotto
from conftest import small_arrays, small_recipe
from lotto.core import shown
from lotto.execution.serial import Serial
from lotto.execution.store import StoredStates
from lotto.landscape.curvature.eigenvalues import SpectrumTask, TopTask
from lotto.landscape.path import PathTask
from lotto.landscape.plane import PlaneTask
from lotto.lottery.plan import make_plan
from lotto.lottery.replicate import Replicate
from lotto.pruning import masks
from lotto.training.checkpoint import Checkpoint
from lotto.training.job import Job, State


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """One of everything, by name; and the events of it."""
    recipe = small_recipe(augment=None, name="rings")
    engine, events = Serial(lotto.Store(tmp_path_factory.mktemp("store"))), []
    result = lotto.imp(recipe, levels=2, rewind_to="5it", replicates=2, engine=engine, progress=events.append)
    level = result.replicates[0][1]
    a, b, c = (recipe.initial(seed) for seed in range(3))
    land, rule = lotto.landscape, {"engine": engine}
    instability = land.instability(recipe, points=30, order_seeds=range(4), **rule)
    values = [
        result, result.ticket(1), result.compare(0, 1), level, level.mask, level.run, level.run.state(40), recipe, recipe.arrays, result.plan,
        Replicate(result.plan, 0, level, State(a, {"x/moment": a["fc1.weight"]})), make_plan(recipe, 3),
        Job(recipe, start=State(a), mask=level.mask, keep=(10,), label="a label"), Checkpoint(3, State(a)),
        PathTask(recipe, a, b), PlaneTask(recipe, a, b, c), TopTask(recipe, a, level.mask),
        SpectrumTask(recipe, a, level.mask), land.evaluate_path(recipe, a, b, 100, **rule),
        land.evaluate_plane(recipe, a, b, c, 30, **rule), land.curvature.top(recipe, a, level.mask, **rule),
        land.curvature.spectrum(recipe, a, level.mask, **rule), instability, instability.barrier(),
        land.stability_to_data_order(recipe, level.mask, **rule), *events,
        small_recipe(data=small_arrays(), model=torch.nn.Flatten), lotto.Recipe("lenet-300-100", "mnist"),
    ]  # fmt: skip
    return values


def test_everything_prints_in_at_most_two_lines(found):
    for value in found:
        for text in (repr(value), str(value), f"{value}"):
            assert len(text) <= 400, (type(value), len(text), text)
            assert text.count("\n") <= 1
            assert text.startswith(type(value).__name__), text
            assert "tensor(" not in text


def test_what_is_printed_says_what_matters(found):
    texts = {type(value).__name__: repr(value) for value in reversed(found)}
    assert "'rings': 3 levels, 2 replicates, dense error " in texts["ImpResult"]
    assert "sparsest matching: level " in texts["ImpResult"]
    assert texts["Mask"] == "Mask(79.9 % of 768 weights in 3 layers)"
    assert texts["Ticket"].startswith("Ticket(79.9 % of 768 weights, rewind_step=5, level=1, replicate=0, order_seed=0")
    assert texts["Level"].startswith("Level(1, 79.9 % left, error=")
    assert "reinit=" in texts["Level"]
    assert texts["Run"].startswith("Run(steps 5 to 40, test_error=")
    assert texts["Arrays"] == "Arrays('rings': 240 train, 80 test, inputs 12)"
    assert texts["State"] == "State(weights={6 tensors, 814 values})"
    assert "label='a label'" in texts["Job"]
    assert "mask=Mask(79.9 % of 768" in texts["Job"]
    assert texts["Recipe"].startswith("Recipe(model='mlp-24-16', data=Arrays('rings'")
    assert texts["LevelFinished"].startswith("LevelFinished(replicate=0, level=0, density=1, error=")
    assert "100 in all" in texts["Path"]
    assert "error=<30×30 float64>" in texts["Plane"]


def test_notebooks_get_small_tables(found):
    for value in found:
        if hasattr(value, "_repr_html_"):
            text = value._repr_html_()
            assert len(text) < 4000
            tags = []
            reader = html.parser.HTMLParser()
            reader.handle_starttag = lambda tag, _, tags=tags: tags.append(tag)
            reader.feed(text)
            assert tags[:2] == ["table", "caption"]
    assert [type(v).__name__ for v in found if hasattr(v, "_repr_html_")] == [
        "ImpResult", "Ticket", "Comparison", "Run", "Path",
    ]  # fmt: skip
    assert "level" in found[0]._repr_html_()


def test_of_a_long_history_a_few_records_are_shown_the_last_among_them():
    run = lotto.Run((0, 1000), [{"step": i, "test_error": float(i)} for i in range(1, 1001)], {})
    text = run._repr_html_()
    assert text.count("<tr>") == 13
    assert "<td>1</td>" in text
    assert "<td>1000</td>" in text


def test_texts_of_users_are_escaped_and_cut():
    assert "<b>" not in shown.table(["<b>"], [["<b>"]], "<b>")
    assert shown.brief("x" * 10_000) == repr("x" * 199 + "…")
    assert len(shown.brief(list(range(10_000)))) < 60
    assert shown.brief({"a": 1}) == "{'a': 1}"
    assert shown.brief({i: i for i in range(100)}) == "{0, 1, 2, 3, … 100 in all}"
    assert shown.brief((np.zeros((2, 3)),)) == "(<2×3 float64>)"
    assert shown.number(float("nan")) == "–"


def test_states_on_disk_are_not_read_to_print_a_run(found, monkeypatch):
    monkeypatch.setattr(StoredStates, "__getitem__", lambda *_: pytest.fail("a file is read"))
    for value in found[:6]:
        repr(value)


def test_a_mask_is_a_dict_still():
    mask = masks.ones(small_recipe())
    assert dict(mask) == {**mask}
    assert repr(masks.Mask({})) == "Mask(0 % of 0 weights in 0 layers)"
