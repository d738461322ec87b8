"""Compiled training steps against others."""

from __future__ import annotations

import shutil

import pytest
import torch
from torch import nn

import lotto
from conftest import small_recipe
from lotto import Job, Mask
from lotto.pruning import masks
from lotto.training.loop import train

pytestmark = [
    pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU"),
    pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning"),  # of its own
]


def own() -> nn.Module:
    return nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 10))


@pytest.mark.extras
def test_compiled_steps_give_the_outcome_of_others():
    recipe = small_recipe(model=own, steps="6it", precision="float64")
    mask = Mask({n: m.clone() for n, m in masks.ones(recipe).items()})
    mask["0.weight"][:, ::2] = False
    expected = train(Job(recipe, mask=mask))
    run = train(Job(recipe.replace(compile=True), mask=mask))
    assert (expected.arithmetic, run.arithmetic) == ("autograd", "autograd, compiled")
    for name, tensor in expected.weights.items():
        torch.testing.assert_close(run.weights[name], tensor, rtol=1e-9, atol=1e-11)
    assert not run.weights["0.weight"][~mask["0.weight"]].any()
    assert run.test_error == expected.test_error


def test_compiled_runs_are_remembered_as_such():
    recipe = small_recipe(model=own)
    assert recipe.fingerprint() != recipe.replace(compile=True).fingerprint()
    assert recipe.fingerprint() == recipe.replace(compile=False).fingerprint()
    with pytest.raises(lotto.core.errors.UsageError, match="compile is True or False; got 'no'"):
        recipe.replace(compile="no")


def test_a_compiler_that_fails_is_told_in_a_sentence(monkeypatch):
    def broken(*_):
        raise RuntimeError("no compiler here")

    compiled = torch.compile
    monkeypatch.setattr(torch, "compile", lambda module: compiled(module, backend=broken))
    with pytest.raises(lotto.core.errors.UsageError, match=r"small cannot be compiled: .*no compiler here"):
        train(Job(small_recipe(model=own, compile=True)))
