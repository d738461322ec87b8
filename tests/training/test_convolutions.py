"""Residual networks with the batch innermost against float64 autograd, layer by layer and as a whole."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

import lotto
from conftest import same_tensors
from lotto import SGD, Adam, Job
from lotto.core import jit
from lotto.core.errors import DivergedError, UsageError
from lotto.landscape.batchnorm import recompute_statistics
from lotto.models import vgg
from lotto.pruning import masks
from lotto.pruning.rule import prune
from lotto.training import evaluation, loop
from lotto.training.evaluation import evaluate_network
from lotto.training.learners import batchnorm_kernels, conv_kernels, program, vector_blocks
from lotto.training.learners.activations import RELU
from lotto.training.learners.after_layers import Bias, Norm, NormPass, PoolingPass, ShiftPass
from lotto.training.learners.autograd import Autograd
from lotto.training.learners.batch_innermost import Pooling, Shape, Workspace
from lotto.training.learners.conv_layers import DENSE, SPARSE, Convolution, ConvolutionPass
from lotto.training.learners.convolutions import Convolutions
from lotto.training.learners.network_layers import CROSSOVER
from lotto.training.learners.sparse_linear import SPARSE as SPARSE_LINEAR
from lotto.training.learners.team import Team
from lotto.training.loop import learner_of, train
from lotto.training.network import Network, trainable_parameters
from lotto.training.outputs import outputs_of

SIGNALS, TWO, IMAGES = (13,), (2, 13), (3, 9, 7)
"""Shapes of inputs: of odd sizes, so that strided blocks read zeros on one side only."""
ROUNDED = 2.0**-7
"""Of a tensor's largest number: two roundings to bfloat16."""


def recipe_of(shape=SIGNALS, **changes):
    generator = np.random.default_rng(0)
    x = generator.normal(size=(120, *shape)).astype(np.float32)
    y = np.arange(120) % 5
    x += y.reshape(-1, *[1] * len(shape)) / 2
    base = lotto.Recipe(
        model="resnet-14-w5" if len(shape) < 3 else "resnet-8-w5",
        data=lotto.data.Arrays(x[:100], y[:100], x[100:], y[100:], name="noise"),
        optimizer=SGD(0.05, momentum=0.9, weight_decay=1e-3),
        batch_size=20,
        steps="12it",
        evaluations=1,
        device="cpu",
        arithmetic="sparse",  # what is quicker is not to be measured
        name="small",
    )
    return base.replace(**changes)


def masked_job(recipe, density, **how):
    mask = None if density == 1 else prune(recipe.initial(0), masks.ones(recipe), rate=1 - density)
    return Job(recipe, mask=mask, **how)


def made(kind, job):
    state = job.initial_state()
    return kind([job], Network(job.recipe, state.weights), [state])


def after(learner, steps):
    losses = [float(learner.train_step(batch, step)) for step, batch in enumerate(learner.batches(0, steps))]
    return losses, learner.state()


def assert_close(found, expected, tolerance):
    """Up to a share of each tensor's largest number."""
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        scale = float(tensor.double().abs().max()) + 1e-6
        assert float((found[name].double() - tensor.double()).abs().max()) <= tolerance * scale, name


def work_off(instructions, space, values, gradients, running=None, constants=None, threads=1):
    """Run a program over the planes of a workspace."""
    memory, moments, lists, places = space.tables()
    running, constants = (
        np.zeros(0, np.float32) if running is None else running,
        np.zeros((0, 2)) if constants is None else constants,
    )
    rows = program.rows(instructions)
    tables = (moments, lists, places, constants, space.packed, space.means.numpy())
    program.work_off(Team(threads), program.runner(rows), rows, memory, values, gradients, running, *tables)


pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))


@settings(max_examples=60, deadline=None)
@given(
    channels=st.tuples(st.sampled_from([1, 2, 3, 5, 9, 70]), st.integers(1, 9)),
    kernel=pairs,
    stride=pairs,
    padding=st.tuples(st.integers(0, 3), st.integers(0, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    size=st.tuples(st.integers(5, 8), st.integers(5, 9)),
    batch=st.integers(1, 150),
    density=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    rows=st.sampled_from([DENSE, SPARSE]),
    more=st.booleans(),
    half=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_convolution_and_its_gradients_are_autograds(
    channels, kernel, stride, padding, dilation, size, batch, density, rows, more, half, seed
):
    generator = np.random.default_rng(seed)
    inputs, outputs = channels
    shape = Shape(kernel, stride, padding, dilation)
    mask = generator.random((outputs, inputs, *kernel)) < density
    weight = (generator.normal(size=mask.shape) * mask).astype(np.float32)
    found = np.full(weight.size + 3, 7, np.float32)  # what is pruned is never written
    space = Workspace(batch, half)
    x = space.plane(inputs, size, shape.reach(size))
    out = space.plane(outputs, shape.outputs(size))
    given_ = space.plane(outputs, out.size, shape.back_reach(size))
    back = space.plane(inputs, size)
    made = ConvolutionPass(Convolution(shape, 3, mask, rows), space, x, out, given_, back)
    for plane in (x, given_, back):
        plane.view().copy_(torch.from_numpy(generator.normal(size=plane.view().shape)))
    before = back.view().clone().double()
    values = np.concatenate([np.ones(3, np.float32), weight.reshape(-1)])
    instructions = [*made.forward(), *made.weight_gradient(), *made.input_gradient(more)]
    work_off(instructions, space, values, found)
    assert (found[:3] == 7).all()

    slow_x = x.view().permute(3, 0, 1, 2).double().requires_grad_()
    slow_weight = torch.from_numpy(weight).double().requires_grad_()
    expected = F.conv2d(slow_x, slow_weight, None, stride, padding, dilation)
    by_x, by_weight = torch.autograd.grad(expected, (slow_x, slow_weight), given_.view().permute(3, 0, 1, 2).double())
    by_x = by_x.permute(1, 2, 3, 0) + (before if more else 0)
    assert out.view().shape == expected.permute(1, 2, 3, 0).shape
    written = {"out": expected.detach().permute(1, 2, 3, 0), "by x": by_x}
    assert_close({"out": out.view(), "by x": back.view()}, written, ROUNDED if half else 1e-5)
    by_weight = {"by weight": torch.where(torch.from_numpy(mask), by_weight, 7.0)}
    assert_close({"by weight": torch.from_numpy(found[3:]).view(mask.shape)}, by_weight, 1e-5)


@settings(max_examples=40, deadline=None)
@given(
    channels=st.integers(1, 6),
    size=st.tuples(st.integers(1, 4), st.integers(2, 9)),
    batch=st.integers(1, 150),
    add=st.booleans(),
    relu=st.booleans(),
    mean=st.sampled_from([0.0, 100.0]),
    half=st.booleans(),
    seed=st.integers(0, 99),
)
def test_batchnorm_a_sum_and_relu_and_their_gradients_are_autograds(channels, size, batch, add, relu, mean, half, seed):
    assume(size[0] * size[1] * batch >= 8)  # fewer are nearly cancelled by their own statistics
    generator = np.random.default_rng(seed)
    space = Workspace(batch, half)
    x, given_ = space.plane(channels, size), space.plane(channels, size)
    added = space.plane(channels, size, ((1, 0), (0, 2)))
    out, back = space.plane(channels, size, ((0, 1), (1, 1))), space.plane(channels, size, ((0, 1), (0, 1)))
    for plane, shift in ((x, mean), (added, 0), (given_, 0)):
        plane.view().copy_(torch.from_numpy(generator.normal(size=plane.view().shape) + shift))
    weight, bias, running_mean = (generator.normal(size=channels).astype(np.float32) for _ in range(3))
    values, found_ = np.concatenate([weight, bias]), np.empty(2 * channels, np.float32)
    running = np.concatenate([running_mean, np.abs(running_mean) + 1])
    state = {"weight": weight, "bias": bias, "running_mean": running[:channels], "running_var": running[channels:]}

    slow = nn.BatchNorm2d(channels).double()
    slow.load_state_dict({n: torch.from_numpy(a.copy()) for n, a in state.items()}, strict=False)
    slow_x, slow_added, g = (p.view().permute(3, 0, 1, 2).double() for p in (x, added, given_))
    slow_x.requires_grad_(), slow_added.requires_grad_()
    before = slow(slow_x) + (slow_added if add else 0)

    layer = Norm(channels, 0, channels, 0, channels, 1)
    made = NormPass(layer, space, x, added if add else None, out, RELU if relu else None)
    constants = np.array([[7, 7], [0.1, 1e-5]])
    work_off([*made.forward(), *made.backward(given_, back)], space, values, found_, running, constants)
    # What rounding turns to the other side of 0 is not the gradient's fault.
    gate = (out.view().permute(3, 0, 1, 2) > 0).double() if relu else torch.ones_like(g)
    before.backward(g * gate)
    expected = {
        "out": before.detach() * gate,
        "back": slow_x.grad,
        "added": g * gate,
    }
    found = {"out": out.view(), "back": back.view(), "added": given_.view()}
    scale = 2e-5 * (1 + mean)
    assert_close({n: t.permute(3, 0, 1, 2) for n, t in found.items()}, expected, max(scale, ROUNDED) if half else scale)
    assert_close(
        {
            "weight": torch.from_numpy(found_[:channels]),
            "bias": torch.from_numpy(found_[channels:]),
            "mean": torch.from_numpy(running[:channels]),
            "variance": torch.from_numpy(running[channels:]),
        },
        {
            "weight": slow.weight.grad,
            "bias": slow.bias.grad,
            "mean": slow.running_mean,
            "variance": slow.running_var,
        },
        scale * 10,
    )
    for plane in (x, added, out, given_, back):
        plane.view().zero_()
    assert not space.memory.any()  # around all are zeros


@settings(max_examples=30, deadline=None)
@given(
    channels=st.integers(1, 5),
    size=st.tuples(st.integers(1, 6), st.integers(1, 7)),
    block=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    batch=st.sampled_from([1, 7, 16, 40]),
    half=st.booleans(),
    seed=st.integers(0, 99),
)
def test_a_bias_relu_and_pooling_and_their_gradients_are_autograds(channels, size, block, batch, half, seed):
    assume(size[0] >= block[0] and size[1] >= block[1])
    generator, space, pooling = np.random.default_rng(seed), Workspace(batch, half), Pooling(block)
    x, back = space.plane(channels, size), space.plane(channels, size, ((1, 0), (0, 1)))
    middle, middle_given = space.plane(channels, size, ((0, 1), (2, 0))), space.plane(channels, size)
    out, given_ = (space.plane(channels, pooling.outputs(size), ((0, 1), (1, 0))) for _ in range(2))
    x.view().copy_(torch.from_numpy(generator.integers(-2, 3, x.view().shape)))  # many are equal
    given_.view().copy_(torch.from_numpy(generator.normal(size=given_.view().shape)))
    values, found_ = generator.integers(-1, 2, channels).astype(np.float32), np.empty(channels, np.float32)
    bias = ShiftPass(Bias(channels, 0), x, None, middle, RELU)
    pooled = PoolingPass(pooling, middle, out)
    slow_x = x.view().permute(3, 0, 1, 2).double().requires_grad_()
    slow_bias = torch.from_numpy(values).double().requires_grad_()
    expected = F.max_pool2d((slow_x + slow_bias[:, None, None]).relu(), block)
    expected.backward(given_.view().permute(3, 0, 1, 2).double())
    middle_given.view().fill_(7)  # what is left over has the gradient 0
    work_off(
        [
            *bias.forward(),
            *pooled.forward(),
            *pooled.backward(given_, middle_given),
            *bias.backward(middle_given, back),
        ],
        space,
        values,
        found_,
    )
    assert torch.equal(out.view().permute(3, 0, 1, 2).double(), expected)
    assert torch.equal(back.view().permute(3, 0, 1, 2).double(), slow_x.grad)
    torch.testing.assert_close(torch.from_numpy(found_).double(), slow_bias.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_numbers_that_are_none_are_not_lost_by_pooling(batch, half):
    space = Workspace(batch, half)
    x, out = space.plane(2, (2, 4)), space.plane(2, (1, 2))
    made = PoolingPass(Pooling((2, 2)), x, out)
    for place in ((0, 0), (1, 1)):
        x.view().fill_(1.0)[0, place[0], place[1]] = torch.nan
        work_off([*made.forward()], space, np.zeros(0, np.float32), np.zeros(0, np.float32))
        assert out.view()[:, 0].isnan().sum((1, 2)).tolist() == [batch, 0]


@pytest.mark.parametrize("density", [1.0, 0.5, 0.2, 0.05])
@pytest.mark.parametrize("shape", [SIGNALS, TWO, IMAGES], ids=str)
def test_a_step_is_that_of_float64_autograd(shape, density):
    recipe = recipe_of(shape)
    (loss,), ours = after(made(Convolutions, masked_job(recipe, density)), 1)
    exact = masked_job(recipe.replace(precision="float64"), density)
    (expected,), theirs = after(made(Autograd, exact), 1)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_close(ours.weights, theirs.weights, 1e-4)
    assert_close(ours.optimizer, theirs.optimizer, 2e-3)  # a ReLU that rounding turns shows in the gradient


OTHERS = [("conv1d", SIGNALS), ("conv1d", (17,)), ("conv-2", IMAGES), ("conv-4", (1, 10, 8)), ("vgg-11", (2, 6, 7))]
"""Networks with biases, pooling of odd sizes, several linear layers."""


@pytest.fixture
def small_vgg(monkeypatch):
    monkeypatch.setitem(vgg.PLANS, 11, ((5, 1), (9, 2), (6, 1)))


@pytest.mark.parametrize("density", [1.0, 0.3, 0.02])
@pytest.mark.parametrize(("model", "shape"), OTHERS, ids=str)
def test_a_step_of_another_network_is_that_of_float64_autograd(model, shape, density, small_vgg):
    recipe = recipe_of(shape, model=model)
    job = masked_job(recipe, density)
    assert Convolutions.supports([Job(recipe)], Network(recipe, job.initial_state().weights))
    (loss,), ours = after(made(Convolutions, job), 1)
    (expected,), theirs = after(made(Autograd, masked_job(recipe.replace(precision="float64"), density)), 1)
    assert loss == pytest.approx(expected, rel=1e-5)
    assert_close(ours.weights, theirs.weights, 1e-4)
    assert_close(ours.optimizer, theirs.optimizer, 2e-3)
    for name, mask in (job.mask or {}).items():
        (moments,) = (t for n, t in ours.optimizer.items() if n.startswith(name) and t.shape == mask.shape)
        assert not moments[~mask].any()


@pytest.fixture
def quick(monkeypatch):
    """Kernels evaluate images, too, whatever processor this is."""
    monkeypatch.setattr(vector_blocks, "WIDE", True)


@pytest.mark.parametrize(("model", "shape"), OTHERS, ids=str)
def test_outputs_of_another_network_are_its_own(model, shape, small_vgg, quick):
    recipe = recipe_of(shape, model=model)
    network = Network(recipe, train(masked_job(recipe, 0.3)).weights)
    network.module.eval()
    by_kernels = outputs_of(recipe, network)
    assert by_kernels is not network
    x = torch.cat([recipe.arrays.x["train"]] * 2)  # more than a chunk
    with torch.no_grad():
        torch.testing.assert_close(by_kernels(x), network(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("density", [1.0, 0.1])
def test_a_training_is_that_of_float64_autograd(monkeypatch, density):
    recipe, distances = recipe_of(steps="30it", optimizer=SGD(0.01, momentum=0.9, weight_decay=1e-3)), []
    for seed in range(3):
        ours = train(masked_job(recipe, density, order_seed=seed))
        with monkeypatch.context() as patch:
            patch.setattr(loop, "LEARNERS", (Autograd,))
            theirs = train(masked_job(recipe.replace(precision="float64"), density, order_seed=seed))
        one, other = (torch.cat([t.double().flatten() for t in run.weights.values()]) for run in (ours, theirs))
        distances.append(float((one - other).norm() / other.norm()))
        if distances[-1] < 1e-6:
            assert ours.history[-1]["train_loss"] == pytest.approx(theirs.history[-1]["train_loss"], rel=1e-5)
            assert ours.test_loss == pytest.approx(theirs.test_loss, rel=1e-5)
    assert sorted(distances)[1] < 1e-6  # a ReLU that rounding turns to the other side leads one of them away
    assert list(ours.weights) == list(theirs.weights)
    assert int(ours.weights["bn.num_batches_tracked"]) == 30


def test_a_state_has_the_names_types_and_shapes_of_autograds():
    job = masked_job(recipe_of(optimizer=Adam(1e-2)), 0.3)
    ours, theirs = (after(made(kind, job), 2)[1] for kind in (Convolutions, Autograd))
    for one, other in ((ours.weights, theirs.weights), (ours.optimizer, theirs.optimizer)):
        assert {n: (t.dtype, t.shape) for n, t in one.items()} == {n: (t.dtype, t.shape) for n, t in other.items()}


@pytest.mark.parametrize("optimizer", [SGD(0.05, momentum=0.9, nesterov=True, weight_decay=1e-2), Adam(1e-2)], ids=repr)
@pytest.mark.parametrize("density", [0.7, 0.05])
def test_pruned_weights_and_moments_are_zero_after_every_step(optimizer, density):
    job = masked_job(recipe_of(optimizer=optimizer), density)
    learner = made(Convolutions, job)
    for step, batch in enumerate(learner.batches(0, 6)):
        learner.train_step(batch, step)
        state = learner.state()
        for name, mask in job.mask.items():
            assert not state.weights[name][~mask].any()
            moments = [t for n, t in state.optimizer.items() if n.startswith(name) and t.shape == mask.shape]
            assert moments
            assert not any(t[~mask].any() for t in moments)
            assert density < 0.5 or all(t[mask].any() for t in moments)


@pytest.mark.parametrize("optimizer", [SGD(0.05, momentum=0.9), Adam(1e-2)], ids=repr)
@pytest.mark.parametrize("density", [1.0, 0.1])
def test_a_resumed_and_a_forked_training_have_the_same_bits(optimizer, density):
    job = masked_job(recipe_of(optimizer=optimizer), density, keep=(5,))
    whole, points = train(job), []
    train(job, on_checkpoint=lambda point: points.append(copy.copy(point)), checkpoint_seconds=0.0)
    assert [point.step for point in points] == list(range(1, 12))
    for point in points[::3]:
        assert same_tensors(train(job, resume=point).weights, whole.weights)
    fork = train(Job(job.recipe, mask=job.mask, start=whole.state(5), from_step=5))
    assert same_tensors(fork.weights, whole.weights)
    assert same_tensors(fork.state(12).optimizer, whole.state(12).optimizer)


@pytest.mark.parametrize("density", [1.0, 0.3])
@pytest.mark.parametrize(("model", "shape"), [("resnet-14-w5", SIGNALS), *OTHERS[2:]], ids=str)
def test_the_same_bits_every_time_and_with_any_number_of_threads(model, shape, density, small_vgg):
    job = masked_job(recipe_of(shape, model=model), density, keep=(4,))
    first = train(job)
    for threads in (2, 3, 7):  # more than a layer has outputs
        torch.set_num_threads(threads)
        run = train(job)
        assert same_tensors(run.weights, first.weights)
        assert same_tensors(run.state(4).optimizer, first.state(4).optimizer)


@pytest.mark.parametrize("sizes", [(20, 7, 20, 1, 16)])
def test_batches_of_unequal_size(sizes):
    job = masked_job(recipe_of(), 0.3)
    ours, theirs = made(Convolutions, job), made(Autograd, masked_job(recipe_of(precision="float64"), 0.3))
    x, y = recipe_of().arrays.x["train"], recipe_of().arrays.y["train"]
    for step, size in enumerate(sizes):
        one = ours.train_step((x[:size].t().contiguous(), y[:size]), step)
        other = theirs.train_step((x[:size], y[:size]), step)
        assert float(one) == pytest.approx(float(other), rel=1e-4)
    assert_close(ours.state().weights, theirs.state().weights, 1e-3)


def test_what_trained_is_recorded():
    assert train(masked_job(recipe_of(), 1.0)).arithmetic == "convolutions, 0 of 16 layers sparse"
    job = masked_job(recipe_of(), 0.05)
    below = {3: CROSSOVER, 2: SPARSE_LINEAR}
    sparse = sum(float(m.float().mean()) < below[m.dim()] for m in job.mask.values())
    assert sparse > 10
    assert train(job).arithmetic == f"convolutions, {sparse} of 16 layers sparse"


def test_another_loss():
    recipe = recipe_of(loss="mse", error="mse")
    (loss,), _ = after(made(Convolutions, Job(recipe)), 1)
    (expected,), _ = after(made(Autograd, Job(recipe)), 1)
    assert loss == pytest.approx(expected, rel=1e-5)


def test_numbers_that_are_none_stop_the_training():
    with pytest.raises(DivergedError):
        train(Job(recipe_of(optimizer=SGD(1e30, momentum=0.9), steps="100it")))


def kind_of(recipe, mask=None, change=lambda module: None):
    job = Job(recipe, mask=mask)
    network = Network(recipe, job.initial_state().weights)
    change(network.module)
    return next(kind for kind in loop.LEARNERS if kind.supports([job], network))


def test_networks_of_one_dimension_are_trained_here():
    assert kind_of(recipe_of()) is Convolutions
    assert kind_of(recipe_of(TWO)) is Convolutions
    preset = lotto.recipes.get("resnet20-mnist1d").replace(data=recipe_of((40,)).data, device="cpu", batch_size=100)
    assert type(learner_of([Job(preset)])) is Convolutions


def freeze(module):
    module.blocks[0].conv1.weight.requires_grad_(False)


def hook(module):
    module.blocks[0].register_forward_hook(lambda *_: None)


def parametrised(module):
    nn.utils.parametrizations.weight_norm(module.blocks[0].conv1)


def tied(module):
    module.blocks[0].conv2.weight = module.blocks[0].conv1.weight


def cumulative(module):
    module.bn.momentum = None


def circular(module):
    module.conv.padding_mode = "circular"


CHANGES = [freeze, hook, parametrised, tied, cumulative, circular]


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_a_network_that_someone_has_changed_is_not(change):
    assert kind_of(recipe_of(), change=change) is Autograd


@pytest.mark.parametrize(
    "changes",
    [
        {"arithmetic": "dense"},
        {"precision": "float64"},
        {"compile": True},
        {"loss": F.cross_entropy},
        {"model": "mlp-4"},
        {"batch_size": 1, "data": recipe_of((4,)).data},  # one number in each channel has no variance
    ],
    ids=lambda changes: "-".join(changes),  # the same in every process
)
def test_other_computations_are_not(changes):
    assert kind_of(recipe_of(**changes)) is not Convolutions


def test_a_mask_of_a_vector_is_not():
    mask = lotto.Mask({"bn.weight": torch.tensor([True, False, True, True, True])})
    assert kind_of(recipe_of(), mask) is Autograd


def trained_network(density=1.0, shape=SIGNALS, precision="float32"):
    recipe = recipe_of(shape, precision=precision)
    weights = train(masked_job(recipe_of(shape), density)).weights
    return recipe, Network(recipe, weights)


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("shape", [SIGNALS, TWO, IMAGES], ids=str)
def test_outputs_by_kernels_are_those_of_the_network(shape, density, quick):
    recipe, network = trained_network(density, shape)
    _, exact = trained_network(density, shape, "float64")
    by_kernels = outputs_of(recipe, network)
    assert by_kernels is not network
    x = torch.cat([recipe.arrays.x["train"], recipe.arrays.x["test"], recipe.arrays.x["train"]])  # more than a chunk
    with torch.no_grad():
        found, expected = by_kernels(x), exact.with_module(exact.module.eval())(x.double())
        torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
        assert torch.equal(found[130:137], by_kernels(x[130:137])), "an example's outputs depend on no other"


def test_an_evaluation_is_by_kernels_and_sees_the_present_weights(monkeypatch):
    recipe, network = trained_network()
    before = evaluate_network(recipe, network, "test")
    network.load(recipe.initial(1))
    after_ = evaluate_network(recipe, network, "test")
    assert before != after_
    monkeypatch.setattr(evaluation, "outputs_of", lambda recipe, network: network)
    assert evaluate_network(recipe, network, "test").loss == pytest.approx(after_.loss, rel=1e-5)


@pytest.mark.parametrize("density", [1.0, 0.1])
@pytest.mark.parametrize("batch", [None, 30], ids=["one batch", "several"])
def test_statistics_by_kernels_are_those_of_the_network(density, batch):
    recipe, network = trained_network(density)
    exact, slow = trained_network(density, precision="float64")
    for one, other in ((recipe, network), (exact, slow)):
        recompute_statistics(one.replace(eval_batch_size=batch), other)
    found, expected = network.module.state_dict(), slow.module.state_dict()
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name].to(tensor.dtype), tensor, rtol=1e-4, atol=1e-5)
    assert not network.module.training


def test_statistics_that_are_no_numbers_are_refused():
    recipe, network = trained_network()
    network.module.conv.weight.data.fill_(1e30)
    with pytest.raises(UsageError, match="not finite"):
        recompute_statistics(recipe, network)


@pytest.mark.parametrize("change", CHANGES, ids=lambda f: f.__name__)
def test_outputs_of_a_network_that_someone_has_changed_are_its_own(change):
    recipe, network = trained_network()
    change(network.module)
    assert (outputs_of(recipe, network) is network) == (change is not freeze)  # what is frozen has the same outputs


def test_outputs_in_other_precisions_are_the_networks_own():
    for recipe in (recipe_of(precision="bfloat16"), recipe_of(precision="float64")):
        network = Network(recipe, recipe.initial(0))
        assert outputs_of(recipe, network) is network


def test_inputs_of_another_shape_are_the_networks_own():
    recipe, network = trained_network()
    network.module.eval()
    with torch.no_grad():
        x = torch.randn(3, 1, 17)
        assert torch.equal(outputs_of(recipe, network)(x), network(x))


def test_compiled_kernels_are_kept_on_disk():
    for run in map(program.runner, (program.rows([]), program.rows([program.row(program.POOL)]))):
        assert run.stats.cache_path
        # Only where all that it calls is part of what tells editions apart.
        assert program.edition() in [cell.cell_contents for cell in run.py_func.__closure__]
    assert not any(
        hasattr(f.stats, "cache_path") and f.stats.cache_path
        for f in (conv_kernels.correlate, batchnorm_kernels.normalise)
    )


def test_functions_are_compiled_where_nothing_can_be_kept(monkeypatch):
    import numba

    tried = []

    def njit(signature, cache=False, **options):
        tried.append(cache)
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return lambda function: function

    monkeypatch.setattr(numba, "njit", njit)
    assert jit.jit(abs) is abs
    assert tried == [True, False]


def test_names_of_parameters_are_the_modules():
    learner = made(Convolutions, Job(recipe_of()))
    assert list(learner.parameters) == list(trainable_parameters(learner.network.module))
