"""The Hessian of networks of all kinds against float64 second derivatives and differences of plain gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import lotto
from conftest import small_recipe
from lotto import Adam, Recipe
from lotto.core.errors import UsageError
from lotto.landscape.curvature import Hessian, quadratic
from lotto.pruning import masks


def data(tokens=True):
    generator = np.random.default_rng(0)
    x = generator.integers(0, 7, size=(30, 5)) if tokens else generator.normal(size=(30, 5)).astype(np.float32)
    y = (x[:, :2].sum(1) > x[:, 3:].sum(1)).astype(np.int64)
    return lotto.data.Arrays(x[:20], y[:20], x[20:], y[20:])


class Fused(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.qkv, self.head = nn.Embedding(7, 4), nn.Linear(4, 12), nn.Linear(4, 2)

    def forward(self, x):
        q, k, v = (t.unsqueeze(1) for t in self.qkv(self.embed(x)).chunk(3, -1))
        return self.head(F.scaled_dot_product_attention(q, k, v, is_causal=True).squeeze(1).mean(1))


class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 2)
        layer = nn.TransformerEncoderLayer(4, 2, 6, batch_first=True, activation=F.gelu)
        self.inner = nn.TransformerEncoder(layer, 1)

    def forward(self, x):
        return self.head(self.inner(self.embed(x)).mean(1))


class Attention(nn.Module):
    """With and without the fused kernel: it is not taken where the weights of attention are asked for."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(7, 4), nn.Linear(4, 2)
        self.first, self.second = (nn.MultiheadAttention(4, 2, batch_first=True) for _ in range(2))

    def forward(self, x):
        h = self.embed(x)
        h = h + self.first(h, h, h)[0]
        return self.head(self.second(h, h, h, need_weights=False)[0].mean(1))


class Recurrent(nn.Module):
    kind: type[nn.RNNBase] = nn.LSTM

    def __init__(self):
        super().__init__()
        self.embed, self.inner, self.head = nn.Embedding(7, 3), self.kind(3, 3, batch_first=True), nn.Linear(3, 2)

    def forward(self, x):
        return self.head(self.inner(self.embed(x))[0][:, -1])


class GRU(Recurrent):
    kind = nn.GRU


class Unused(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last, self.spare = nn.Linear(5, 4), nn.Linear(4, 2), nn.Linear(4, 3)

    def forward(self, x):
        return self.last(self.first(x).tanh())


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 2)
        self.middle.weight = self.first.weight

    def forward(self, x):
        return self.last(self.middle(self.first(x).tanh()).tanh())


class Frozen(Tied):
    def __init__(self):
        super().__init__()
        self.last.requires_grad_(False)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2))

    def forward(self, x):
        return self.body(x)


class Embedded(Fused):
    """Its embedding is included."""


NETWORKS = [Fused, Encoder, Attention, Recurrent, GRU, Unused, Tied, Frozen, Normed, Embedded]


def recipe_of(model, **changes):
    tokens = hasattr(model(), "embed")
    include = ("embed",) if model is Embedded else ()
    return Recipe(model, data(tokens), Adam(1e-2), batch_size=10, steps="10it", include=include, **changes)


@pytest.fixture(scope="module", params=NETWORKS)
def point(request):
    """A trained network in float64, and a mask of half of its prunable weights."""
    recipe = recipe_of(request.param, precision="float64")
    weights = lotto.train(recipe, store=None).weights
    return recipe, weights, masks.random_like(lotto.pruning.prune(weights, masks.ones(recipe), 0.5, "random"), 0)


def loss_of(recipe, weights, mask):
    """The mean loss as a function of the flat unpruned weights, and where these are."""
    module = recipe.build().double().eval()
    module.load_state_dict({n: t.double() if t.is_floating_point() else t for n, t in weights.items()})
    with torch.no_grad():
        parameters = dict(module.named_parameters(remove_duplicate=False))
        for name, keep in mask.items():
            parameters[name].mul_(keep)
    x, y = recipe.arrays.x["train"], recipe.arrays.y["train"]
    x = recipe.arrays.normalise(x).double() if x.is_floating_point() else x
    start = torch.cat([parameters[n][k] for n, k in mask.items()]).detach()

    def loss(flat):
        given, at = {}, 0
        for name, keep in mask.items():
            n = int(keep.sum())
            given[name] = torch.zeros(keep.shape, dtype=torch.float64).index_put((keep,), flat[at : at + n])
            at += n
        return recipe.loss_function(functional_call(module, given, (x,)), y)

    return loss, start


def test_products_are_second_derivatives(point):
    recipe, weights, mask = point
    loss, start = loss_of(recipe, weights, mask)
    with sdpa_kernel(SDPBackend.MATH):
        expected = torch.autograd.functional.hessian(loss, start).numpy()
    operator = Hessian(recipe, weights, mask)
    assert operator.size == masks.count(mask) == len(expected)
    scale = np.abs(expected).max()
    assert scale > 1e-6
    assert np.abs(operator.dense() - expected).max() < 1e-9 * scale
    gradient = torch.autograd.functional.jacobian(loss, start).numpy()
    assert operator.gradient() == pytest.approx(gradient, rel=1e-9, abs=1e-12)
    assert operator.point() == pytest.approx(start.numpy())


def test_products_are_differences_of_gradients_by_the_usual_kernels(point):
    recipe, weights, mask = point
    loss, start = loss_of(recipe, weights, mask)
    direction = torch.from_numpy(np.random.default_rng(1).standard_normal(len(start)))
    up, down = (torch.autograd.functional.jacobian(loss, start + s * 1e-5 * direction) for s in (1, -1))
    expected = ((up - down) / 2e-5).numpy()
    found = Hessian(recipe, weights, mask) @ direction.numpy()
    assert found == pytest.approx(expected, rel=1e-5, abs=1e-7 * np.abs(expected).max())


def test_settings_of_torch_are_left_as_they_were():
    recipe = recipe_of(Attention)
    before = torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()
    lotto.landscape.curvature.top(recipe, recipe.initial(0), k=1)
    assert (torch.backends.mha.get_fastpath_enabled(), torch.backends.cuda.flash_sdp_enabled()) == before


@pytest.mark.parametrize("model", [Encoder, Recurrent, Unused])
def test_single_precision_and_the_spectrum(model):
    recipe = recipe_of(model)
    weights = recipe.initial(0)
    exact = Hessian(recipe.replace(precision="float64"), weights)
    expected = np.linalg.eigvalsh(exact.dense())
    found = lotto.landscape.curvature.top(recipe, weights, k=2)
    assert found.values == pytest.approx(expected[::-1][:2], rel=1e-3)
    spectrum = lotto.landscape.curvature.spectrum(recipe, weights, steps=20, probes=8)
    assert spectrum.size == exact.size
    assert abs(spectrum.trace - expected.sum()) < 4 * spectrum.trace_error + 1e-3 * abs(expected.sum())


def test_what_the_loss_does_not_depend_on_has_rows_of_zeros():
    recipe = recipe_of(Unused)
    weights, mask = recipe.initial(0), masks.ones(recipe)
    matrix = Hessian(recipe, weights).dense()
    assert not matrix[-12:].any()
    assert matrix[:-12, :-12].any()
    spare = {"spare.weight": mask["spare.weight"]}
    alone = Hessian(recipe, weights, spare)
    assert not alone.dense().any()
    assert not alone.gradient().any()


def test_a_shared_weight_is_one_variable_and_frozen_ones_are_none():
    recipe = recipe_of(Tied, precision="float64")
    weights, mask = recipe.initial(0), masks.ones(recipe)
    assert list(mask) == ["first.weight", "last.weight"]
    half = masks.random_like(lotto.pruning.prune(weights, mask, 0.5), 3)
    once, other = Hessian(recipe, weights, half), {"middle.weight": half["first.weight"]}
    again = Hessian(recipe, weights, {**half, **other})
    assert again.size == once.size == masks.count(half)
    assert again.dense() == pytest.approx(once.dense(), abs=1e-12)
    under_the_other_name = Hessian(recipe, weights, {**other, "last.weight": half["last.weight"]})
    assert under_the_other_name.dense() == pytest.approx(once.dense(), abs=1e-12)
    costs = quadratic.QuadraticTask(recipe, weights, {**half, **other}, [half]).execute()["costs"]
    assert costs == [0.0]
    frozen = recipe_of(Frozen)
    assert list(Hessian(frozen, frozen.initial(0), mask).mask) == ["first.weight"]
    with pytest.raises(UsageError, match="axial subspace is empty"):
        Hessian(frozen, frozen.initial(0), {"last.weight": mask["last.weight"]})


class Sine(torch.autograd.Function):
    """A sine whose backward torch can differentiate."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.sin()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * ctx.saved_tensors[0].cos()


class Once(Sine):
    backward = staticmethod(torch.autograd.function.once_differentiable(Sine.backward))


class Outside(Sine):
    @staticmethod
    def backward(ctx, gradient):
        return torch.from_numpy(gradient.detach().numpy() * np.cos(ctx.saved_tensors[0].detach().numpy()))


class Step(Sine):
    """A staircase: its gradient is 0."""

    @staticmethod
    def backward(ctx, gradient):
        return torch.zeros_like(gradient.detach())


class WithFunction(Unused):
    function = Sine

    def forward(self, x):
        return self.last(self.function.apply(self.first(x)))


class WithOnce(WithFunction):
    function = Once


class WithOutside(WithFunction):
    function = Outside


class WithStep(WithFunction):
    function = Step


@pytest.mark.parametrize("model", [WithOnce, WithOutside])
def test_functions_that_are_differentiated_once_are_refused(model):
    recipe = recipe_of(model)
    sentence = rf"cannot be differentiated twice, .*: the backward of {model.function.__name__} is not itself"
    with pytest.raises(UsageError, match=sentence):
        Hessian(recipe, recipe.initial(0)).dense()
    assert Hessian(recipe, recipe.initial(0)).gradient().any()


def test_functions_that_are_differentiated_twice_are_not():
    recipe = recipe_of(WithFunction, precision="float64")
    weights, mask = recipe.initial(0), masks.ones(recipe_of(WithFunction))
    used = {name: mask[name] for name in ("first.weight", "last.weight")}
    loss, start = loss_of(recipe, weights, used)
    expected = torch.autograd.functional.hessian(loss, start).numpy()
    assert Hessian(recipe, weights, used).dense() == pytest.approx(expected, rel=1e-9, abs=1e-12)
    flat = recipe_of(WithStep)
    assert not Hessian(flat, weights, {"first.weight": used["first.weight"]}).dense().any()


class Compiler(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        raise NotImplementedError("no derivative of this kernel")


class WithoutDerivative(WithFunction):
    function = Compiler


def test_what_cannot_be_differentiated_is_one_sentence():
    recipe = recipe_of(WithoutDerivative)
    with pytest.raises(UsageError, match="as curvature needs: no derivative of this kernel"):
        Hessian(recipe, recipe.initial(0)).dense()
    with pytest.raises(UsageError, match=r"the mask has 'body\.1\.running_mean', which is none"):
        Hessian(recipe_of(Normed), recipe_of(Normed).initial(0), {"body.1.running_mean": torch.ones(4)})


def test_a_cut_that_lacks_layers_is_refused():
    recipe = small_recipe()
    weights, mask = recipe.initial(0), masks.ones(recipe)
    with pytest.raises(UsageError, match=r"The cut says nothing of fc1\.weight, .* lotto\.pruning\.prune gives"):
        lotto.landscape.curvature.pruned_block(recipe, weights, mask, {}, progress=False)
