"""Networks of kept weights as one operator: the outputs of the network, in any batch, by kernels and by torch."""

from __future__ import annotations

import threading

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_inference import SHAPES, pruned
from torch import nn
from torch.nn import functional as F

from lotto.core.errors import UsageError
from lotto.inference import compact, sparse_network, sparse_operator
from lotto.inference.kept_weights import SparseLayer, SparseNetwork
from lotto.inference.kernel_plan import KernelPlan
from lotto.inference.steps import LAYER, SUM, VIEW, Step, from_text, to_text
from lotto.inference.traced_steps import traced_steps

OPERATOR = torch.ops.lotto.sparse_network


def agree(module, sparse, x):
    """Float32 outputs against the network in float64."""
    with torch.no_grad():
        expected = module.double()(x.double())
        module.float()
        torch.testing.assert_close(sparse(x).double(), expected, rtol=1e-4, atol=2e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("name", SHAPES)
@pytest.mark.parametrize("density", [0.6, 0.05])
def test_a_network_of_ours_is_one_operator(name, density):
    module, _ = pruned(name, density)
    sparse = sparse_network(module.float(), torch.zeros(1, *SHAPES[name]))
    assert type(sparse) is SparseNetwork
    assert not sparse.training
    for batch in (1, 33) if name == "vgg-11" else (1, 6, 33, 130):
        agree(module, sparse, torch.randn(batch, *SHAPES[name]))
    assert not list(sparse.parameters())
    layers = [m.weight for m in module.modules() if isinstance(m, nn.Linear | nn.Conv1d | nn.Conv2d)]
    stored = sum(int((w != 0).sum()) if (w != 0).double().mean() < 0.5 else w.numel() for w in layers)
    assert len(sparse.values) == stored


def test_a_compact_network_becomes_sparse():
    module, x = pruned("vgg-11", 0.3)
    small = compact(module.float(), x.float())
    agree(module, sparse_network(small, x.float()), x.float())


class Odd(nn.Module):
    """Sums in any order, pooling of any kind, means that keep axes, layers without bias or norm."""

    def __init__(self):
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 2, dilation=2), nn.BatchNorm2d(6, affine=False))
        self.left, self.right = nn.Conv2d(6, 6, 1, bias=False), nn.Conv2d(6, 6, 3, padding=1, groups=3)
        self.norm, self.pool = nn.BatchNorm2d(6), nn.MaxPool2d(3, 2, 1)
        self.mean, self.drop = nn.AdaptiveAvgPool2d(1), nn.Dropout(0.3)
        self.means, self.out = nn.AvgPool2d(2, 1), nn.Linear(6, 4, bias=False)

    def forward(self, x):
        x = self.first(x)
        y = self.left(x)
        z = self.norm(self.right(F.relu(y))) + y
        x = self.means(self.pool(torch.relu(z + x) + x))
        x += self.left(x)
        return self.out(self.drop(self.mean(x.relu_()).flatten(1)))


class Signals(nn.Module):
    """One dimension, pooling with what is left over, a view in the middle, the inputs added to themselves."""

    def __init__(self):
        super().__init__()
        self.conv, self.last = nn.Conv1d(2, 4, 3, 2, 1), nn.Linear(8, 3)
        self.again = nn.Conv1d(1, 2, 2, stride=3)

    def forward(self, x):
        x = F.max_pool1d(self.conv(x + x).relu(), 3)
        return self.last(self.again(x.flatten(1).unsqueeze(1)).flatten(1))


@pytest.mark.parametrize(("kind", "shape"), [(Odd, (3, 11, 9)), (Signals, (2, 19))])
@pytest.mark.parametrize("density", [1.0, 0.3, 0.0])
def test_other_networks_are_one_operator(kind, shape, density):
    torch.manual_seed(1)
    module = kind().eval()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    for p in module.parameters():
        p.data *= torch.rand_like(p) < density
    sparse = sparse_network(module, torch.randn(3, *shape))
    assert type(sparse) is SparseNetwork
    for batch in (1, 2, 40):
        agree(module, sparse, torch.randn(batch, *shape))


class Partly(nn.Module):
    """A network with an operation that no step computes."""

    def __init__(self, change):
        super().__init__()
        self.conv, self.fc, self.change = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), change
        for layer in (self.conv, self.fc):
            layer.weight.data *= torch.rand_like(layer.weight) < 0.08

    def forward(self, x):
        return self.fc(self.change(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize(
    "change",
    [
        F.gelu, lambda x: x * 2, lambda x: x.transpose(2, 3), lambda x: x.clamp(min=0.1), lambda x: F.avg_pool2d(x, 2, padding=1),
        lambda x: F.avg_pool2d(x, 2, divisor_override=3),
        lambda x: torch.add(x, x, alpha=2), lambda x: x + 1, lambda x: F.max_pool2d(x, 2, ceil_mode=True),
        lambda x: x.softmax(1), lambda x: F.batch_norm(x, None, None, training=True), lambda x: F.relu6(x),
    ],
)  # fmt: skip
def test_what_is_not_understood_keeps_its_place_between_sparse_layers(change):
    torch.manual_seed(0)
    module, x = Partly(change).eval(), torch.randn(4, 3, 7, 7)
    sparse = sparse_network(module, x)
    assert [type(layer) for layer in sparse.children()] == [SparseLayer, SparseLayer]
    with torch.no_grad():
        torch.testing.assert_close(sparse(x), module(x), rtol=1e-4, atol=1e-5)


def test_a_transformer_reads_the_weights_of_its_sparse_layers():
    torch.manual_seed(0)
    module = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True).eval()
    for layer in (module.linear1, module.linear2):
        layer.weight.data *= torch.rand_like(layer.weight) < 0.05
    x = torch.randn(3, 5, 16)
    sparse = sparse_network(module, x)
    assert type(sparse.linear1) is SparseLayer
    with torch.no_grad():
        torch.testing.assert_close(sparse(x), module(x))


def test_nan_and_infinity_come_through():
    module, _ = pruned("conv-2", 0.3, dead=0.0)
    sparse = sparse_network(module.float(), torch.zeros(2, 3, 8, 8))
    for value in (float("nan"), float("inf")):
        x = torch.randn(3, 3, 8, 8)
        x[1, 0, 2, 2] = value
        with torch.no_grad():
            found, expected = sparse(x), module(x)
        assert not found[1].isfinite().all()
        torch.testing.assert_close(found[0::2], expected[0::2], rtol=1e-4, atol=1e-5)


@settings(max_examples=15, deadline=None)
@given(batch=st.integers(1, 40), size=st.integers(5, 12), density=st.floats(0, 1), seed=st.integers(0, 99))
def test_kernels_and_torch_agree_on_any_size(batch, size, density, seed):
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Conv2d(2, 5, 3, 2, 1), nn.ReLU(), nn.Conv2d(5, 3, 3), nn.MaxPool2d(1)).eval()
    for p in module.parameters():
        p.data *= torch.rand_like(p) < density
    traced = traced_steps(module, (2, size, size))
    x, given_ = torch.randn(batch, 2, size, size), (traced.values, traced.places, traced.biases)
    found = OPERATOR(x, *given_, to_text(traced.steps))
    by_torch = sparse_operator.by_torch(x, *given_, to_text(traced.steps))
    with torch.no_grad():
        torch.testing.assert_close(by_torch, module(x))
        torch.testing.assert_close(found, module(x), rtol=1e-4, atol=1e-5)


def small_network():
    torch.manual_seed(0)
    module = nn.Sequential(nn.Flatten(), nn.Linear(12, 9), nn.ReLU(), nn.Linear(9, 3)).eval()
    module[1].weight.data *= torch.rand(9, 12) < 0.3
    return module, traced_steps(module, (3, 4))


def test_torch_finds_nothing_wrong_with_the_operator():
    _, traced = small_network()
    arguments = (torch.randn(5, 3, 4), traced.values, traced.places, traced.biases, to_text(traced.steps))
    torch.library.opcheck(OPERATOR.default, arguments, test_utils=("test_schema", "test_faketensor"))


def test_a_gradient_is_refused():
    module, _ = small_network()
    sparse = sparse_network(module, torch.randn(2, 3, 4))
    outputs = sparse(torch.randn(2, 3, 4, requires_grad=True))
    with pytest.raises(UsageError, match="give no gradients"):
        outputs.sum().backward()


def test_changed_weights_and_places_are_seen():
    module, traced = small_network()
    sparse = SparseNetwork(traced)
    x = torch.randn(5, 3, 4)
    with torch.no_grad():
        torch.testing.assert_close(sparse(x), module(x))
        sparse.values.mul_(2)
        sparse.biases.zero_()
        sparse.places[0] += sparse.places[0] + 1 < sparse.places[1]
        expected = sparse_operator.by_torch(x, sparse.values, sparse.places, sparse.biases, sparse.description)
        torch.testing.assert_close(sparse(x), expected)


def test_threads_share_a_network():
    module, x = pruned("resnet-8", 0.1)
    sparse = sparse_network(module.float(), x.float())
    inputs = [torch.randn(7, *SHAPES["resnet-8"]) for _ in range(4)]
    expected = [sparse(x) for x in inputs]
    wrong = []

    def work(i):
        wrong.extend(i for _ in range(20) if not torch.equal(sparse(inputs[i]), expected[i]))

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_memory_is_that_of_the_layers_that_are_read_at_the_same_time():
    module, _ = pruned("vgg-11", 0.1)
    traced = traced_steps(module.float(), SHAPES["vgg-11"])
    plan = KernelPlan(traced.steps, traced.places.numpy(), (1, *SHAPES["vgg-11"]))
    largest = 64 * 16 * 16
    assert plan.size < 6 * largest, "one layer's inputs, these padded, its sums and its outputs, and little else"


@pytest.mark.parametrize(
    ("shape", "said"),
    [((5, 13), "view of the shape"), ((5, 3, 5), "view of the shape")],
)
def test_inputs_of_another_shape_are_refused(shape, said):
    _, traced = small_network()
    with pytest.raises(UsageError, match=said):
        SparseNetwork(traced)(torch.zeros(shape))


def test_descriptions_and_vectors_that_do_not_fit_are_refused():
    _, traced = small_network()
    text, x = to_text(traced.steps), torch.zeros(2, 3, 4)
    assert from_text(text) == traced.steps
    with pytest.raises(UsageError, match="edition 9, which this lotto cannot compute"):
        OPERATOR(x, traced.values, traced.places, traced.biases, text.replace('"version":1', '"version":9'))
    with pytest.raises(UsageError, match="not those of the network"):
        OPERATOR(x, traced.values[1:], traced.places, traced.biases, text)
    for places in (traced.places.flip(0), traced.places + 108, traced.places - 50):
        with pytest.raises(UsageError, match="do not ascend within their layer"):
            OPERATOR(x, traced.values, places, traced.biases, text)


def test_steps_tell_the_shapes_that_they_cannot_read():
    with pytest.raises(UsageError, match=r"A layer of the shape \[4, 3\] cannot read examples of the shape \[5\]"):
        Step(LAYER, 0, (4, 3)).outputs([5])
    assert Step(VIEW, 0, (2, 6)).outputs([3, 4]) == [2, 6]
    assert Step(SUM, 0).outputs([3, 4]) == [3, 4]
