"""Every case is written at once, a rerun goes on, and figures of two machines are never in one file."""

from __future__ import annotations

import json
import re

import pytest
import torch
from rich.console import Console

from lotto.benchmarks.gpu import campaign
from lotto.benchmarks.gpu.cases import Case
from lotto.benchmarks.gpu.networks import TINY
from lotto.benchmarks.gpu.record import Record, machine_of
from lotto.benchmarks.gpu.tables import GROUPS, cells
from lotto.cli.main import main
from lotto.core.errors import UsageError, WorkerError

PAIR = {
    "network": "lenet", "precision": "tf32", "what": "lotto", "against": "tight loop", "seconds": 0.002,
    "seconds_against": 0.003, "ratio": 1.5, "ratio_min": 1.4, "ratio_max": 1.6, "epoch_steps": 500, "turn_steps": 20,
    "mebibytes": 12.4, "mebibytes_against": 20.0,
}  # fmt: skip


@pytest.fixture
def given(monkeypatch):
    """Cases of one's own in the place of those that train."""

    def give(**measured):
        made = [Case(f"loop {name}", "loop", measure) for name, measure in measured.items()]
        monkeypatch.setattr(campaign, "cases_on", lambda device, sizes: made)
        return made

    return give


def _run(path):
    return campaign.run_gpu_benchmarks(Console(quiet=True), path, "cpu", TINY)


def test_a_rerun_goes_on_and_skips_what_is_there(tmp_path, given):
    path, calls = tmp_path / "card.json", []

    def stopped():
        calls.append("b")
        raise KeyboardInterrupt

    given(a=lambda: calls.append("a") or [PAIR], b=stopped)
    with pytest.raises(KeyboardInterrupt):
        _run(path)
    assert json.loads(path.read_text())["cases"]["loop a"]["rows"] == [PAIR]
    assert "1 of 2 cases" in path.with_suffix(".md").read_text()
    made = given(a=stopped, b=lambda: calls.append("c") or [PAIR])
    record = _run(path)
    assert calls == ["a", "b", "c"]
    assert all(record.is_done(case.name) for case in made)


def test_what_is_refused_is_a_row_with_a_sentence(tmp_path, given):
    def refused():
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate much.")

    made = given(a=refused, b=lambda: [PAIR])
    record = _run(tmp_path / "card.json")
    names, rows = cells("loop", made, record)
    assert rows[0][:2] == ["a", "not measured: CUDA out of memory."]
    assert dict(zip(names, rows[1], strict=True)) == {
        "network": "lenet", "precision": "tf32", "what": "lotto", "against": "tight loop", "ms": "2",
        "ms against": "3", "faster by": "1.50× (1.40 to 1.60)", "an epoch, s": "1", "of steps": "20",
        "MiB": "12", "MiB against": "20",
    }  # fmt: skip


def test_a_card_that_is_broken_ends_the_command_which_then_goes_on(tmp_path, given):
    def broken():
        raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")

    path = tmp_path / "card.json"
    given(a=broken, b=lambda: [PAIR])
    with pytest.raises(WorkerError, match=r"loop a has left the card unusable .* The same command goes on"):
        _run(path)
    record = _run(path)
    assert record.problem("loop a").startswith("CUDA error")
    assert record.rows("loop b") == [PAIR]


def test_a_case_that_kills_the_process_is_given_up(tmp_path):
    path, machine = tmp_path / "card.json", {"card": "x"}
    for _ in range(2):
        record = Record(path, machine)
        record.begin("a")  # and there the process is gone
        assert not record.is_done("a")
    record = Record(path, machine)
    record.begin("a")
    assert record.problem("a") == "The command was ended 2 times while it measured this."


def test_figures_of_another_card_or_edition_are_refused(tmp_path):
    path, machine = tmp_path / "card.json", machine_of("cpu", TINY)
    Record(path, machine).end("a", [PAIR], 1.0)
    assert Record(path, machine).rows("a") == [PAIR]
    for name in ("card", "driver", "torch", "source", "sizes"):
        with pytest.raises(UsageError, match=rf"measured with something else \({name} .* there, other here\)"):
            Record(path, {**machine, name: "other"})
    path.write_text("[1]")
    with pytest.raises(UsageError, match=r"is no record of lotto bench gpu"):
        Record(path, machine)


def test_every_group_has_a_table():
    from lotto.benchmarks.gpu.cases import cases_on

    assert {case.group for case in cases_on("cpu", TINY)} == {*GROUPS}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["gpu", "--device", "cuda:77"],
            "measures a CUDA card, and torch .* sees no 'cuda:77' here; --device cpu shows",
        ),
        (["gpu", "--device", "card"], "A device is cuda, cuda:1 or cpu; got 'card'"),
        (["gpu", "--device", "cpu", "--out", "card.csv"], r"a JSON file: --out card.json; got card.csv"),
        (["gpu", "lenet"], "gpu is measured by itself"),
        (["lenet", "--for", "9min"], "--device and --for are options of lotto bench gpu"),
        (["gqu"], "Unknown benchmark 'gqu'.*gpu"),
    ],
)
def test_one_sentence_before_anything_is_measured(words, said, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["bench", *words])
    assert ended.value.code == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(said, error), error
    assert not [*tmp_path.glob("*.json")]
