"""Compacted networks and compressed rows give the outputs of the pruned network."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import lotto
from lotto import models
from lotto.core.errors import UsageError
from lotto.inference.compaction import compact
from lotto.inference.rows import SparseLinear, sparse_rows

SHAPES = {
    "mlp-30-20": (12,),
    "lenet-40-30": (1, 6, 6),
    "conv-2": (3, 8, 8),
    "conv1d": (40,),
    "resnet-8": (3, 8, 8),
    "vgg-11": (3, 16, 16),
}


def pruned(name, density, seed=0, dead=0.3):
    """A network with random masks, units without inputs, units that nobody reads, and BatchNorm statistics."""
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)
    module = models.build(name, SHAPES[name], 5).double().eval()
    layers = [m for m in module.modules() if isinstance(m, (nn.Linear, nn.Conv1d, nn.Conv2d))]
    with torch.no_grad():
        for layer in layers:
            shape = layer.weight.shape
            keep = torch.from_numpy(generator.random(shape) < density)
            keep[torch.from_numpy(generator.random(shape[0]) < dead)] = False
            keep[:, torch.from_numpy(generator.random(shape[1]) < dead)] = False
            layer.weight.mul_(keep)
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for tensor in (norm.weight, norm.bias, norm.running_mean):
                    tensor.normal_()
                norm.running_var.uniform_(0.5, 2.0)
    return module, torch.randn(6, *SHAPES[name], dtype=torch.float64)


def size(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("density", [0.5, 0.05])
def test_a_compact_network_has_the_same_outputs(name, density):
    for seed in range(3):
        module, x = pruned(name, density, seed)
        before = {n: t.clone() for n, t in module.state_dict().items()}
        small = compact(module, x)
        torch.testing.assert_close(small(x), module(x), rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(small(x[:1]), module(x[:1]), rtol=1e-9, atol=1e-9)
        assert size(small) < 0.9 * size(module)
        for n, tensor in module.state_dict().items():
            assert torch.equal(tensor, before[n]), "the given network is left alone"


@pytest.mark.parametrize("name", SHAPES)
def test_nothing_goes_from_a_dense_network(name):
    module, x = pruned(name, 1.1, dead=0.0)
    small = compact(module, x)
    assert size(small) == size(module)
    torch.testing.assert_close(small(x), module(x))


def test_what_goes_is_what_is_cut_off():
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()
    with torch.no_grad():
        module[0].weight[1] = 0.0  # constant: relu(bias)
        module[0].bias[1] = 2.0
        module[2].weight[:, 3] = 0.0  # nobody reads it
    small = compact(module, torch.zeros(1, 3, dtype=torch.float64))
    layers = [m for m in small.modules() if isinstance(m, nn.Linear)]
    assert [tuple(layer.weight.shape) for layer in layers] == [(2, 3), (2, 2)]
    assert (layers[0].out_features, layers[1].in_features) == (2, 2)
    torch.testing.assert_close(layers[1].bias, module[2].bias + 2.0 * module[2].weight[:, 1])


def test_constants_do_not_cross_a_zero_border():
    module = nn.Sequential(nn.Conv2d(1, 2, 1), nn.Conv2d(2, 2, 3, padding=1)).double()
    with torch.no_grad():
        module[0].weight[0] = 0.0
        module[0].bias[0] = 1.0  # at the border its reader sees zeros beside it
    x = torch.randn(2, 1, 4, 4, dtype=torch.float64)
    small = compact(module, x)
    assert size(small) == size(module)
    torch.testing.assert_close(small(x), module(x))
    with torch.no_grad():
        module[0].bias[0] = 0.0
    small = compact(module, x)
    assert size(small) < size(module)
    torch.testing.assert_close(small(x), module(x))


def test_a_layer_that_is_pruned_to_nothing():
    module, x = pruned("mlp-30-20", 0.5)
    with torch.no_grad():
        module.fc2.weight.zero_()
    small = compact(module, x)
    torch.testing.assert_close(small(x), module(x))
    assert size(small) < 60


class Odd(nn.Module):
    """Does something to channels that is not understood, and shares a layer."""

    def __init__(self):
        super().__init__()
        self.first, self.shared, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        x = self.first(x).softmax(1)
        return self.last(self.shared(self.shared(x).relu()).relu())


def test_what_is_not_understood_stays():
    module = Odd().double()
    with torch.no_grad():
        for layer in (module.first, module.shared):
            layer.weight[:4] = 0.0
    x = torch.randn(3, 6, dtype=torch.float64)
    small = compact(module, x)
    assert size(small) == size(module)
    torch.testing.assert_close(small(x), module(x))


class Beside(nn.Module):
    """A layer's weight is used beside the layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        hidden = self.second(self.first(x).relu()).relu()
        return self.last(nn.functional.linear(hidden, self.second.weight.t()).sigmoid())


def test_a_layer_whose_weight_is_used_elsewhere_stays():
    module = Beside().double()
    with torch.no_grad():
        module.second.weight[:, :3] = 0.0
    x = torch.randn(3, 6, dtype=torch.float64)
    small = compact(module, x)
    assert small.first.out_features == 8
    torch.testing.assert_close(small(x), module(x))


class Branching(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Optional(nn.Linear):
    def forward(self, x, scale=None):
        return super().forward(x if scale is None else x * scale)


def test_a_forward_that_cannot_be_traced_says_so(capfd):
    with pytest.raises(lotto.core.errors.UsageError, match="forward of Branching cannot be traced"):
        compact(Branching(), torch.zeros(1, 2))
    with pytest.raises(lotto.core.errors.UsageError, match="goes another way for these inputs than for those that"):
        compact(Optional(2, 2), torch.zeros(1, 2))
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("name", ["mlp-30-20", "conv-2"])
def test_compressed_rows_have_the_same_outputs(name):
    module, x = pruned(name, 0.2, dead=0.0)
    quick = sparse_rows(module, below=0.3)
    replaced = [type(m).__name__ for m in quick.modules()].count("SparseLinear")
    assert replaced == 3
    torch.testing.assert_close(quick(x), module(x))
    assert not [m for m in sparse_rows(module, below=0.1).modules() if type(m).__name__ == "SparseLinear"]


class Pieces(nn.Module):
    def __init__(self):
        super().__init__()
        self.c1, self.c2, self.c3 = (nn.Conv2d(i, 4, 3, padding=1) for i in (1, 4, 4))
        self.fc, self.relu, self.flat = nn.Linear(4, 2), nn.ReLU(inplace=True), nn.Flatten()

    def means(self, x):
        return self.fc(x.mean((2, 3)))


class ReadAfterRelu(Pieces):
    def forward(self, x):
        h = self.c1(x)
        return self.means(self.c2(self.relu(h)) + self.c3(h))


class ReadAfterFunction(Pieces):
    def forward(self, x):
        h = self.c1(x)
        return self.means(self.c2(torch.relu_(h)) + self.c3(h))


class ReadAfterMethod(Pieces):
    def forward(self, x):
        h = self.c1(x)
        return self.means(self.c2(h.relu_()) + self.c3(h))


class ReadAfterKeyword(Pieces):
    def forward(self, x):
        h = self.c1(x)
        return self.means(self.c2(torch.nn.functional.relu(h, inplace=True)) + self.c3(h))


class ReadThroughView(Pieces):
    def forward(self, x):
        h = self.c1(x)
        self.relu(self.flat(h))
        return self.means(self.c2(h))


class Aliased(Pieces):
    def forward(self, x):
        h = self.c1(x)
        z = h
        z += self.c2(h.relu())
        return self.means(z + h)


class Divided(Pieces):
    def forward(self, x):
        return self.fc(torch.nn.functional.avg_pool2d(self.c1(x), 8, divisor_override=3).flatten(1))


class DividedByModule(Pieces):
    def __init__(self):
        super().__init__()
        self.pool = nn.AvgPool2d(8, divisor_override=5)

    def forward(self, x):
        return self.fc(self.pool(self.c1(x)).flatten(1))


class InPlaceAndDone(Pieces):
    def forward(self, x):
        return self.means(self.relu(self.c2(self.relu(self.c1(x)))))


@pytest.mark.parametrize(
    ("kind", "left"),
    [
        (ReadAfterRelu, 4), (ReadAfterFunction, 4), (ReadAfterMethod, 4), (ReadAfterKeyword, 4), (ReadThroughView, 4),
        (Aliased, None), (Divided, 4), (DividedByModule, 4), (InPlaceAndDone, 2),
    ],
)  # fmt: skip
def test_compact_gives_the_same_outputs_or_refuses_by_name(kind, left):
    torch.manual_seed(0)
    module, x = kind().eval(), torch.randn(5, 1, 8, 8)
    with torch.no_grad():
        module.c1.weight[1] = module.c1.weight[3] = 0
        module.c1.bias[1], module.c1.bias[3] = -1.0, 2.0  # constants, of which padding lets none into a bias
        module.c2.weight[:, 1] = module.c2.weight[:, 3] = 0
        module.c3.weight[:, 1] = 0
        if left is None:
            with pytest.raises(UsageError, match="Aliased cannot be made compact: on the example the outputs differ"):
                compact(module, x)
            return
        small = compact(module, x)
        assert small.c1.out_channels == left
        torch.testing.assert_close(small(x.clone()), module(x.clone()))


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)), (4, 5, 16)),
        (nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)), (2, 4, 5, 16)),
        (nn.Sequential(nn.Linear(16, 16, bias=False), nn.ReLU(), nn.Linear(16, 8)), (16,)),
        (nn.TransformerEncoderLayer(16, 2, 32, batch_first=True), (4, 5, 16)),
    ],
)
def test_sparse_rows_take_any_leading_dimensions_and_show_their_weight(module, shape):
    torch.manual_seed(0)
    for layer in module.modules():
        if type(layer) is nn.Linear:
            layer.weight.data *= torch.rand_like(layer.weight) < 0.1
    x, small = torch.randn(shape), sparse_rows(module)
    with torch.no_grad():
        torch.testing.assert_close(small(x), module.eval()(x))
    replaced = [part for part in small.modules() if isinstance(part, SparseLinear)]
    assert replaced
    originals = dict(module.named_modules())
    for name, part in small.named_modules():
        if isinstance(part, SparseLinear):
            assert torch.equal(part.weight, originals[name].weight)
