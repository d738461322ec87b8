"""Networks of anyone's by kernels: as they are written, or not at all."""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import lotto
from drawn_networks import POOLS, Composed, composed_parts
from lotto import SGD, Job
from lotto.inference import sparse_convolutions
from lotto.models.conv import Conv, Conv1d
from lotto.models.resnet import ResNet
from lotto.models.resnet1d import ResNet1d
from lotto.models.vgg import VGG
from lotto.pruning import masks
from lotto.pruning.rule import prune
from lotto.training.evaluation import evaluate_network
from lotto.training.learners.activations import Activation
from lotto.training.learners.autograd import Autograd
from lotto.training.learners.conv_networks import described
from lotto.training.learners.convolutions import Convolutions
from lotto.training.learners.descriptions import Activate, Normalise
from lotto.training.learners.network_layers import Layers
from lotto.training.learners.network_pass import NetworkPass
from lotto.training.learners.operations import Unknown
from lotto.training.learners.own_networks import own_description
from lotto.training.learners.proof import check_alike
from lotto.training.learners.traced import traced
from lotto.training.loop import learner_of, train
from lotto.training.network import Network

IMAGES = (3, 9, 8)


class Tutorial(nn.Module):
    """Pooling before ReLU, as in torch's own tutorials; a flattened end and two linear layers."""

    def __init__(self):
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 7, 2, padding=1)
        self.fc1, self.fc2 = nn.Linear(28, 11), nn.Linear(11, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = x.view(x.size(0), -1)
        return self.fc2(torch.relu(self.fc1(x)))


class WithBias(nn.Module):
    """Convolutions with a bias before BatchNorm, modules in place, pooling over one place, `AdaptiveAvgPool2d`."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.MaxPool2d(2, 2),
            nn.Conv2d(6, 9, 3, padding=1, stride=(1, 2)), nn.BatchNorm2d(9, momentum=0.3), nn.ReLU(inplace=True),
            nn.AvgPool2d(1, 1), nn.Conv2d(9, 4, 1), nn.BatchNorm2d(4), nn.Identity(), nn.Conv2d(4, 8, 1), nn.ReLU(),
        )  # fmt: skip
        self.pool, self.classifier = nn.AdaptiveAvgPool2d((1, 1)), nn.Linear(8, 5)

    def forward(self, x):
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


class Bottleneck(nn.Module):
    def __init__(self, inputs, inner, outputs, stride):
        super().__init__()
        self.a, self.na = nn.Conv2d(inputs, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.b, self.nb = nn.Conv2d(inner, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.c, self.nc = nn.Conv2d(inner, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.down = None
        if inputs != outputs:
            self.down = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=True), nn.BatchNorm2d(outputs))

    def forward(self, x):
        residual = x if self.down is None else self.down(x)
        out = F.relu(self.na(self.a(x)))
        out = F.relu(self.nb(self.b(out)), inplace=True)
        out = self.nc(self.c(out))
        out += residual
        return F.relu(out)


class Residual(nn.Module):
    """Blocks of three convolutions; the mean by pooling over what is left."""

    def __init__(self):
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.layers = nn.ModuleList([Bottleneck(4, 3, 8, 2), Bottleneck(8, 5, 8, 1), Bottleneck(8, 2, 8, 1)])
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        for layer in self.layers:
            x = layer(x)
        return self.head(F.avg_pool2d(x, (5, 4)).squeeze(-1).squeeze(-1))


class Signals(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(1, 5, 5, dilation=2, padding=3)
        self.more = nn.Sequential(nn.Conv1d(5, 6, 3, bias=False), nn.BatchNorm1d(6), nn.ReLU(), nn.MaxPool1d(2))
        self.fc = nn.Linear(6, 5)

    def forward(self, x):
        x = self.more(self.conv(x[:, None] if x.dim() == 1 else x.unsqueeze(1)).relu_())
        return self.fc(x.mean(dim=-1))


class Separable(nn.Module):
    """Depthwise and grouped convolutions, blocks of pooling that overlap, means of blocks, a sum without ReLU."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        self.deep = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.wide = nn.Sequential(nn.Conv2d(8, 8, 1, groups=2, bias=False), nn.BatchNorm2d(8))
        self.last = nn.Conv2d(8, 6, 2, groups=2)
        self.fc = nn.Linear(6, 5, bias=False)

    def forward(self, x):
        x = self.stem(x)
        x = x + self.wide(self.deep(x))
        x = F.avg_pool2d(x, 2, stride=1, padding=1)
        return self.fc(self.last(x).relu().mean((-2, -1)))


class Before(nn.Module):
    """BatchNorm and ReLU before a convolution, whose outputs are added to what both read."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.n1, self.c1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.n2, self.c2 = nn.BatchNorm2d(outputs), nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.down = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else None

    def forward(self, x):
        out = self.n1(x).relu()
        residual = x if self.down is None else self.down(out)
        return residual + self.c2(self.n2(self.c1(out)).relu())


class PreActivation(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.layers = nn.Sequential(Before(4, 4, 1), Before(4, 7, 2), Before(7, 7, 1))
        self.norm, self.fc = nn.BatchNorm2d(7), nn.Linear(7, 5)

    def forward(self, x):
        return self.fc(self.norm(self.layers(self.conv(x))).relu().mean((2, 3)))


class Inverted(nn.Module):
    """Blocks as MobileNet's: wide, ReLU6, one by one; the narrow ones are added."""

    def __init__(self):
        super().__init__()
        layers = [nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.BatchNorm2d(4), nn.ReLU6(inplace=True)]
        self.stem, self.blocks = nn.Sequential(*layers), nn.ModuleList(self._block() for _ in range(2))
        self.fc1, self.fc2 = nn.Linear(4, 9), nn.Linear(9, 5)

    def _block(self):
        return nn.Sequential(
            nn.Conv2d(4, 12, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU6(inplace=True),
            nn.Conv2d(12, 12, 3, 1, 1, groups=12, bias=False), nn.BatchNorm2d(12), nn.ReLU6(inplace=True),
            nn.Conv2d(12, 4, 1, bias=False), nn.BatchNorm2d(4),
        )  # fmt: skip

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x)
        return self.fc2(F.relu6(self.fc1(F.leaky_relu(x.mean((2, 3)), 0.2))))


class Plain(nn.Module):
    """No BatchNorm, biases here and there, other functions, a sum of three, a shortcut of pooling and a convolution."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.Conv2d(6, 6, 3, padding=2, dilation=2)
        self.c, self.d = nn.Conv2d(6, 6, 2, 2), nn.Conv2d(6, 6, 1, bias=False)
        self.act, self.fc = nn.Hardtanh(-0.5, 0.7), nn.Linear(6 * 4 * 4, 5)

    def forward(self, x):
        x = F.leaky_relu(self.a(self.norm(x)), 0.1)
        x = x + self.act(self.b(x)) + self.d(x)
        x = self.c(x).relu() + self.d_(F.avg_pool2d(x, 2))
        return self.fc(x.flatten(1))

    def d_(self, x):
        return x


NETWORKS = {
    "separable": (Separable, IMAGES),
    "tutorial": (Tutorial, IMAGES), "bias": (WithBias, IMAGES), "residual": (Residual, IMAGES),
    "signals": (Signals, (17,)), "before": (PreActivation, IMAGES), "inverted": (Inverted, IMAGES),
    "plain": (Plain, IMAGES),
}  # fmt: skip


def recipe_of(build, shape, **changes):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(60, *shape)).astype(np.float32)
    y = np.arange(60) % 5
    return lotto.Recipe(
        model=build, data=lotto.data.Arrays(x[:50], y[:50], x[50:], y[50:], name="noise"), init="kaiming-normal",
        optimizer=SGD(0.05, momentum=0.9, weight_decay=1e-3), batch_size=25, steps="8it", evaluations=1,
        device="cpu", arithmetic="sparse", name="someone's",
    ).replace(**changes)  # fmt: skip


def job_of(recipe, density):
    mask = None if density == 1 else prune(recipe.initial(0), masks.ones(recipe), rate=1 - density)
    return Job(recipe, mask=mask)


def after(kind, job, steps):
    state = job.initial_state()
    network = Network(job.recipe, state.weights)
    assert kind.supports([job], network), network.described
    learner = kind([job], network, [state])
    losses = [float(learner.train_step(batch, step)) for step, batch in enumerate(learner.batches(0, steps))]
    return losses, learner.state()


def assert_close(found, expected, tolerance):
    """Up to a share of each tensor's largest number; a bias before BatchNorm has a gradient of rounding alone."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        scale = float(tensor.double().abs().max()) + 1e-3
        assert float((found[name].double() - tensor.double()).abs().max()) <= tolerance * scale, name


@pytest.mark.parametrize("density", [1.0, 0.3, 0.05])
@pytest.mark.parametrize("name", NETWORKS)
def test_a_step_is_that_of_float64_autograd(name, density):
    recipe = recipe_of(*NETWORKS[name])
    job = job_of(recipe, density)
    (loss,), ours = after(Convolutions, job, 1)
    (expected,), theirs = after(Autograd, job_of(recipe.replace(precision="float64"), density), 1)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_close(ours.weights, theirs.weights, 1e-4)
    assert_close(ours.optimizer, theirs.optimizer, 2e-3)
    for layer, mask in (job.mask or {}).items():
        assert not ours.weights[layer][~mask].any()
        assert not ours.optimizer[f"{layer}/momentum_buffer"][~mask].any()


@settings(max_examples=60, deadline=None)
@given(
    parts=composed_parts,
    flat=st.booleans(),
    hidden=st.booleans(),
    density=st.sampled_from([1.0, 0.4, 0.1]),
    seed=st.integers(0, 99),
)
def test_a_drawn_network_and_its_gradients_are_autograds(parts, flat, hidden, density, seed):
    size = (9, 8)
    assume(any(kind not in POOLS for kind, *_ in parts))
    torch.manual_seed(seed)
    try:
        module = Composed(parts, flat, hidden, size)
    except RuntimeError:  # nothing is left to pool
        assume(False)
    found = traced(module, (2, *size))
    mask = {n: torch.rand_like(p) < density for n, p in module.named_parameters() if p.dim() > 1}
    with torch.no_grad():
        for name, p in module.named_parameters():
            p.copy_(p * mask[name] if name in mask else torch.randn_like(p))
    x, slow = torch.randn(7, 2, *size), copy.deepcopy(module).double()
    expected = slow(x.double())
    given_ = torch.randn_like(expected)
    expected.backward(given_)
    layers = Layers(module, found, mask)
    passes = NetworkPass(layers.network, 2, size, len(x))
    outputs = passes.forward(x.flatten(1).t())
    passes.backward(given_.float().t())
    gradients = layers.gradients()
    # ReLUs that rounding turns show, and so does what BatchNorm cancels: in single precision it is a share of the rest.
    largest = max(float(p.grad.norm()) for p in slow.parameters())

    def close(found, right, floor=1e-3):
        return float((found.double() - right).norm()) <= 5e-3 * float(right.norm()) + floor

    assert close(outputs.t(), expected.detach())
    for name, p in slow.named_parameters():
        assert close(gradients[name], p.grad * mask.get(name, 1), 1e-3 * largest), name
        assert name not in mask or not gradients[name][~mask[name]].any()
    for name, statistics in layers.statistics.items():
        assert close(statistics, slow.get_buffer(name)), name


@pytest.mark.parametrize("name", NETWORKS)
def test_a_training_and_its_evaluation(name):
    recipe = recipe_of(*NETWORKS[name])
    job = job_of(recipe, 0.3)
    run = train(job)
    assert run.arithmetic.startswith("convolutions, ")
    exact = recipe.replace(precision="float64", arithmetic="dense")
    expected = evaluate_network(exact, Network(exact, run.weights), "test")
    assert run.history[-1]["test_loss"] == pytest.approx(expected.loss, rel=1e-4)


@pytest.mark.parametrize("shape", [(40,), (2, 13)])
def test_a_network_of_ours_is_traced_as_its_class_says(shape):
    module = ResNet1d(14, len(shape), 5, 4)
    assert traced(module, shape) == own_description(module)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (ResNet(8, 3, 5, 4), IMAGES), (VGG(11, 1, 5), (1, 32, 32)), (Conv(4, (1, 12, 8), 5), (1, 12, 8)),
        (Conv1d(19, 5), (19,)),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_any_network_of_ours_is(module, shape):
    assert traced(module, shape) == own_description(module)
    assert module.training


def test_outputs_of_a_whole_network_with_an_example():
    torch.manual_seed(0)
    module = Residual().eval()
    for p in module.parameters():
        p.data[torch.rand_like(p) < 0.5] = 0
    x = torch.randn(21, *IMAGES)
    sparse = sparse_convolutions(module, example=x[:2])
    assert type(sparse).__name__ == "SparseNetwork"
    with torch.no_grad():
        torch.testing.assert_close(sparse(x), module(x), rtol=1e-4, atol=1e-4)


class Base(nn.Module):
    """A network that kernels compute; others change one thing."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.norm2 = nn.Conv2d(4, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.fc = nn.Linear(4, 5)

    def between(self, x):
        return x.relu()

    def forward(self, x):
        x = self.between(self.norm(self.conv(x)))
        return self.fc(self.norm2(self.conv2(x)).relu().mean((2, 3)))


class OtherFunction(Base):
    def between(self, x):
        return F.gelu(x)


class Dropout(Base):
    def between(self, x):
        return F.dropout(x.relu(), 0.3, self.training)


class Noise(Base):
    def between(self, x):
        return (x + torch.randn(x.shape)).relu()


class HostNoise(Base):
    def between(self, x):
        return x.relu() if np.random.random() < 2 else x


class Branch(Base):
    def between(self, x):
        return x.relu() if x.mean() < 1e9 else x


class Counter(Base):
    calls = 0

    def between(self, x):
        self.calls += 1
        return x.relu()


class OneMode(Base):
    def between(self, x):
        return x.relu() if self.training else x


class Overwritten(Base):
    def between(self, x):
        flat = x.flatten(1)
        x.relu_()
        return flat.view(x.shape)


class Twice(Base):
    def between(self, x):
        return self.norm2(self.conv2(x.relu())).relu()


class Standardised(Base):
    def between(self, x):
        return F.conv2d(x.relu(), self.conv2.weight - self.conv2.weight.mean(), padding=1).relu()


class Unused(Base):
    def __init__(self):
        super().__init__()
        self.aside = nn.Linear(3, 3)


class FrozenNorm(Base):
    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self


class Changing(Base):
    def __init__(self):
        super().__init__()
        self.register_buffer("steps", torch.zeros(()))

    def between(self, x):
        self.steps += 1
        return x.relu()


class Circular(Base):
    def __init__(self):
        super().__init__()
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1, bias=False, padding_mode="circular")


class Ceiling(Base):
    def between(self, x):
        return F.max_pool2d(x.relu(), 2, ceil_mode=True)


class OtherDivisor(Base):
    def between(self, x):
        return F.avg_pool2d(x.relu(), 3, 2, padding=1, count_include_pad=False)


class Scaled(Base):
    def forward(self, x):
        return 2 * super().forward(x)


class Detached(Base):
    def between(self, x):
        return x.detach().relu()


class DetachedWeight(Base):
    def between(self, x):
        return F.relu(F.conv2d(x, self.conv.weight.detach()[:, :1].repeat(1, 4, 1, 1), padding=1))


class _Reversed(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.relu()

    @staticmethod
    def backward(ctx, gradient):
        return -gradient


class OtherGradient(Base):
    def between(self, x):
        return _Reversed.apply(x)


class NumberOfWeights(Base):
    def between(self, x):
        return x.relu() * float(self.conv.weight.detach().numpy().size > 0)


class Two(Base):
    def forward(self, x):
        return super().forward(x), x


class TwoShortcuts(Base):
    def between(self, x):
        y = x.relu()
        return self.norm2(self.conv2(y)).add(y, alpha=0.5).relu()


class Sideways(Base):
    def between(self, x):
        return x.relu().transpose(2, 3)


class Doubled(Base):
    def between(self, x):
        y = x.relu()
        return y + y


class Joined(Base):
    def between(self, x):
        y = x.relu()
        return torch.cat([y[:, :2], y[:, 2:]], 1)


class Rising(Base):
    def between(self, x):
        return F.leaky_relu(x, -0.1)


REFUSED = {
    Doubled: "add", Joined: "slice", Rising: "slope",
    OtherFunction: "gelu", Dropout: "random numbers", Noise: "no parameter", HostNoise: "random numbers", Branch: "read out of a tensor",
    Counter: "changes what it knows", OneMode: "in training than in evaluation", Overwritten: "overwritten", Twice: "twice",
    Standardised: "no parameter", Unused: "aside", FrozenNorm: "mode", Changing: "steps", Circular: "overwritten",
    Ceiling: "ceil_mode", OtherDivisor: "divides", Scaled: "mul", Detached: "detach", DetachedWeight: "no parameter",
    OtherGradient: "gradients", NumberOfWeights: "mul", Two: "not one tensor", TwoShortcuts: "add",
    Sideways: "transpose",
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED, ids=lambda kind: kind.__name__)
def test_what_is_not_known_to_be_alike_is_named_and_trained_by_autograd(kind):
    described(Base(), IMAGES)
    module = kind()
    state = copy.deepcopy(module.state_dict())
    numbers = torch.get_rng_state(), np.random.get_state()[1].tolist()
    with pytest.raises(Unknown, match=REFUSED[kind]):
        described(module, IMAGES)
    assert all(torch.equal(tensor, state[name]) for name, tensor in module.state_dict().items())
    assert torch.equal(torch.get_rng_state(), numbers[0])
    assert np.random.get_state()[1].tolist() == numbers[1]
    assert getattr(module, "calls", 0) == 0


def test_why_a_network_is_trained_by_autograd_is_recorded():
    recipe = recipe_of(OtherFunction, IMAGES)
    assert isinstance(learner_of([Job(recipe)]), Autograd)
    assert train(Job(recipe)).arithmetic == "autograd (no kernels: gelu)"


def test_a_network_with_a_hook_is_not_described():
    module = Base()
    module.conv.register_forward_hook(lambda *_: None)
    with pytest.raises(Unknown, match="hooks"):
        described(module, IMAGES)


def test_a_wrong_description_is_noticed():
    module = Base()
    right = traced(module, IMAGES)
    check_alike(module, right, IMAGES)
    nodes = right.nodes
    norms = [i for i, node in enumerate(nodes) if isinstance(node, Normalise)]
    relus = [i for i, node in enumerate(nodes) if isinstance(node, Activate)]
    swapped = {norms[0]: replace(nodes[norms[0]], name="norm2"), norms[1]: replace(nodes[norms[1]], name="norm")}
    for changes in (*({i: Activate(nodes[i].x, Activation(slope=1.0))} for i in relus), swapped):
        wrong = right._replace(nodes=tuple(changes.get(i, node) for i, node in enumerate(nodes)))
        with pytest.raises(Unknown, match="differ"):
            check_alike(module, wrong, IMAGES)
