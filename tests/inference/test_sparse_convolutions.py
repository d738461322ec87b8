"""Convolutions of nonzero weights for inference: whole networks of ours, single layers of any other."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inference import SHAPES, pruned
from torch import nn

from lotto.core.errors import UsageError
from lotto.inference import convolutions, sparse_convolutions
from lotto.inference.convolutions import NetworkByKernels, SparseConvolution


@pytest.mark.parametrize("name", ["conv-2", "conv1d", "resnet-8", "vgg-11"])
@pytest.mark.parametrize("density", [0.5, 0.05])
def test_a_network_of_ours_is_computed_by_kernels(name, density):
    module, x = pruned(name, density)
    small = sparse_convolutions(module.float())
    assert type(small) is NetworkByKernels
    for inputs in (x.float(), x[:1].float(), torch.randn(130, *SHAPES[name])):
        expected = module(inputs).detach()
        torch.testing.assert_close(small(inputs), expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))
    assert not small(x.float()).requires_grad


def test_a_copy_does_not_follow_the_network():
    module, x = pruned("resnet-8", 0.5)
    small = sparse_convolutions(module.float())
    before = small(x.float())
    with torch.no_grad():
        module.conv.weight.zero_()
    assert torch.equal(small(x.float()), before)
    torch.testing.assert_close(small(x[:1].float()), before[:1], rtol=1e-4, atol=1e-5)


@settings(max_examples=25, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 6), st.integers(1, 6)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=st.integers(1, 2),
    padding=st.integers(0, 2),
    dilation=st.integers(1, 2),
    size=st.tuples(st.integers(5, 8), st.integers(5, 9)),
    batch=st.integers(1, 20),
    density=st.sampled_from([0.0, 0.2, 1.0]),
    bias=st.booleans(),
    flat=st.booleans(),
    groups=st.sampled_from([1, 2, 4]),
)
def test_a_layer_has_the_same_outputs(
    channels, kernel, stride, padding, dilation, size, batch, density, bias, flat, groups
):
    channels = [number * groups for number in channels]
    kind, kernel, size = (nn.Conv1d, kernel[1:], size[1:]) if flat else (nn.Conv2d, kernel, size)
    layer = kind(*channels, kernel, stride, padding, dilation, groups, bias=bias)
    with torch.no_grad():
        layer.weight.mul_(torch.rand_like(layer.weight) < density)
    x = torch.randn(batch, channels[0], *size)
    found = SparseConvolution(layer)(x)
    assert found.is_contiguous()
    torch.testing.assert_close(found, layer(x), rtol=1e-4, atol=1e-5)


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
    assert kinds == ["SparseConvolution", "SparseConvolution", "Conv2d", "Conv2d"], "many weights, padding by name"
    for inputs in (x, x[:2], torch.randn(1, 3, 12, 7)):
        torch.testing.assert_close(small(inputs), module(inputs), rtol=1e-4, atol=1e-5)
    assert type(sparse_convolutions(module, below=1.1).third) is SparseConvolution
    assert type(sparse_convolutions(module.double()).first) is nn.Conv2d


def test_a_hooked_layer_stays():
    module = Own()
    module.first.register_forward_hook(lambda *_: None)
    assert type(sparse_convolutions(module).first) is nn.Conv2d


def test_numba_is_needed(monkeypatch):
    monkeypatch.setattr(convolutions, "can_compile", lambda: False)
    with pytest.raises(UsageError, match="numba"):
        sparse_convolutions(Own())
