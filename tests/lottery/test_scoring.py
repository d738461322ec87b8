"""Scores that read the network: against float64 by hand, remembered, and refused before training where they are wrong."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import lotto
from conftest import same_tensors, small_arrays, small_recipe
from lotto import Job
from lotto.core.errors import UsageError
from lotto.core.rng import derived_seed, stream
from lotto.execution.engine import JobFinished
from lotto.execution.processes import Processes
from lotto.execution.serial import Serial
from lotto.lottery.plan import make_plan
from lotto.lottery.scoring import ScoreTask, score_task, score_weights, unpacked
from lotto.pruning import masks
from lotto.training.loop import train


def snip(context):
    """|w * dL/dw| (Lee et al., 1810.02340)."""
    gradients = context.gradients()
    scores = {}
    for name, weight in context.weights.items():
        scores[name] = (weight * gradients[name]).abs()
    return scores


@pytest.fixture
def engine(store):
    return Serial(store)


def by_hand(recipe, weights):
    """The network in float64, its loss over the whole training set, and the prunable parameters by name."""
    module = recipe.build().double().eval()
    module.load_state_dict({n: t.double() for n, t in weights.items()})
    x, y = recipe.arrays.x["train"].double(), recipe.arrays.y["train"]
    named = dict(module.named_parameters())
    return module, F.cross_entropy(module(x), y), {n: named[n] for n in masks.ones(recipe)}


def half(recipe, seed=3):
    weights = recipe.initial(seed)
    return weights, lotto.pruning.prune(weights, masks.ones(recipe), 0.5)


def test_snip_is_the_product_of_weight_and_gradient_in_float64(engine):
    recipe = small_recipe(precision="float64")
    weights, mask = half(recipe)
    got = score_weights(recipe, weights, mask, snip, engine=engine)
    _, loss, parameters = by_hand(recipe, masks.apply(weights, mask))
    gradients = torch.autograd.grad(loss, list(parameters.values()))
    for (name, weight), gradient in zip(parameters.items(), gradients, strict=True):
        expected = (weight * gradient).abs().detach() * mask[name]
        assert float(expected.max()) > 0
        assert torch.allclose(got[name], expected, rtol=1e-6, atol=1e-12), name
        assert not got[name][~mask[name]].any()


def test_the_hessians_product_is_that_of_the_kept_weights(engine):
    recipe = small_recipe(precision="float64", model="mlp-8-6")
    weights, mask = half(recipe)
    direction = {n: torch.from_numpy(np.random.default_rng(0).normal(size=m.shape)) for n, m in mask.items()}

    def product(context):
        return context.hvp(direction)

    got = score_weights(recipe, weights, mask, product, engine=engine)
    _, loss, parameters = by_hand(recipe, masks.apply(weights, mask))
    first = torch.autograd.grad(loss, list(parameters.values()), create_graph=True)
    inner = sum((g * direction[n] * mask[n]).sum() for g, n in zip(first, parameters, strict=True))
    for name, expected in zip(parameters, torch.autograd.grad(inner, list(parameters.values())), strict=True):
        assert torch.allclose(got[name], expected * mask[name], rtol=1e-5, atol=1e-9), name


def test_activations_are_the_inputs_of_the_layers_over_an_epoch_of_training_batches(engine):
    recipe = small_recipe(precision="float64")
    weights, mask = half(recipe)

    def wanda(context):  # Sun et al., 2306.11695
        squares = dict.fromkeys(context.mask, 0.0)
        for inputs in context.activations():
            for name, x in inputs.items():
                squares[name] = squares[name] + x.square().sum(0)
        return {name: w.abs() * squares[name].sqrt() for name, w in context.weights.items()}

    got = score_weights(recipe, weights, mask, wanda, engine=engine)
    module, _, parameters = by_hand(recipe, masks.apply(weights, mask))
    x = recipe.arrays.x["train"].double()  # 240 examples are 12 whole batches
    layers = [part for part in module.modules() if isinstance(part, nn.Linear)]
    for name, layer in zip(parameters, layers, strict=True):
        assert torch.allclose(got[name], layer.weight.abs() * x.norm(dim=0), rtol=1e-9), name
        x = layer(x).relu()


def test_a_score_may_run_the_model_on_its_batches_itself(engine):
    recipe = small_recipe(precision="float64")
    weights, mask = half(recipe)

    def first_batch(context):
        x, y = next(iter(context.batches))
        context.loss(context.model(x), y).backward()
        named = dict(context.model.named_parameters())
        return {name: (named[name] * named[name].grad).abs() for name in context.mask}

    got = score_weights(recipe, weights, mask, first_batch, seed=4, engine=engine)
    module, _, parameters = by_hand(recipe, masks.apply(weights, mask))
    x, y = next(iter(recipe.arrays.batches(4, 0, 1, 20, None)))
    loss = F.cross_entropy(module(x.double()), y)
    for (name, w), g in zip(parameters.items(), torch.autograd.grad(loss, list(parameters.values())), strict=True):
        assert torch.allclose(got[name][mask[name]], (w * g).abs()[mask[name]], rtol=1e-9), name


def test_imp_by_snip_is_a_loop_by_hand_and_remembered(engine):
    recipe = small_recipe()
    events: list = []
    options = {"levels": 2, "rate": 0.3, "rewind_to": "7it", "replicates": 1, "controls": (), "engine": engine}
    result = lotto.imp(recipe, score=snip, seed=5, progress=events.append, **options)
    assert sum(isinstance(e, JobFinished) for e in events) == result.plan.jobs == 5
    dense = train(Job(recipe, init_seed=5, order_seed=5, keep=(7,)))
    mask, run = masks.ones(recipe), dense
    for level in result.replicates[0][1:]:
        before = masks.count(mask)
        _, loss, parameters = by_hand(recipe, run.weights)
        gradients = torch.autograd.grad(loss, list(parameters.values()))
        products = {n: (w * g).abs().detach() for (n, w), g in zip(parameters.items(), gradients, strict=True)}
        kept = torch.cat([products[n][mask[n]] for n in mask]).sort(descending=True).values
        wanted = before - round(0.3 * before)
        assert masks.count(level.mask) == wanted
        lowest = float(kept[wanted - 1])
        for n in mask:  # to the rounding of float32 gradients at the threshold
            assert not (level.mask[n] & (products[n] < lowest * 0.999)).any()
        mask = level.mask
        run = train(Job(recipe, order_seed=5, start=dense.state(7).without_optimizer, mask=mask, from_step=7))
        assert same_tensors(level.run.weights, run.weights)
    magnitude = lotto.imp(recipe, seed=5, **options)
    assert not same_tensors(magnitude.replicates[0][1].mask, result.replicates[0][1].mask)
    again: list = []
    lotto.imp(recipe, score=snip, seed=5, progress=again.append, **options)
    assert not any(e.trained for e in again if isinstance(e, JobFinished))


def test_scores_in_worker_processes_are_the_same_bits(store, tmp_path):
    options = {"levels": 1, "replicates": 2, "controls": (), "score": snip}
    one = lotto.imp(small_recipe(), engine=Serial(store), **options)
    other = lotto.imp(small_recipe(), engine=Processes(lotto.Store(tmp_path / "other"), 1), **options)
    for a, b in zip(one.replicates, other.replicates, strict=True):
        assert same_tensors(a[1].mask, b[1].mask)


def test_adaptive_pruning_computes_a_score_once_for_all_its_cuts(engine):
    events: list = []
    lotto.imp(
        small_recipe(tolerance=100.0), levels=2, replicates=1, controls=(), adaptive=True, score=snip, engine=engine,
        progress=events.append,
    )  # fmt: skip
    scored = [e for e in events if isinstance(e, JobFinished) and isinstance(e.job, ScoreTask)]
    assert len(scored) > 2
    assert sum(e.trained for e in scored) == len({e.job.key for e in scored}) <= 2


def test_a_key_covers_the_code_of_the_score_and_all_that_it_is_given():
    recipe = small_recipe()
    weights, mask = half(recipe)
    factor = 1.0

    def scaled(context):
        return {n: factor * g.abs() for n, g in context.gradients().items()}

    base = score_task(recipe, scaled, weights, mask, weights, seed=1)
    assert base.key == score_task(recipe, scaled, dict(weights), mask, weights, 1, "another label").key
    assert base.key == score_task(small_recipe(steps="2ep", optimizer__lr=0.3), scaled, weights, mask, weights, 1).key
    others = [
        score_task(recipe, snip, weights, mask, weights, 1),
        score_task(recipe, scaled, recipe.initial(9), mask, weights, 1),
        score_task(recipe, scaled, weights, masks.ones(recipe), weights, 1),
        score_task(recipe, scaled, weights, mask, recipe.initial(9), 1),
        score_task(recipe, scaled, weights, mask, weights, 2),
        score_task(small_recipe(batch_size=30), scaled, weights, mask, weights, 1),
        score_task(small_recipe(data=small_arrays(1)), scaled, weights, mask, weights, 1),
    ]
    factor = 2.0
    others.append(score_task(recipe, scaled, weights, mask, weights, 1))
    assert len({base.key, *(task.key for task in others)}) == len(others) + 1
    assert None not in {task.key for task in others}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.float16])
def test_scores_come_back_from_a_store_exactly(engine, dtype):
    recipe = small_recipe()
    weights, mask = half(recipe)

    def drawn(context):
        assert context.model is not None
        values = {n: torch.from_numpy(context.generator(n).normal(size=m.shape)) for n, m in context.mask.items()}
        return {n: (1000 * v).to(dtype) for n, v in values.items()}

    task = score_task(recipe, drawn, weights, mask, seed=8)
    computed = unpacked(task.execute(), mask)
    (stored,) = engine.run([task])
    for name, score in unpacked(stored, mask).items():
        expected = torch.from_numpy(1000 * stream(8, f"score:{name}").normal(size=mask[name].shape)).to(dtype)
        assert score.dtype == dtype
        assert torch.equal(score, computed[name])
        assert torch.equal(score[mask[name]], expected[mask[name]])


def test_a_score_of_weights_alone_is_computed_at_once(engine):
    def lamp(context):
        return {n: w.square() / w.square().sum() for n, w in context.weights.items()}

    recipe, events = small_recipe(), []
    result = lotto.imp(recipe, levels=1, replicates=1, controls=(), score=lamp, engine=engine, progress=events.append)
    assert not any(isinstance(e.job, ScoreTask) for e in events if isinstance(e, JobFinished))
    dense = result.replicates[0][0].run.weights
    scores = {n: dense[n].double().square() / dense[n].double().square().sum() for n in masks.ones(recipe)}
    lowest = torch.cat([scores[n][result.replicates[0][1].mask[n]] for n in scores]).min()
    highest = torch.cat([scores[n][~result.replicates[0][1].mask[n]] for n in scores]).max()
    assert highest <= lowest * (1 + 1e-6)


def test_layer_functions_and_their_random_numbers_are_those_of_before(engine):
    def mixed(weight, start, generator):
        return weight.abs() + torch.from_numpy(generator.random(tuple(weight.shape)))

    recipe = small_recipe()
    options = {"levels": 1, "replicates": 1, "controls": (), "engine": engine, "rewind_to": "3it"}
    result = lotto.imp(recipe, score=mixed, **options)
    dense = result.replicates[0][0].run
    expected = lotto.pruning.prune(
        dense.weights, masks.ones(recipe), 0.2, mixed, start=dense.at(3), seed=derived_seed(0, "pruning", 1)
    )
    assert same_tensors(result.replicates[0][1].mask, expected)
    assert same_tensors(lotto.imp(recipe.replace(pruning__score=mixed), **options).replicates[0][1].mask, expected)


def test_tied_frozen_and_normalised_networks_have_scores():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 6)
            self.norm = nn.BatchNorm1d(12)
            self.b.weight = self.a.weight
            self.frozen = nn.Linear(12, 12)
            self.frozen.weight.requires_grad_(False)

        def forward(self, x):
            return self.c(self.norm(self.frozen(self.b(self.a(x).relu()))).relu())

    recipe = small_recipe(model=Tied, init="module")
    weights, mask = recipe.initial(0), masks.ones(recipe)
    got = score_weights(recipe, weights, mask, lambda context: context.gradients())
    assert set(got) == set(mask)
    _, loss, parameters = by_hand(recipe, weights)
    expected = torch.autograd.grad(loss, list(parameters.values()))
    for (name, _), gradient in zip(parameters.items(), expected, strict=True):
        assert torch.allclose(got[name], gradient, rtol=1e-3, atol=1e-5), name


def test_what_a_score_does_to_its_tensors_is_its_own_affair(engine):
    def rough(context):
        found = {n: w.abs() for n, w in context.weights.items()}
        for tensors in (context.weights, context.start, dict(context.model.named_parameters())):
            for tensor in tensors.values():
                tensor.data.zero_()
        gradients = context.gradients()
        assert all(g.any() for g in gradients.values())
        return found

    recipe = small_recipe()
    result = lotto.imp(recipe, levels=2, replicates=1, controls=(), score=rough, engine=engine)
    usual = lotto.imp(recipe, levels=2, replicates=1, controls=(), engine=engine)
    assert same_tensors(result.replicates[0][2].run.weights, usual.replicates[0][2].run.weights)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (lambda context: {n: g * float("nan") for n, g in context.gradients().items()}, r"is NaN for 288 of the 288"),
        (lambda context: {"fc1.weight": context.gradients()["fc1.weight"]}, r"has nothing for 'fc2\.weight'"),
        (lambda context: {n: g.sum() for n, g in context.gradients().items()}, r"of the weight's shape \(24, 12\)"),
        (lambda context: {**context.gradients(), "fc9.weight": 1}, r"'fc9\.weight', which is no prunable weight"),
        (lambda context: context.gradients()["fc9.weight"], r"cannot be computed: KeyError"),
        (lambda context: sum(g.sum() for g in context.gradients().values()), r"returns a dict of tensors by name"),
        (lambda context: {n: [1.0] for n in context.gradients()}, r"A score is a tensor of real numbers"),
        (lambda weight, generator: weight, r"function of one context, or of \(weight, start, generator\)"),
        (lambda context, *, samples: {}, r"function of one context, or of \(weight, start, generator\)"),
        ("snap", r"Unknown score 'snap'\. Choices: grasp, magnitude, magnitude-increase, random, snip, synflow"),
        ("no.such:snip", r"The score 'no\.such:snip' cannot be imported \(ModuleNotFoundError"),
        ("lotto.pruning.scores:snap", r"cannot be imported \(AttributeError"),
        ("lotto.pruning.scores:ENTRY_POINTS", r"function of one context, or of .* is 'lotto.scores'"),
    ],
)
def test_a_wrong_score_is_named_before_any_training(wrong, said):
    with pytest.raises(UsageError, match=said):
        make_plan(small_recipe(), score=wrong)


def test_a_score_that_becomes_nan_in_training_ends_in_a_sentence(engine):
    def late(context):
        bad = float("nan") if any(not torch.equal(w, context.start[n]) for n, w in context.weights.items()) else 1.0
        return {n: bad * g for n, g in context.gradients().items()}

    with pytest.raises(UsageError, match=r"'.*late' is NaN for 288 of the 288 weights kept of 'fc1\.weight'"):
        lotto.imp(small_recipe(), levels=1, replicates=1, score=late, engine=engine)


def test_pruning_without_a_recipe_says_where_such_a_score_goes():
    recipe = small_recipe()
    with pytest.raises(UsageError, match=r"lotto\.imp\(recipe, score=\.\.\.\)"):
        lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), score=snip)
    scores = score_weights(recipe, recipe.initial(0), score=snip)
    assert masks.density(lotto.pruning.prune(recipe.initial(0), masks.ones(recipe), 0.5, scores)) == 0.5


def test_a_score_whose_code_cannot_be_covered_is_not_remembered():
    def clocked(context):
        import time

        time.time()
        return {n: g.abs() for n, g in context.gradients().items()}

    recipe = small_recipe()
    task = score_task(recipe, clocked, *half(recipe))
    assert task.key is None
    assert "time" in task.not_cacheable


def test_allocations_of_imp(engine):
    recipe = small_recipe()
    options = {"levels": 1, "rate": 0.5, "replicates": 1, "controls": (), "engine": engine}

    def keep_the_last_layer(mask, total):
        *others, last = mask
        left = total - int(mask[last].sum())
        share = {n: left * int(mask[n].sum()) // sum(int(mask[o].sum()) for o in others) for n in others}
        share[others[0]] += left - sum(share.values())
        return {**share, last: int(mask[last].sum())}

    own = lotto.imp(recipe, allocation=keep_the_last_layer, **options).replicates[0][1].mask
    assert masks.count(own) == round(0.5 * masks.size(own))
    assert bool(own["fc3.weight"].all())
    layered = lotto.imp(recipe, allocation="layer", **options).replicates[0][1].mask
    assert same_tensors(layered, lotto.imp(recipe.replace(pruning__scope="layer"), **options).replicates[0][1].mask)
    assert {int(m.sum()) / m.numel() for m in layered.values()} == {0.5}
    with pytest.raises(UsageError, match="Unknown allocation 'layers'"):
        make_plan(recipe, allocation="layers")
    with pytest.raises(UsageError, match="keeps 3 weights of"):
        make_plan(recipe, allocation=lambda mask, total: dict.fromkeys(mask, 1))


def test_activations_of_convolutions_with_batchnorm_are_those_of_evaluation_and_of_every_call(engine):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.head = nn.Conv1d(1, 3, 3, padding=1), nn.BatchNorm1d(3), nn.Linear(12, 6)
            self.mix = nn.Conv1d(3, 3, 1)

        def forward(self, x):
            x = self.norm(self.conv(x.unsqueeze(1))).relu()
            return self.head(self.mix(self.mix(x)).mean(1))

    recipe = small_recipe(model=Net, precision="float64", init="module")
    weights, mask = recipe.initial(1), masks.ones(recipe)
    weights |= {"norm.running_mean": torch.tensor([0.5, -0.5, 1.0]), "norm.running_var": torch.tensor([2.0, 0.5, 1.0])}

    def energy(context):
        found = dict.fromkeys(context.mask, 0.0)
        for inputs in context.activations():
            found = {n: found[n] + x.square().sum() for n, x in inputs.items()}
        return {n: found[n] * torch.ones_like(w.double()) for n, w in context.weights.items()}

    got = score_weights(recipe, weights, mask, energy, engine=engine)
    net = recipe.build().double().eval()
    net.load_state_dict({n: t.double() if t.is_floating_point() else t for n, t in weights.items()})
    x = recipe.arrays.x["train"].double().unsqueeze(1)
    first = net.norm(net.conv(x)).relu()
    second = net.mix(first)
    expected = {
        "conv.weight": x.square().sum(),
        "mix.weight": first.square().sum() + second.square().sum(),
        "head.weight": net.mix(second).mean(1).square().sum(),
    }
    assert set(got) == set(expected)
    for name, value in expected.items():
        assert float(got[name].flatten()[0]) == pytest.approx(float(value.detach()), rel=1e-9), name
