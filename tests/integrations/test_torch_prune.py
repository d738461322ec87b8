"""Masks of torch.nn.utils.prune and back."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

import lotto
from conftest import same_tensors
from lotto.core.errors import UsageError
from lotto.integrations.torch_prune import mask_from_torch, mask_to_torch, weights_from_torch
from lotto.pruning import masks


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 5))


def test_masks_and_weights_are_those_that_torch_computes_with():
    model, x = network(), torch.randn(3, 1, 4, 4)
    prune.global_unstructured([(model[0], "weight"), (model[3], "weight")], prune.L1Unstructured, amount=0.4)
    prune.random_unstructured(model[3], "bias", amount=2)
    expected = model(x)
    mask, weights = mask_from_torch(model), weights_from_torch(model)
    assert set(mask) == {"0.weight", "3.weight", "3.bias"}
    assert masks.count({n: mask[n] for n in ("0.weight", "3.weight")}) == 116 - round(0.4 * 116)
    plain = network()
    plain.load_state_dict(weights)
    torch.testing.assert_close(plain(x), expected)
    assert same_tensors(masks.apply(weights, mask), weights)


def test_what_lotto_prunes_is_pruned_in_torch_and_reads_back_the_same():
    model = network()
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    mask = lotto.pruning.prune(plain, masks.ones(model), 0.5)
    assert mask_to_torch(model, mask) is model
    assert same_tensors(mask_from_torch(model), mask)
    assert same_tensors(weights_from_torch(model), masks.apply(plain, mask))
    whole = masks.ones(network())
    denser = lotto.pruning.prune(plain, whole, 0.1)
    mask_to_torch(model, denser)
    assert same_tensors(weights_from_torch(model), masks.apply(plain, denser)), "on the unpruned values"
    mask_to_torch(model, whole)
    assert not prune.is_pruned(model)
    assert same_tensors(model.state_dict(), plain)


def test_a_layer_that_torch_has_not_pruned_is_whole():
    model = network()
    prune.l1_unstructured(model[3], "weight", amount=0.5)
    assert mask_from_torch(model)["0.weight"].all()
    assert masks.density(mask_from_torch(model)) == 76 / 116


def test_a_module_that_is_a_layer_itself():
    layer = nn.Linear(4, 2)
    prune.l1_unstructured(layer, "weight", amount=2)
    assert set(mask_from_torch(layer)) == {"weight"}
    assert set(weights_from_torch(layer)) == {"weight", "bias"}


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.one, self.two, self.other = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.two.weight = self.one.weight

    def forward(self, x):
        return self.two(self.one(x)) + self.other(x)


def test_a_tied_weight_is_pruned_under_all_its_names_and_counts_once():
    torch.manual_seed(0)
    model, x = Tied(), torch.randn(3, 4)
    mask = lotto.pruning.prune(model.state_dict(), masks.ones(model), 0.5)
    assert masks.size(mask) == 32
    weights = masks.apply(model.state_dict(), mask)
    expected = (x @ weights["one.weight"].T) @ weights["one.weight"].T + x @ weights["other.weight"].T
    mask_to_torch(model, mask)
    torch.testing.assert_close(model(x), expected)
    assert model.one.weight_orig is model.two.weight_orig
    again = mask_from_torch(model)
    assert same_tensors(again, mask)
    assert again.shared == {"two.weight": "one.weight"}
    half = Tied()
    prune.custom_from_mask(half.two, "weight", torch.eye(4))  # under one name alone
    assert masks.size(mask_from_torch(half)) == 32
    assert torch.equal(mask_from_torch(half)["one.weight"], torch.eye(4).bool())


def test_recurrent_matrices_that_torch_has_not_pruned_are_whole():
    model = nn.ModuleDict({"memory": nn.LSTM(3, 2), "head": nn.Linear(2, 5)})
    prune.l1_unstructured(model["head"], "weight", amount=4)
    assert {name: int(keep.sum()) for name, keep in mask_from_torch(model).items()} == {
        "head.weight": 6, "memory.weight_ih_l0": 24, "memory.weight_hh_l0": 16,
    }  # fmt: skip


def test_bad_input_is_one_sentence():
    with pytest.raises(UsageError, match="Nothing in this module is pruned"):
        mask_from_torch(network())
    with pytest.raises(UsageError, match="which the model has not"):
        mask_to_torch(network(), {"9.weight": torch.ones(2)})
