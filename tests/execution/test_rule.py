"""One rule for engine, device and store: what any public function computes is remembered, and by whom is the user's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import interpreter
import lotto
from conftest import small_recipe
from lotto.core.errors import UsageError
from lotto.execution.engine import JobFinished
from lotto.execution.serial import Serial
from lotto.execution.store import Store
from lotto.landscape.path import PathTask
from lotto.lottery.power import gap_spread
from lotto.pruning import masks


def calls(recipe):
    """Every long call of the library: name -> function of the keywords of the rule, with the result in plain values."""
    a, b, c = (recipe.initial(seed) for seed in range(3))
    mask = masks.random_like(masks.ones(recipe), 0)
    half = lotto.pruning.prune(a, mask, rate=0.5)
    land, curvature = lotto.landscape, lotto.landscape.curvature

    def plain(value):
        return json.loads(json.dumps(value, default=lambda v: v.tolist() if hasattr(v, "tolist") else vars(v)))

    def found(function, *arguments, **given):
        return lambda **rule: plain(function(recipe, *arguments, **given, **rule))

    return {
        "barrier": found(land.barrier, a, b, 3),
        "path": found(land.evaluate_path, a, b, 3, ("test", "train")),
        "plane": found(land.evaluate_plane, a, b, c, 2),
        "top": found(curvature.top, a, half, 2, tolerance=1e-3),
        "top, dense": found(curvature.top, a, k=1, tolerance=1e-2),
        "spectrum": found(curvature.spectrum, a, half, steps=3, probes=2),
        "block": found(curvature.pruned_block, a, masks.ones(recipe), half, probes=2),
        "limits": lambda **rule: str(vars(curvature.limits(recipe, a, half, steps=8, probes=2, **rule))),
        "scores": found(lotto.lottery.score_weights, a, half, magnitude_of_gradient),
        "spread": found(gap_spread, "5it", 2, jobs=1),
        "pruning": found(land.stability_to_pruning, half, "5it", (0,), jobs=1),
        "data order": found(land.stability_to_data_order, half, "5it", (0, 1), jobs=1),
        "instability": found(land.instability, "5it", half, (1, 2), points=3, jobs=1),
        "train": lambda **rule: plain(list(lotto.train(recipe, mask=half, **rule).history)),
        "imp": lambda **rule: lotto.imp(recipe, levels=2, replicates=1, jobs=1, **rule).runs_table().to_csv(),
    }


def magnitude_of_gradient(context):
    return {name: gradient.abs() for name, gradient in context.gradients().items()}


def computed(call, **rule):
    """The result of a call and how many jobs and tasks were computed for it."""
    events = []
    found = call(progress=events.append, **rule)
    return found, sum(e.trained for e in events if isinstance(e, JobFinished))


AGAIN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from conftest import small_recipe
from test_rule import calls, computed
print(json.dumps({name: computed(call) for name, call in calls(small_recipe()).items()}))
"""


def test_every_call_is_remembered_in_a_fresh_process_to_the_bit(monkeypatch, tmp_path):
    monkeypatch.setenv("LOTTO_STORE", str(tmp_path))
    first = {name: computed(call) for name, call in calls(small_recipe()).items()}
    assert all(count for name, (_, count) in first.items() if name not in ("barrier", "path")), first
    tests = Path(__file__).parent
    done = interpreter.run(f"import sys; sys.path.insert(0, {str(tests)!r})\n{AGAIN}", str(tests.parent))
    assert done.returncode == 0, done.stderr
    again = json.loads(done.stdout.splitlines()[-1])
    assert {name: count for name, (_, count) in again.items()} == dict.fromkeys(first, 0)
    for name, (found, _) in first.items():
        assert again[name][0] == found, name


def test_whatever_is_changed_is_computed(store):
    recipe = small_recipe()
    a, b, c = (recipe.initial(seed) for seed in range(3))
    other = {**a, "fc1.weight": a["fc1.weight"].clone()}
    other["fc1.weight"][0, 0] += 1e-6
    mask = lotto.pruning.prune(a, masks.ones(recipe), rate=0.5)
    path, plane = lotto.landscape.evaluate_path, lotto.landscape.evaluate_plane
    top, spectrum = lotto.landscape.curvature.top, lotto.landscape.curvature.spectrum
    for function, base, changes in (
        (path, (a, b, 2), [(other, b, 2), (b, a, 2), (a, b, 3)]),
        (plane, (a, b, c, 2), [(other, b, c, 2), (a, c, b, 2), (a, b, c, 3), (a, b, c, 2, 0.5)]),
        (top, (a, mask, 1), [(other, mask, 1), (a, None, 1), (a, mask, 2)]),
        (spectrum, (a, mask), [(other, mask), (a, None)]),
    ):
        for arguments, count in ((base, 1), *((change, 1) for change in changes), (base, 0)):
            _, found = computed(lambda f=function, x=arguments, **rule: f(recipe, *x, **rule), store=store)
            assert found == count, (function, arguments)
    for given in ({"seed": 1}, {"tolerance": 1e-4}, {"examples": 50}, {"iterations": 500}):
        assert computed(lambda g=given, **rule: top(recipe, a, mask, 1, **g, **rule), store=store)[1] == 1
    for given in ({"splits": ("train",)}, {"examples": 50}):
        assert computed(lambda g=given, **rule: path(recipe, a, b, 2, **g, **rule), store=store)[1] == 1


@pytest.mark.parametrize("name", list(calls(small_recipe())))
def test_engine_store_and_device_are_those_that_are_given(name, tmp_path):
    call = calls(small_recipe())[name]
    mine, other = Store(tmp_path / "mine"), Store(tmp_path / "other")
    found, count = computed(call, engine=Serial(mine))
    assert count
    assert mine.root.is_dir()
    assert computed(call, store=mine) == (found, 0)
    assert computed(call, store=str(mine.root), device="cpu") == (found, 0)
    assert computed(call, engine=Serial(mine), store=mine) == (found, 0)
    with pytest.raises(UsageError, match="An engine has a store of its own"):
        call(engine=Serial(mine), store=other)
    with pytest.raises(UsageError, match="The device 'nowhere' cannot be used"):
        call(store=other, device="nowhere")


def test_what_has_no_key_is_computed_each_time(store, monkeypatch):
    monkeypatch.setattr(PathTask, "key", None)
    recipe = small_recipe()
    a, b = recipe.initial(0), recipe.initial(1)
    found = [computed(lambda **rule: lotto.landscape.barrier(recipe, a, b, 3, **rule), store=store) for _ in range(2)]
    assert found[0] == found[1]
    assert found[0][1] == 1
    assert not store.root.exists()


def test_steps_are_reported_by_position_as_before(store):
    recipe, steps = small_recipe(), []
    a, b = recipe.initial(0), recipe.initial(1)
    lotto.landscape.evaluate_path(
        recipe, a, b, 3, ("test",), "interpolate", None, lambda step, loss: steps.append(step), store=store
    )
    assert steps[-1] == 3
