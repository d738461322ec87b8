"""Two processes that train slices of each batch are one process, up to rounding; groups are groups, on any number."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import divided
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

import launched
from conftest import small_recipe
from lotto import Job
from lotto.core.errors import UsageError
from lotto.core.ranks import ALONE, Ranks
from lotto.data import Augment
from lotto.data.augment import Rows
from lotto.execution.serial import Serial
from lotto.pruning import masks
from lotto.training.check import check_trainable
from lotto.training.learners.batch_groups import NormsOf, Slices
from lotto.training.learners.slicing import check_devices
from lotto.training.loop import train, train_stack

CASES = [
    "mlp", "uneven", "adam", "best", "own loss", "ragged", "ratio", "synchronised", "synchronised accumulate", "resnet", "two groups",
    "four groups", "groups accumulate", "dropout in groups", "folder",
]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes have written, which trained all cases together."""
    made = tmp_path_factory.mktemp("divided")
    divided.write_images(made)
    for code, text in launched.ended(launched.start(2, divided.__file__, str(made)), 500):
        assert code == 0, text
    return made


@pytest.fixture(scope="module")
def about(folder: Path) -> list[dict[str, Any]]:
    return [json.loads((folder / f"about-{rank}.json").read_text()) for rank in range(2)]


def test_both_have_the_same_history_and_refuse_the_same(folder, about):
    for name in divided.recipes(folder):
        assert about[0][name] == about[1][name], name
    assert about[0]["refused"] == about[1]["refused"]


@pytest.mark.parametrize("name", CASES)
def test_two_processes_are_one_in_float64(name, folder, about):
    # The bound: rounding of sums in another order, a few hundred of 1e-16, over at most thirty steps.
    run = train(divided.job_of(name, divided.recipes(folder)[name]))
    found = load_file(folder / f"{name}.safetensors")
    state = run.state(3)
    expected = {f"w/{n}": t for n, t in run.weights.items()} | {f"3/{n}": t for n, t in state.weights.items()}
    expected |= {f"o/{n}": t for n, t in state.optimizer.items()}
    assert set(found) == set(expected)
    for key, tensor in expected.items():
        torch.testing.assert_close(found[key], tensor, rtol=1e-10, atol=1e-12, msg=f"{name}: {key}")
    for theirs, ours in zip(about[0][name]["history"], run.history, strict=True):
        assert theirs == pytest.approx(dict(ours), rel=1e-9, abs=1e-12, nan_ok=True)
    assert about[0][name]["mistakes"] == (run.mistakes and run.mistakes.plain())
    assert about[0][name]["arithmetic"].startswith("autograd")
    assert "2 ranks" in about[0][name]["arithmetic"]


@pytest.mark.parametrize("name", ["float32", "synchronised float32", "resnet bfloat16"])
def test_two_processes_are_one_up_to_rounding_in_fewer_digits(name, folder):
    # The bound is measured: as far as one process is from float64, ten times at most.
    recipe = divided.recipes(folder)[name]
    single = train(divided.job_of(name, recipe.replace(arithmetic="dense"))).weights
    exact = train(divided.job_of(name, recipe.replace(precision="float64", arithmetic="dense"))).weights
    found = load_file(folder / f"{name}.safetensors")
    for key, tensor in single.items():
        rounding = float((tensor.double() - exact[key].double()).norm())
        assert float((found[f"w/{key}"] - tensor).double().norm()) <= 10 * rounding + 1e-9, key


def test_masked_weights_are_zero(folder):
    name = "synchronised"
    job = divided.job_of(name, divided.recipes(folder)[name])
    found = load_file(folder / f"{name}.safetensors")
    for key, keep in job.mask.items():
        assert not found[f"w/{key}"][~keep].any()
        assert not found[f"o/{key}/momentum_buffer"][~keep].any()


def by_hand(recipe, groups, steps, mask):
    """Each group of a batch through the plain network by itself, gradients and statistics averaged in a loop."""
    network = recipe.build(1)
    network.load_state_dict(masks.apply(recipe.initial(1), mask))
    network.double().train()
    velocity = {name: torch.zeros_like(p) for name, p in network.named_parameters()}
    for step, (x, y) in enumerate(recipe.arrays.batches(2, 0, steps, recipe.batch_size)):
        kept = {n: b.clone() for n, b in network.named_buffers()}
        sums = {n: torch.zeros_like(b) for n, b in kept.items()}
        network.zero_grad()
        cuts = [i * len(y) // groups for i in range(groups + 1)]
        for first, last in pairwise(cuts):
            for n, b in network.named_buffers():
                b.copy_(kept[n])
            loss = F.cross_entropy(network(x[first:last].double()), y[first:last])
            (loss * (last - first) / len(y)).backward()
            for n, b in network.named_buffers():
                sums[n] += b
        with torch.no_grad():
            for n, b in network.named_buffers():  # moving by a mean is the mean of what is moved
                b.copy_(sums[n] / groups)
            for n, p in network.named_parameters():
                gradient = p.grad * mask[n] if n in mask else p.grad
                velocity[n] = 0.9 * velocity[n] + gradient + 1e-3 * p
                p -= recipe.learning_rate(step) * velocity[n]
    return network.state_dict()


@pytest.mark.parametrize(("name", "groups"), [("synchronised", 1), ("two groups", 2), ("four groups", 4)])
def test_groups_are_those_of_a_loop_by_hand(name, groups, folder):
    recipe = divided.recipes(folder)[name]
    job = divided.job_of(name, recipe)
    found = load_file(folder / f"{name}.safetensors")
    for key, tensor in by_hand(recipe, groups, recipe.total, job.mask).items():
        torch.testing.assert_close(found[f"w/{key}"], tensor, rtol=1e-9, atol=1e-11, msg=key)


def test_groups_are_another_computation_with_another_key():
    recipe = small_recipe()
    assert "batch_groups" not in recipe.fingerprint()
    assert len({Job(recipe.replace(batch_groups=n)).key for n in (1, 2, 4)}) == 3
    assert Job(recipe.replace(batch_groups=1)).key == Job(recipe).key


@pytest.mark.parametrize(("name", "sentence"), [
    ("dropout", "draws random numbers in its forward or its loss (dropout?)"),
    ("dropout later", "draws random numbers in its forward or its loss (dropout?)"),
    ("drawing loss", "draws random numbers in its forward or its loss (dropout?)"),
    ("centred", "has another output for some examples of a batch"),
    ("odd groups", "3 groups of a batch (batch_groups) cannot be divided among 2 ranks"),
    ("small", "has 1 example, fewer than the 2 parts"),
    ("mask", "The masks of rank 1 differ from those of rank 0, by their checksums"),
    ("weights", "The weights of rank 1 differ from those of rank 0"),
])  # fmt: skip
def test_what_they_cannot_train_together_is_refused(name, sentence, about):
    assert sentence in about[0]["refused"][name]


def test_an_evaluation_by_shards_is_that_of_one_process_to_the_bit(about):
    for each in about:
        assert each["shared"] == each["alone"] == about[0]["alone"]
        assert each["same mistakes"]
    assert {"test_f1", "test_top"} <= set(about[0]["alone"])


def test_no_image_is_read_for_the_other_process(about):
    # Of 7 images a step 3 and 4, of 10 test images one batch, which the first one takes. Both look at a whole batch
    # before, and at 2 images to see how much memory an evaluation takes.
    assert [each["opened"] for each in about] == [2 * 3 + 10 + 7 + 2, 2 * 4 + 7 + 2]


def test_rows_of_a_batch_are_augmented_as_in_the_batch():
    x = torch.rand(9, 3, 8, 8)
    for augment in (Augment(2), Augment(0, flip=True), Augment(1, flip=True)):
        rows = np.array([1, 4, 5])
        assert torch.equal(augment(x, 3, 5)[rows], augment(x[rows], 3, 5, Rows(rows, 9)))


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (5, 3, 4, 4)])
@pytest.mark.parametrize("affine", [True, False])
def test_our_batchnorm_has_torchs_outputs_gradients_and_statistics(shape, affine):
    torch.manual_seed(0)
    kinds = {2: torch.nn.BatchNorm1d, 3: torch.nn.BatchNorm1d, 4: torch.nn.BatchNorm2d}
    plain = kinds[len(shape)](3, affine=affine).double()
    ours = kinds[len(shape)](3, affine=affine).double()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    z = x.detach().clone().requires_grad_()
    given = torch.randn(shape, dtype=torch.float64)
    out = plain(x)
    out.backward(given)
    with NormsOf(Slices(ALONE, len(x), len(x))) as norms:
        other = ours(z)
        other.backward(given)
    for statistics in norms.found:
        statistics.keep()
    torch.testing.assert_close(other, out)
    torch.testing.assert_close(z.grad, x.grad)
    for a, b in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    for a, b in zip(ours.buffers(), plain.buffers(), strict=True):
        torch.testing.assert_close(a, b)


class Placed(Ranks):
    """Processes of which each says where it computes."""

    def __init__(self, *places):
        super().__init__(0, len(places))
        self.places = places

    def gathered(self, value):
        return list(self.places)


def test_two_ranks_do_not_share_a_gpu():
    one, two = ("a", "cuda:0"), ("a", "cuda:1")
    check_devices(Placed(one, two, ("b", "cuda:0")), torch.device("cuda:0"))
    check_devices(Placed(one, one), torch.device("cpu"))
    with pytest.raises(UsageError, match="2 ranks would compute on cuda:0 of a: start one for each GPU"):
        check_devices(Placed(one, two, one), torch.device("cuda:0"))


def test_bad_groups_are_refused_before_training():
    for changes in ({"batch_groups": 21}, {"batch_groups": 2, "compile": True}, {"batch_groups": 0}):
        with pytest.raises(UsageError, match="batch_groups"):
            small_recipe(**changes)
    with pytest.raises(UsageError, match=r"cannot compute a group of 1 of a batch's 20 examples .*: take fewer groups"):
        check_trainable(small_recipe(model=divided.Dropping, init="module", batch_groups=11))
    check_trainable(small_recipe(model=divided.Dropping, init="module", batch_groups=10))
    check_trainable(small_recipe(model=divided.Dropping, init="module", batch_size=2), parts=2)
    recipe = small_recipe(batch_groups=2)
    with pytest.raises(UsageError, match="in groups"):
        train_stack([Job(recipe, order_seed=i) for i in range(2)])


def test_a_loss_that_is_no_mean_is_refused_in_groups_after_a_whole_batch(store):
    def total(outputs, targets):
        return F.cross_entropy(outputs, targets, reduction="sum")

    recipe = small_recipe(loss=total, error="misclassification", steps="2it")
    with pytest.raises(UsageError, match="batch_groups= does not know what its parts weigh"):
        Serial(store).run([Job(recipe), Job(recipe.replace(batch_groups=2))])
