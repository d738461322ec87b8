from __future__ import annotations

import math
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import lotto
from conftest import small_recipe
from lotto import Mask
from lotto.core.errors import UsageError
from lotto.pruning import masks


def test_ones_covers_weights_of_linear_and_convolution_only():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))
    mask = masks.ones(model)
    assert list(mask) == ["0.weight", "3.weight"]
    assert mask.density == 1.0
    assert masks.size(mask) == 4 * 27 + 8


def test_excluded_layers_do_not_count():
    recipe = small_recipe(pruning__exclude=("fc3",))
    assert list(masks.ones(recipe)) == ["fc1.weight", "fc2.weight"]
    with pytest.raises(UsageError, match=r"no such prunable layer.*Did you mean 'fc3'"):
        masks.ones(small_recipe(pruning__exclude=("fc33",)))


def test_tied_weights_are_listed_once():
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    assert list(masks.ones(model)) == ["0.weight"]


def test_a_model_without_prunable_weights_is_refused():
    with pytest.raises(UsageError, match="no prunable weights"):
        masks.ones(nn.Sequential(nn.BatchNorm1d(3)))


def test_apply_gives_exact_positive_zero_even_over_nan():
    weights = {"w": torch.tensor([-1.0, math.nan, 2.0]), "b": torch.tensor([1.0])}
    result = masks.apply(weights, Mask({"w": torch.tensor([False, False, True])}))
    assert result["w"].tolist() == [0.0, 0.0, 2.0]
    assert not torch.signbit(result["w"]).any()
    assert result["b"] is weights["b"]


def test_random_like_keeps_the_number_in_every_layer_and_differs_between_seeds():
    generator = np.random.default_rng(0)
    mask = Mask({n: torch.from_numpy(generator.random((20, 30)) < p) for n, p in (("a", 0.1), ("b", 0.7))})
    one, again, other = (masks.random_like(mask, s) for s in (1, 1, 2))
    for name in mask:
        assert one[name].sum() == mask[name].sum() == other[name].sum()
    assert all(torch.equal(one[n], again[n]) for n in mask)
    assert not torch.equal(one["b"], other["b"])
    assert not torch.equal(one["b"], mask["b"])


def test_random_masks_within_another_are_nested_and_as_large_as_asked():
    generator = np.random.default_rng(0)
    outer, mask = (Mask({"w": torch.from_numpy(generator.random((20, 30)) < p)}) for p in (0.5, 0.2))
    found = masks.random_like(mask, 3, within=outer)
    assert found["w"].sum() == mask["w"].sum()
    assert not (found["w"] & ~outer["w"]).any()
    assert not torch.equal(found["w"], masks.random_like(mask, 4, within=outer)["w"])
    every = masks.random_like(mask, 3, within=Mask({"w": torch.ones(20, 30, dtype=torch.bool)}))
    assert torch.equal(every["w"], masks.random_like(mask, 3)["w"]), "within everything there is no difference"
    with pytest.raises(UsageError, match=r"keeps \d+ weights of w, but only \d+ are left in it"):
        masks.random_like(outer, 3, within=mask)


def test_save_and_load(tmp_path):
    mask = Mask({"w": torch.tensor([True, False])})
    mask.save(tmp_path / "m.safetensors")
    loaded = Mask.load(tmp_path / "m.safetensors")
    assert isinstance(loaded, dict)
    assert torch.equal(loaded["w"], mask["w"])


def test_files_that_are_not_masks(tmp_path):
    with pytest.raises(UsageError, match="There is no file"):
        Mask.load(tmp_path / "none")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(UsageError, match=r"text is not a lotto\.mask file"):
        Mask.load(tmp_path / "text")
    ticket = lotto.Ticket({"w": torch.ones(2)}, Mask({"w": torch.ones(2)}))
    with pytest.raises(UsageError, match=r"its format is 'lotto\.ticket'"):
        Mask.load(ticket.save(tmp_path / "t.safetensors"))


def test_a_mask_that_does_not_fit_is_refused_before_training(recipe):
    good = masks.ones(recipe)
    with pytest.raises(UsageError, match=r"has 'fc9\.weight', which the model has not"):
        lotto.train(recipe, mask={**good, "fc9.weight": good["fc1.weight"]})
    with pytest.raises(UsageError, match=r"mask of 'fc1\.weight' has shape \(2, 2\)"):
        lotto.train(recipe, mask={**good, "fc1.weight": torch.ones(2, 2)})


def test_layer_densities_and_empty_layers():
    mask = Mask({"a.weight": torch.tensor([True, False]), "b.weight": torch.zeros(3)})
    assert masks.layer_densities(mask) == {"a": 0.5, "b": 0.0}
    assert masks.empty_layers(mask) == ["b"]


THREE = """
import sys
sys.modules["lotto"] = None  # cannot be imported
import torch
{lines}
assert {{*mask}} == {{"fc1.weight", "fc2.weight", "fc3.weight"}}
assert all(keep.dtype == torch.bool and not weights[name][~keep].any() for name, keep in mask.items())
print(sum(int(keep.sum()) for keep in mask.values()), float(weights["fc1.weight"].double().sum()), *sorted(weights))
"""


def test_three_lines_of_the_docs_read_a_ticket_where_there_is_no_lotto(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "inference.md").read_text()
    (block,) = [b for b in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "load_file" in b]
    assert len(re.findall(r"^\w+ = ", block, re.MULTILINE)) == 3
    recipe = small_recipe()
    start = recipe.initial(3)
    mask = lotto.pruning.prune(start, masks.ones(recipe), 0.75)
    lotto.Ticket(start, mask).save(tmp_path / "ticket.safetensors")  # the file is masked, whatever the ticket is
    done = subprocess.run(
        [sys.executable, "-c", THREE.format(lines=block)], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    count, total, *names = done.stdout.split()
    assert int(count) == masks.count(mask), done.stderr
    assert float(total) == pytest.approx(float(start["fc1.weight"].double()[mask["fc1.weight"]].sum()))
    assert names == sorted(start)


def test_a_ticket_whose_mask_does_not_fit_is_not_saved(tmp_path):
    with pytest.raises(UsageError, match="which the model has not"):
        lotto.Ticket({"w": torch.ones(2)}, Mask({"v": torch.ones(2)})).save(tmp_path / "t.safetensors")
