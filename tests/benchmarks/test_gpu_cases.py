"""What is measured on a card runs on a processor, too, and compares what it says it compares."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from lotto.benchmarks.gpu import bits, cases, side_by_side, tight, uploads
from lotto.benchmarks.gpu.clock import paced
from lotto.benchmarks.gpu.networks import NETWORKS, PRECISIONS, TINY, Setup, Sizes, products_in
from lotto.core.errors import UsageError
from lotto.data.upload import uploaded
from lotto.models import build

LENET = Setup("lenet", "float32", "cpu", TINY)


def test_everything_that_is_promised_is_among_the_cases():
    found = [case.name for case in cases.cases_on("cuda", Sizes())]
    assert len(set(found)) == len(found)
    assert {f"loop {n} {p}" for n in NETWORKS for p in PRECISIONS} <= {*found}
    assert {f"stacked resnet-20 tf32 {w}" for w in (2, 4, 8, 16, 32, 64)} <= {*found}
    assert {f"bits {n} {how}" for n in NETWORKS for how in ("usual", "deterministic")} <= {*found}
    assert {"processes resnet-20 tf32", "compiled resnet-18 bfloat16", "uploads images"} <= {*found}


@pytest.mark.parametrize("precision", ["tf32", "bfloat16"])
def test_lotto_against_the_tight_loop(precision):
    (row,) = cases.loop(Setup("lenet", precision, "cpu", TINY))
    assert (row["what"], row["against"], row["precision"]) == ("lotto", "tight loop", precision)
    assert row["epoch_steps"] == 64 // 4
    assert row["turn_steps"] == row["turn_steps_against"] == 1
    assert row["ratio"] == pytest.approx(row["seconds_against"] / row["seconds"])
    assert "mebibytes" in row


def test_a_stack_is_timed_per_network(monkeypatch):
    (row,) = cases.stacked(LENET, 2)
    assert (row["what"], row["against"], row["turn_steps"]) == ("2 stacked", "alone", 1)
    each = {}
    monkeypatch.setattr(cases, "measure", lambda _, benchmark, __: each.update(benchmark.replicates) or [])
    cases.stacked(LENET, 2)
    assert each == {"2 stacked": 2, "alone": 1}


def test_a_turn_is_filled_with_steps_and_has_at_most_an_epoch(monkeypatch):
    taken = []
    monkeypatch.setattr("lotto.benchmarks.gpu.clock.timed", lambda run: run() or 0.3)
    made = paced(lambda: taken.append, "cpu", 2.0, 16)
    assert made.count == 20 - 4  # three steps take 0.3 s, so two seconds have 20, and an epoch 16
    assert paced(lambda: taken.append, "cpu", 1.0, 16).count == 10
    taken.clear()
    made.run()
    assert taken == [16]


def test_the_tight_loop_trains_half_of_the_weights_as_a_plain_loop_does(monkeypatch):
    built, recipe = [], LENET.recipe
    monkeypatch.setattr(type(recipe), "build", lambda self, seed=0: built.append(_lenet()) or built[-1])
    orders = torch.arange(64)
    monkeypatch.setattr(tight.torch, "randperm", lambda *_, **__: orders)
    tight.tight_steps_on(LENET)(3)
    (trained,) = [model for model in built if model.fc1.weight.grad is not None]
    got = dict(trained.named_parameters())
    plain, (job,) = _lenet(), LENET.jobs()
    plain.load_state_dict(recipe.initial(0))
    x, y = recipe.arrays.normalise(recipe.arrays.x["train"]), recipe.arrays.y["train"]
    for step in range(3):
        plain.zero_grad()
        F.cross_entropy(plain(x[4 * step : 4 * step + 4]), y[4 * step : 4 * step + 4]).backward()
        with torch.no_grad():
            for name, parameter in plain.named_parameters():
                keep = job.mask[name].float() if name in job.mask else 1.0
                parameter -= 0.1 * keep * parameter.grad
    for name, parameter in plain.named_parameters():
        assert torch.allclose(got[name], parameter, atol=1e-6), name


def _lenet():
    return build("lenet-300-100", (1, 28, 28), 10)


def test_crops_and_flips_of_the_tight_loop_are_those_of_padded_images(monkeypatch):
    x = torch.randn(3, 2, 5, 5)
    shifts, flips = torch.tensor([[0, 8, 4], [3, 1, 4]]), torch.tensor([[0.1], [0.9], [0.2]])
    monkeypatch.setattr(tight.torch, "randint", lambda *_, **__: shifts[:, :, None])
    monkeypatch.setattr(tight.torch, "rand", lambda *_, **__: flips)
    got = tight._changed(x)
    for i in range(3):
        top, left = shifts[:, i].tolist()
        part = F.pad(x[i], [4] * 4)[:, top : top + 5, left : left + 5]
        assert torch.equal(got[i], part.flip(2) if flips[i] < 0.5 else part)


def test_products_are_rounded_as_the_precision_says_and_torchs_settings_come_back():
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    for precision, expected in (("tf32", ("high", True)), ("float32", ("highest", False))):
        with products_in(precision):
            assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == expected
    assert (torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32) == before
    with pytest.raises(UsageError, match="Unknown precision 'half'"):
        Setup("lenet", "half", "cpu", TINY)


@pytest.mark.extras
def test_processes_side_by_side_and_two_runs_to_the_bit():
    (row,) = side_by_side.side_by_side(LENET)
    assert (row["what"], row["against"]) == ("2 processes", "one process")
    for deterministic in (False, True):
        rows = bits.same_bits([LENET], deterministic)
        assert [(r["width"], r["same"], r["largest"]) for r in rows] == [(1, True, 0.0), (2, True, 0.0)]


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")  # of torch.compile's own
@pytest.mark.parametrize("network", ["resnet-20", "resnet-18"])
def test_resnets_run_alone_stacked_and_compiled(network):
    setup = partial(Setup, network, "bfloat16", "cpu", TINY)
    assert cases.loop(setup())
    # Of four examples in bfloat16 BatchNorm makes so much noise that a stack cannot be proved to be what it is.
    assert cases.stacked(Setup(network, "float32", "cpu", TINY), 2)
    rows = cases.compiled(setup(compiled=True))
    assert [row["what"] for row in rows] == ["lotto, compiled", "tight loop, compiled"]


def test_bits_that_differ_are_said_and_so_is_what_torch_refuses(monkeypatch):
    one = {"w": np.array([1.0, 0.0], np.float32)}
    assert bits._compared(one, {"w": np.array([1.0, 0.0], np.float32)}) == {"same": True, "largest": 0.0}
    assert bits._compared(one, {"w": np.array([1.5, -0.0], np.float32)}) == {"same": False, "largest": 0.5}
    assert bits._compared(one, {"w": np.array([1.0, -0.0], np.float32)}) == {"same": False, "largest": 0.0}
    assert bits._compared(one, "x does not have a deterministic implementation")["problem"].startswith("x does")
    monkeypatch.setattr(bits, "learner_of", lambda jobs: (_ for _ in ()).throw(RuntimeError("no\nmore")))
    assert bits._trained(LENET, 1, True) == "no"
    assert not torch.are_deterministic_algorithms_enabled()


def test_copies_are_timed_with_and_without_waiting_for_them():
    rows = uploads.uploads("cpu", TINY)
    assert [row["measured"] for row in rows] == ["until Python goes on", "until it is there"]
    assert {row["what"] for row in rows} == {"pinned"}


class Remembering:
    """A tensor that says what is done with it."""

    layout = torch.strided

    def __init__(self, device="cpu", pinned=False):
        self.device, self.pinned, self.done = torch.device(device), pinned, []

    def is_pinned(self):
        return self.pinned

    def pin_memory(self):
        self.done.append("pinned")
        return self

    def to(self, device, non_blocking=False):
        self.done.append((str(device), non_blocking))
        return self


@pytest.mark.parametrize(
    ("tensor", "device", "expected"),
    [
        (Remembering(), "cuda:0", ["pinned", ("cuda:0", True)]),
        (Remembering(pinned=True), "cuda:0", [("cuda:0", True)]),
        (Remembering("cuda:0"), "cuda:0", [("cuda:0", False)]),
        (Remembering(), "cpu", [("cpu", False)]),
    ],
)
def test_what_goes_to_a_card_is_pinned_and_not_waited_for(tensor, device, expected):
    assert uploaded(tensor, torch.device(device)).done == expected


def test_steps_as_cuda_graphs_are_measured_where_the_forward_is_known(monkeypatch):
    asked = []
    monkeypatch.setattr(cases, "compare", lambda setup, makers, pairs: asked.append(pairs) or [])
    for network in ("resnet-20", "resnet-18"):
        cases.compiled(Setup(network, "bfloat16", "cuda", TINY, compiled=True))
    graphs = [("lotto, CUDA graphs", "lotto") in pairs for pairs in asked]
    assert graphs == [True, False]
    assert all(("tight loop, compiled with CUDA graphs", "tight loop") in pairs for pairs in asked)
