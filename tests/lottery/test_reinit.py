"""The control on new initialisations, where a model has no others."""

from __future__ import annotations

import logging

import pytest
import torch
from torch import nn

import lotto
from conftest import small_recipe
from lotto.core.errors import UsageError
from lotto.lottery.plan import make_plan
from lotto.report.save import save_result

torch.manual_seed(0)
LOADED = {n: t.tolist() for n, t in nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 6)).state_dict().items()}


def pretrained():
    module = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 6))
    module.load_state_dict({n: torch.tensor(t) for n, t in LOADED.items()})
    return module


def seeding_itself():
    torch.manual_seed(3)
    return nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 6))


def new_head():
    module = pretrained()
    module[2] = nn.Linear(24, 6)
    return module


def zero_head():
    module = nn.Sequential(nn.Linear(12, 24), nn.ReLU(), nn.Linear(24, 6))
    nn.init.zeros_(module[2].weight)
    return module


@pytest.mark.parametrize("model", [pretrained, seeding_itself])
def test_a_control_that_would_be_imp_itself_is_left_out_and_said(model, store, caplog, tmp_path):
    recipe = small_recipe(model=model, init="module", steps="6it")
    with caplog.at_level(logging.WARNING):
        result = lotto.imp(recipe, levels=2, rate=0.5, replicates=2, jobs=1, store=store)
    assert caplog.text.count("would be no control and is left out") == 1
    table = result.table()
    assert table["reinit"].isna().all()
    assert table["random"][1:].notna().all()
    assert set(result.runs_table()["kind"]) == {"imp", "random"}
    assert save_result(result, tmp_path / "out", "lotto imp", 1.0)["report"].exists()
    with pytest.raises(UsageError, match="after='reinit' needs new initial weights"):
        make_plan(recipe, levels=1, after="reinit")


def test_layers_that_every_seed_starts_alike_are_named(caplog):
    make_plan(small_recipe(model=new_head, init="module"), levels=1)
    assert "in 1 of 2 layers (0): there the control 'reinit' is none" in caplog.text


@pytest.mark.parametrize(
    ("model", "init"), [(zero_head, "module"), (pretrained, "kaiming-normal"), ("mlp-24", "module")]
)
def test_others_are_said_nothing_of(model, init, caplog):
    plan = make_plan(small_recipe(model=model, init=init), levels=1)
    assert plan.trained_controls == plan.controls == ("reinit", "random")
    assert plan.jobs == 3 * (2 + 2)
    assert not caplog.text
