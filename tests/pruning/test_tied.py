"""Tied weights: what is pruned of a shared tensor is pruned under all its names, everywhere, and counts once."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch import nn

import lotto
from conftest import small_recipe
from lotto import Job
from lotto.core.errors import UsageError
from lotto.inference import compact, sparse_rows
from lotto.landscape.curvature.operator import Hessian
from lotto.landscape.path import evaluate_path
from lotto.landscape.plane import PlaneTask
from lotto.landscape.subspace import distance_to, perturb, project
from lotto.lottery import adaptive
from lotto.pruning import masks
from lotto.pruning.masks import Mask
from lotto.pruning.rule import prune
from lotto.pruning.ticket import Ticket
from lotto.training.evaluation import evaluate
from lotto.training.loop import train, train_stack


class Tied(nn.Module):
    """Two tied pairs; of the second the layer that is not prunable comes first or last."""

    def __init__(self, linear_first=True):
        super().__init__()
        self.table = nn.Embedding(6, 12)
        self.one, self.two = nn.Linear(12, 12), nn.Linear(12, 12)
        self.two.weight = self.one.weight
        self.out = nn.Linear(12, 6)
        self.late = nn.Embedding(6, 12)
        (self.late if linear_first else self.table).weight = self.out.weight
        self.spare = nn.Linear(12, 6)

    def forward(self, x):
        hidden = self.two(self.one(x).relu()).relu()
        return self.out(hidden) + self.spare(hidden) + hidden @ self.late.weight.t() + hidden @ self.table.weight.t()


def late():
    return Tied(linear_first=False)


@pytest.fixture(params=[Tied, late])
def recipe(request):
    return small_recipe(model=request.param, init="module", steps="10it")


def twins(recipe):
    return {"two.weight": "one.weight", ("late" if recipe.model is Tied else "table") + ".weight": "out.weight"}


def check(recipe, weights, mask):
    for other, name in twins(recipe).items():
        assert torch.equal(weights[other], weights[name])
        assert not weights[other][~mask[name]].any()
        assert weights[other][mask[name]].all()


def test_a_mask_knows_the_other_names_and_keeps_them(recipe, tmp_path):
    mask = masks.ones(recipe)
    assert set(mask) == {"one.weight", "out.weight", "spare.weight"}
    assert masks.size(mask) == 144 + 72 + 72
    half = prune(recipe.initial(0), mask, 0.5)
    half.save(tmp_path / "m.safetensors")
    for known in (mask, half, masks.random_like(half, 0), pickle.loads(pickle.dumps(half)), Mask(half),
                  Mask.load(tmp_path / "m.safetensors")):  # fmt: skip
        assert known.shared == twins(recipe)
    check(recipe, masks.apply(recipe.initial(0), half), half)
    check(recipe, masks.apply(recipe.initial(0), masks.cover_shared(dict(half), recipe.meta_model())), half)


def test_tickets_load_into_plain_torch(recipe, tmp_path, store):
    result = lotto.imp(recipe, levels=2, rate=0.5, rewind_to="2it", replicates=1, controls=(), jobs=1, store=store)
    ticket = Ticket.load(result.ticket(2).save(tmp_path / "t.safetensors"))
    assert ticket.mask.shared == twins(recipe)
    check(recipe, ticket.start, ticket.mask)
    module = recipe.build()
    module.load_state_dict(dict(ticket.start))
    check(recipe, module.state_dict(), ticket.mask)
    check(recipe, lotto.train(recipe, start=ticket, store=store).weights, ticket.mask)


def test_trained_in_a_stack_too(recipe):
    mask = prune(recipe.initial(0), masks.ones(recipe), 0.5)
    for run in train_stack([Job(recipe, 0, i, mask=mask) for i in (0, 1)]):
        check(recipe, run.weights, mask)


def test_a_mask_of_either_name_or_of_both_is_the_same(recipe):
    mask = prune(recipe.initial(0), masks.ones(recipe), 0.5)
    other = {v: k for k, v in twins(recipe).items()}
    named = {other.get(n, n): m for n, m in mask.items()}
    runs = [train(Job(recipe, mask=Mask(m))) for m in (dict(mask), named, {**mask, **named})]
    for run in runs:
        check(recipe, run.weights, mask)
        assert all(torch.equal(t, runs[0].weights[n]) for n, t in run.weights.items())
    # Pruned under one name is pruned, whatever a mask says under the other.
    some = {**mask, "two.weight": torch.ones(12, 12, dtype=torch.bool)}
    check(recipe, train(Job(recipe, mask=Mask(some))).weights, mask)


def test_projections_and_perturbations(recipe):
    weights = train(Job(recipe)).weights
    mask = prune(weights, masks.ones(recipe), 0.6)
    projected = project(weights, mask)
    check(recipe, projected, mask)
    moved = perturb(weights, mask, 0.7, seed=3)
    check(recipe, moved, mask)
    assert lotto.weights.distance(moved, projected, mask) == pytest.approx(0.7, rel=1e-5)
    pruned = sum(float(weights[n][~m].double().square().sum()) for n, m in mask.items())
    assert distance_to(weights, mask) == pytest.approx(pruned**0.5)
    # Evaluation loads all names, the last one last: they must not disagree.
    ends = evaluate_path(recipe, weights, projected, points=2)
    assert ends.loss["test"][1] == evaluate(recipe, projected).loss


def test_weights_that_disagree_are_refused(recipe):
    weights = recipe.initial(0)
    mask = prune(weights, masks.ones(recipe), 0.5)
    with pytest.raises(UsageError, match=r"are one tensor of the model"):
        evaluate(recipe, masks.apply(weights, dict(mask)))


def test_the_hessian_is_that_of_the_masked_network(recipe):
    recipe = recipe.replace(precision="float64")
    weights = {n: t.double() for n, t in recipe.initial(0).items()}
    mask = prune(weights, masks.ones(recipe), 0.9)
    for given in (mask, dict(mask)):
        hessian = Hessian(recipe, weights, given, examples=40)
        module = hessian.network.module
        check(recipe, module.state_dict(), mask)
        assert hessian.size == masks.count(mask)
    x, y = next(recipe.arrays.evaluation("train", 40))
    names = list(mask)

    def loss(flat):
        state = dict(masks.apply(weights, mask))
        at = 0
        for name in names:
            size = int(mask[name].sum())
            state[name] = state[name].masked_scatter(mask[name], flat[at : at + size])
            at += size
        state |= {other: state[name] for other, name in twins(recipe).items()}
        return nn.functional.cross_entropy(torch.func.functional_call(module, state, (x.double(),)), y)

    point = torch.cat([weights[n][mask[n]] for n in names])
    np.testing.assert_allclose(hessian.dense(), torch.autograd.functional.hessian(loss, point).numpy(), atol=1e-8)


def test_a_plane_measures_a_shared_tensor_once(recipe):
    a, b, c = (recipe.initial(seed) for seed in range(3))
    own = [n for n, _ in recipe.build().named_parameters()]
    length = sum(float((b[n].double() - a[n].double()).square().sum()) for n in own) ** 0.5
    assert PlaneTask(recipe, a, b, c).frame()[0] == pytest.approx(length)


def test_adaptive_cuts_project_under_all_names(recipe, store, monkeypatch):
    seen = []
    monkeypatch.setattr(adaptive, "PathTask", lambda recipe, a, b, *rest, **named: seen.append(b) or PATH(
        recipe, a, b, *rest, **named))  # fmt: skip
    result = lotto.imp(recipe, adaptive=True, density=0.3, replicates=1, controls=(), jobs=1, store=store)
    assert len(result.replicates[0]) >= 1
    assert len(seen) >= 6
    for weights in seen:
        for other, name in twins(recipe).items():
            assert torch.equal(weights[other], weights[name])


PATH = adaptive.PathTask


def test_smaller_forms_of_a_tied_network(recipe):
    weights = recipe.initial(0)
    module = recipe.build().eval()
    module.load_state_dict(masks.apply(weights, prune(weights, masks.ones(recipe), 0.95)))
    x = torch.randn(4, 12)
    for small in (compact(module, x), sparse_rows(module)):
        torch.testing.assert_close(small(x), module(x), rtol=1e-4, atol=1e-5)
