"""Paths and curvature of a loop of one's own: those of the same training as a recipe, and of a slow reference."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import lotto
from conftest import small_arrays, small_recipe
from lotto import papers
from lotto.core.errors import UsageError
from lotto.execution.serial import Serial
from lotto.landscape import PathTask, evaluate_path, evaluate_plane, instability
from lotto.landscape.batchnorm import recompute_statistics
from lotto.landscape.curvature import Hessian, SpectrumTask, limits, spectrum, top
from lotto.pruning import masks
from lotto.training.network import Network


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 8), nn.Tanh(), nn.Linear(8, 6))

    def forward(self, x):
        return self.body(x)


class Normed(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.BatchNorm1d(6))

    def forward(self, x):
        return self.body(x)


STEPS, SIZE = 12, 20


def fit(model, *, start_step, seed):
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    for x, y in small_arrays().batches(seed, start_step, STEPS, SIZE):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return {"error": evaluate(model.eval(), "test")["error"]}


def evaluate(model, split):
    data = small_arrays()
    with torch.no_grad():
        outputs, y = model(data.x[split]), data.y[split]
    return {
        "error": 100 * (outputs.argmax(1) != y).double().mean(),
        "loss": nn.functional.cross_entropy(outputs, y),
        "seen": len(y),
    }


def evaluate_test(model):
    return evaluate(model, "test")


def loss(model, batch):
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"])


def batches(sizes=(100, 100, 40)):
    data, at = small_arrays(), 0
    for size in sizes:
        yield {"x": data.x["train"][at : at + size], "y": data.y["train"][at : at + size]}
        at += size


def own(model=Net, **changes):
    given = {"fit": fit, "evaluate": evaluate, "loss": loss, "batches": batches, **changes}
    return lotto.Trainable(model, given.pop("fit"), **given)


def usual(model=Net):
    return small_recipe(model=model, init="module", schedule=lotto.Constant(), steps=f"{STEPS}it", batch_size=SIZE)


@pytest.fixture(scope="module")
def ends():
    return [dict(lotto.train(usual(), 0, order, store=None).weights) for order in (0, 1)]


def test_the_path_and_the_plane_are_those_of_the_same_recipe(ends):
    for batchnorm in ("interpolate", "recompute"):  # without BatchNorm the same
        found, expected = (
            evaluate_path(recipe, *ends, points=5, splits=("train", "test"), batchnorm=batchnorm, store=None)
            for recipe in (own(), usual())
        )
        assert found.alphas == expected.alphas
        for split in ("train", "test"):
            np.testing.assert_allclose(found.error[split], expected.error[split], rtol=1e-6)
            np.testing.assert_allclose(found.loss[split], expected.loss[split], rtol=1e-4)
    third = usual().initial(3)
    planes = [evaluate_plane(recipe, *ends, third, points=3, store=None) for recipe in (own(), usual())]
    np.testing.assert_allclose(planes[0].loss, planes[1].loss, rtol=1e-4)
    assert lotto.evaluate(own(), ends[0]).error == pytest.approx(lotto.evaluate(usual(), ends[0]).error)


def test_instability_is_that_of_the_same_recipe(store):
    found, expected = (instability(r, "3it", points=5, store=store, jobs=1) for r in (own(tolerance=5.0), usual()))
    assert found.errors == pytest.approx(expected.errors)
    assert found.barrier("train", "loss").values == pytest.approx(expected.barrier("train", "loss").values, abs=1e-4)
    assert list(found.paths) == ["interpolate"]


def slow_hessian(weights, mask):
    """Over the kept weights, in float64, of the mean loss of all training examples at once."""
    data = small_arrays()
    module = Net().double()
    module.load_state_dict({n: w.double() for n, w in masks.apply(weights, mask).items()})
    x, y = data.x["train"].double(), data.y["train"]
    names = [*mask]
    fixed = {n: p.detach() for n, p in module.named_parameters() if n not in mask}

    def of(*values):
        given = {**fixed, **dict(zip(names, values, strict=True))}
        return nn.functional.cross_entropy(torch.func.functional_call(module, given, (x,)), y)

    blocks = torch.autograd.functional.hessian(of, tuple(module.get_parameter(n).detach() for n in names))
    rows = [
        torch.cat(
            [
                b.reshape(mask[n].numel(), mask[m].numel())[:, mask[m].flatten()]
                for m, b in zip(names, row, strict=True)
            ],
            1,
        )
        for n, row in zip(names, blocks, strict=True)
    ]
    return torch.cat([r[mask[n].flatten()] for n, r in zip(names, rows, strict=True)]).numpy()


def loss_as_a_pair(model, batch):
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"], reduction="sum"), torch.tensor(len(batch["y"]))


def tuples():
    return [(b["x"], b["y"]) for b in batches()]


def loss_of_tuples(model, batch):
    return nn.functional.cross_entropy(model(batch[0]), batch[1])


def shuffled():
    data = small_arrays()
    return DataLoader(TensorDataset(data.x["train"], data.y["train"]), batch_size=70, shuffle=True)


KINDS = {
    "a mean": {},
    "a pair": {"loss": loss_as_a_pair},
    "tuples": {"loss": loss_of_tuples, "batches": tuples},
    "shuffled": {"loss": loss_of_tuples, "batches": shuffled},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_hessian_is_that_of_the_mean_over_all_examples_in_float64(kind, ends):
    mask = lotto.pruning.prune(ends[0], masks.ones(usual()), 0.6)
    hessian = Hessian(own(**KINDS[kind]), ends[0], mask)
    np.testing.assert_allclose(hessian.dense(), slow_hessian(ends[0], mask), atol=2e-6)
    recipe = Hessian(usual(), ends[0], mask)
    np.testing.assert_allclose(hessian.gradient(), recipe.gradient(), atol=1e-6)


def test_eigenvalues_and_limits_are_those_of_the_recipe_over_the_same_examples(ends, store):
    for measure in (
        lambda recipe: top(recipe, ends[0], masks.ones(recipe), k=2, examples=130, store=store).values,
        lambda recipe: spectrum(recipe, ends[0], masks.ones(recipe), steps=8, probes=2, store=store).traces,
        lambda recipe: [*limits(recipe, ends[0], store=store).fractions.values()],
    ):
        assert measure(own()) == pytest.approx(measure(usual()), rel=1e-3)
    assert limits(own(), ends[0], store=store).examples == 240, "all there are"


def test_statistics_are_re_estimated_from_the_batches_of_the_loop():
    weights = lotto.train(usual(Normed), store=None).weights
    networks = [Network(r, weights) for r in (own(Normed), usual(Normed))]
    for recipe, network in zip((own(Normed), usual(Normed)), networks, strict=True):
        recompute_statistics(recipe.replace(eval_batch_size=100) if recipe.loop is None else recipe, network)
        assert not network.module.training
    one, other = (n.module.state_dict() for n in networks)
    x = small_arrays().x["train"].double()
    inner = nn.functional.linear(x, weights["body.0.weight"].double(), weights["body.0.bias"].double())
    torch.testing.assert_close(one["body.1.running_mean"].double(), inner.mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one["body.1.running_var"].double(), inner.var(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one["body.4.running_mean"], other["body.4.running_mean"], rtol=0.05, atol=0.02)
    paths = [
        evaluate_path(r, weights, dict(usual(Normed).initial(1)), points=3, batchnorm="recompute", store=None)
        for r in (own(Normed, batches=lambda: batches((240,))), usual(Normed))
    ]
    np.testing.assert_allclose(paths[0].loss["test"], paths[1].loss["test"], rtol=1e-4)
    assert list(instability(own(Normed), "3it", points=2, store=None, jobs=1).paths) == ["interpolate", "recompute"]


def test_a_score_of_gradients_reads_the_loss_of_the_loop(ends):
    def snip(context):
        return {n: (g * context.weights[n]).abs() for n, g in context.gradients().items()}

    found, expected = (lotto.lottery.score_weights(r, ends[0], score=snip, store=None) for r in (own(), usual()))
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-3, atol=1e-7)
    result = lotto.imp(own(), densities=[0.5], rewind_to="2it", replicates=1, controls=(), score=snip, jobs=1)
    assert result.ticket(level=1).density == 0.5
    for score, words in (
        (lambda context: {n: w * context.loss(w, w) for n, w in context.weights.items()}, "scores that call the loss"),
        (lambda context: [*context.batches] and context.weights, "scores that read batches"),
    ):
        with pytest.raises(UsageError, match=words):
            lotto.lottery.score_weights(own(), ends[0], score=score, store=None)


def test_what_only_paths_and_curvature_call_has_no_part_in_a_run_and_all_of_it_in_theirs(ends):
    plain = lotto.Trainable(Net, fit)
    assert lotto.Job(own()).key == lotto.Job(plain).key is not None

    def path(recipe, **more):
        return PathTask(recipe, *ends, points=3, **more).key

    def curve(recipe):
        return SpectrumTask(recipe, ends[0], masks.ones(recipe)).key

    def other_loss(model, batch):
        return 2 * loss(model, batch)

    assert None not in (path(own()), curve(own()))
    assert path(own(loss=other_loss)) == path(own()) == path(own(loss=None, batches=None))
    assert path(own()) not in (path(own(evaluate=evaluate_test)), path(own(key="v2")))
    assert curve(own(evaluate=None)) == curve(own())
    assert len({curve(own(**c)) for c in ({}, {"loss": other_loss}, {"batches": tuples}, {"key": "v2"})}) == 4
    normed = [own(Normed), own(Normed, loss=other_loss)]
    weights = normed[0].initial(0)
    keys = [[PathTask(r, weights, weights, batchnorm=b).key for r in normed] for b in ("interpolate", "recompute")]
    assert keys[0][0] == keys[0][1]
    assert keys[1][0] != keys[1][1]

    def reads(model):
        open("/dev/null").close()
        return evaluate_test(model)

    assert path(own(evaluate=reads)) is None
    assert lotto.Job(own(evaluate=reads)).key == lotto.Job(plain).key


def test_a_path_is_remembered(store, ends):
    calls = []

    def counted(model):
        calls.append(1)
        return evaluate_test(model)

    engine = Serial(store)
    recipe = own(evaluate=evaluate_test)
    first = evaluate_path(recipe, *ends, points=3, engine=engine)
    assert engine.run([PathTask(recipe, *ends, points=3)])[0]["error"]["test"] == list(first.error["test"])
    assert evaluate_path(own(evaluate=counted), *ends, points=3, store=None).error == first.error
    assert len(calls) == 3


def without(*names):
    return own(**dict.fromkeys(names))


def drawn(model):
    return {"error": torch.rand(1), "loss": 1.0}


def test_the_network_is_in_evaluation_mode_and_generators_are_seeded_and_left_alone(ends):
    def looks(model):
        assert not model.training
        assert not torch.is_grad_enabled()
        return drawn(model)

    before = torch.get_rng_state()
    path = evaluate_path(own(evaluate=looks), *ends, points=3, store=None)
    assert len(set(path.error["test"])) == 1
    Hessian(own(**KINDS["shuffled"]), ends[0]).gradient()
    assert torch.equal(torch.get_rng_state(), before)


COUNT = [0]


def never_the_same():
    COUNT[0] += 1
    return batches((40 + COUNT[0],))


def sequences():
    yield {"x": torch.ones(5, 12), "y": torch.zeros(3, dtype=torch.long)}


REFUSED = {
    "no evaluate": (lambda w: lotto.landscape.barrier(without("evaluate"), w, w), "give evaluate=, a function"),
    "a train split": (
        lambda w: instability(own(evaluate=evaluate_test), "3it", store=None, jobs=1),
        r"stands for the test split; asked for are test, train. Ask for splits=\('test',\)",
    ),
    "examples": (lambda w: evaluate_path(own(), w, w, examples=10), "examples=10 is for data of lotto's"),
    "nothing for BatchNorm": (
        lambda w: instability(own(Normed, loss=None, batches=None), "3it", store=None, jobs=1),
        "for BatchNorm statistics to be re-estimated, give loss=, a function",
    ),
    "no loss": (lambda w: Hessian(without("loss", "batches"), w), "for curvature, give loss=, a function"),
    "half": (lambda w: without("batches"), "loss= and batches= of lotto.Trainable come together"),
    "no function": (lambda w: own(loss=lambda batch: 1.0), r"loss is called as loss\(model, batch\)"),
    "no metrics": (
        lambda w: lotto.evaluate(own(evaluate=lambda model: {"error": 1.0}), w), "with 'error' and 'loss' among them"
    ),
    "no number": (lambda w: Hessian(own(loss=lambda model, batch: 1.0), w), "returns one number, a tensor"),
    "no mean": (
        lambda w: Hessian(own(loss=lambda model, batch: model(batch["x"]).square().sum()), w),
        "is not the mean over its examples.*by returning the sum and its weight as a pair",
    ),
    "no batch": (lambda w: Hessian(own(batches=list), w), r"batches\(\) gives no batch"),
    "other batches": (lambda w: Hessian(own(batches=never_the_same), w), "gives other batches when it is called again"),
    "no count": (
        lambda w: Hessian(own(batches=sequences, loss=lambda m, b: m(b["x"]).mean()), w), "Let it return a pair"
    ),
    "test batches": (lambda w: Hessian(own(), w, split="test"), "there are none of split='test'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_missing_or_wrong_is_one_sentence(name, ends):
    ask, words = REFUSED[name]
    with pytest.raises(UsageError, match=words):
        ask(ends[0])


def test_an_experiment_of_the_papers_is_that_of_the_same_recipe(store):
    frames = [
        papers.EXPERIMENTS["unmasking.connectivity"].run(
            papers.Options(recipe, 1, ("2it",), 2, points=3, random_chain=False), Serial(store)
        )
        for recipe in (own(tolerance=5.0), usual())
    ]
    kept = [frame[frame["measure"].isin(["barrier", "error"])].reset_index() for frame in frames]
    assert len(kept[0]) == len(kept[1]) > 4
    np.testing.assert_allclose(kept[0]["value"], kept[1]["value"], atol=1e-6)


def test_an_analysis_is_refused_before_anything_is_trained(store):
    def trained(model, *, start_step, seed):
        raise AssertionError("trained")

    for name in ("unmasking.membership", "unmasking.pruning_limit", "unmasking.flatness"):  # they shorten the training
        with pytest.raises(UsageError, match="optimizer of a loop of your own"):
            papers.EXPERIMENTS[name].run(papers.Options(own(fit=trained), 1, ("2it",), 2), Serial(store))
    for recipe in (lotto.Trainable(Net, trained), lotto.Trainable(Net, trained, evaluate=evaluate_test)):
        with pytest.raises(UsageError):
            instability(recipe, "3it", store=store, jobs=1)


@pytest.mark.extras  # starts a worker
def test_workers_find_the_same(ends, store):
    engine = lotto.engine.make(2, store, backend="processes")
    task = PathTask(own(), *ends, points=3, splits=("train",))
    try:
        (outcome,) = engine.run([task])
    finally:
        engine.close()
    assert outcome == task.execute()
