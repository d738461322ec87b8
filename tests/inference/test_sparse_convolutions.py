"""Single layers of nonzero weights: any convolution and linear layer, in any module."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inference import pruned
from torch import nn

from lotto.core.errors import UsageError
from lotto.inference import convolutions, sparse_convolutions
from lotto.inference.kept_weights import SparseLayer, SparseNetwork


@settings(max_examples=40, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    padding=st.tuples(st.integers(0, 2), st.integers(0, 2)),
    dilation=st.integers(1, 2),
    size=st.tuples(st.integers(5, 8), st.integers(5, 9)),
    batch=st.integers(1, 20),
    density=st.sampled_from([0.0, 0.2, 0.48, 1.0]),
    bias=st.booleans(),
    dims=st.integers(0, 2),
    groups=st.sampled_from([1, 2, 4]),
)
def test_a_layer_has_the_same_outputs(
    channels, kernel, stride, padding, dilation, size, batch, density, bias, dims, groups
):
    channels = [number * groups for number in channels]
    if dims:
        kind = nn.Conv1d if dims == 1 else nn.Conv2d
        layer = kind(*channels, *(given[-dims:] for given in (kernel, stride, padding)), dilation, groups, bias=bias)
    else:
        layer = nn.Linear(*channels, bias=bias)
    with torch.no_grad():
        layer.weight.mul_(torch.rand_like(layer.weight) < density)
        if bias:
            layer.bias.mul_(3)
    x = torch.randn(batch, channels[0], *size[2 - dims :])
    sparse = SparseLayer(layer)
    found = sparse(x)
    assert found.is_contiguous()
    torch.testing.assert_close(found.double(), layer.double()(x.double()), rtol=1e-5, atol=1e-5)
    assert torch.equal(sparse.weight.double(), layer.weight)
    assert len(sparse.values) == int((layer.weight != 0).sum())


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, groups=2)
        self.third, self.dense = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 2, 3, padding="same")
        with torch.no_grad():
            for layer in (self.first, self.second, self.dense):
                layer.weight.mul_(torch.rand_like(layer.weight) < 0.02)

    def forward(self, x):
        return self.dense(self.third(torch.tanh(self.second(self.first(x)))))


def test_layers_with_few_weights_of_any_module_are_replaced():
    module, x = Own().eval(), torch.randn(5, 3, 9, 9)
    small = sparse_convolutions(module)
    kinds = [type(layer).__name__ for layer in small.children()]
    assert kinds == ["SparseLayer", "SparseLayer", "Conv2d", "Conv2d"], "many weights, padding by name"
    for inputs in (x, x[:2], torch.randn(1, 3, 12, 7)):
        torch.testing.assert_close(small(inputs), module(inputs), rtol=1e-4, atol=1e-5)
    assert type(sparse_convolutions(module, below=1.1).third) is SparseLayer
    doubled = sparse_convolutions(module.double())
    torch.testing.assert_close(doubled(x.double()), module(x.double()))


def test_a_copy_does_not_follow_the_layers():
    module, x = Own().eval(), torch.randn(5, 3, 9, 9)
    small = sparse_convolutions(module)
    before = small(x)
    with torch.no_grad():
        module.first.weight.zero_()
    assert torch.equal(small(x), before)


def test_with_an_example_the_network_is_one():
    module, x = pruned("resnet-8", 0.1)
    small = sparse_convolutions(module.float(), example=x[:1].float())
    assert type(small) is SparseNetwork
    torch.testing.assert_close(small(x.float()), module(x.float()), rtol=1e-3, atol=1e-4)


def test_a_hooked_layer_stays():
    module = Own()
    module.first.register_forward_hook(lambda *_: None)
    assert type(sparse_convolutions(module).first) is nn.Conv2d


def test_numba_is_needed(monkeypatch):
    monkeypatch.setattr(convolutions, "can_compile", lambda: False)
    with pytest.raises(UsageError, match="numba"):
        sparse_convolutions(Own())
