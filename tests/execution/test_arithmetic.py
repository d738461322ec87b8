"""What changes bits is recorded with every result, and said once where a result of other arithmetic is handed out."""

from __future__ import annotations

import json
import logging
import re

import pytest
import torch

import lotto
from conftest import same_tensors
from lotto.execution import arithmetic
from lotto.execution.compute import get_or_compute
from lotto.execution.serial import Serial
from lotto.landscape.path import PathTask
from lotto.training.job import Job
from lotto.training.loop import train


@pytest.fixture(autouse=True)
def _nothing_said_yet(caplog):
    arithmetic._say_once.cache_clear()
    caplog.set_level(logging.WARNING)


def manifest(store, item):
    return json.loads((store.folder(item.key) / "manifest.json").read_text())


def items(recipe):
    return [Job(recipe), PathTask(recipe, recipe.initial(0), recipe.initial(1), 2)]


def test_what_changes_bits_is_in_the_manifest(recipe, store):
    Serial(store).run(items(recipe))
    for item in items(recipe):
        found = manifest(store, item)["execution"]["computed_with"]
        assert found == {
            "torch": str(torch.__version__),
            "device": "cpu",
            "threads": 1,
            "matmul": "highest",
            "convolutions": "float32",
            "recurrent": "float32",
            "deterministic": False,
            "kernels": arithmetic._kernels(),
            "cpu": torch.backends.cpu.get_cpu_capability(),
            "ranks": 1,
        }


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda m: m.setattr(torch, "__version__", "9.9.0"), "torch 2.+ there, torch 9.9.0 here"),
        (lambda m: m.setattr(torch, "get_num_threads", lambda: 3), "1 threads there, 3 threads here"),
        (lambda m: m.setenv("NUMBA_DISABLE_JIT", "1"), "compiled kernels: numba .+ there, compiled kernels: none here"),
        (
            lambda m: m.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "another"),
            "the instruction set .+ there, the instruction set another here",
        ),
    ],
)
def test_other_arithmetic_is_said_once_and_the_result_is_used(change, words, recipe, store, caplog, monkeypatch):
    first = Serial(store).run(items(recipe))
    assert caplog.messages == []
    change(monkeypatch)
    events = []
    for _ in range(2):
        again = Serial(store).run(items(recipe), events.append)
        assert same_tensors(again[0].weights, first[0].weights)
        assert again[1] == first[1]
    assert not any(e.trained for e in events if hasattr(e, "trained"))
    (said,) = caplog.messages
    assert said.startswith("Remembered results are used whose last bits may not be those that this process would")
    assert re.search(words, said), said


def test_flags_of_torch_are_said(recipe, store, caplog):
    Serial(store).run(items(recipe))
    torch.use_deterministic_algorithms(True)
    torch.set_float32_matmul_precision("high")
    try:
        Serial(store).run(items(recipe))
    finally:
        torch.use_deterministic_algorithms(False)
        torch.set_float32_matmul_precision("highest")
    (said,) = caplog.messages
    assert "highest precision of float32 products there, high precision" in said
    assert "deterministic algorithms: False there, deterministic algorithms: True here" in said


def test_a_checkpoint_of_other_arithmetic_is_resumed_and_said(recipe, store, caplog, monkeypatch):
    class Stopped(Exception):
        pass

    def stop(step, loss):
        if step >= 20:
            raise Stopped

    job = Job(recipe)
    with pytest.raises(Stopped):
        get_or_compute(store, job, on_step=stop, checkpoint_seconds=0)
    monkeypatch.setattr(torch, "__version__", "9.9.0")
    run, trained = get_or_compute(store, job)
    assert trained
    assert same_tensors(run.weights, train(job).weights)
    assert [m for m in caplog.messages if "goes on from a checkpoint of other arithmetic" in m and "torch 9.9" in m]


def test_a_result_that_does_not_say_is_used_silently(recipe, store, caplog):
    Serial(store).run(items(recipe))
    arithmetic.say_if_other(recipe, None, "Nothing")
    arithmetic.say_if_other(recipe.replace(device="nowhere"), {"torch": "0"}, "Nothing")
    assert caplog.messages == []
    assert arithmetic.differences({"torch": "1", "more": 2}, {"torch": "1", "less": 3}) == ""


def test_a_public_call_with_remembered_results_of_this_process_says_nothing(recipe, caplog):
    for _ in range(2):
        lotto.train(recipe)
    assert caplog.messages == []
