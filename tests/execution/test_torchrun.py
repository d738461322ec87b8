"""Processes that `torchrun` has started: one result for all, written by the first; killed ones; what is refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import together

import interpreter
import launched
import lotto
from lotto.core.errors import UsageError
from lotto.core.ranks import Launch
from lotto.execution import arithmetic
from lotto.execution.torchrun import Torchrun

SECONDS = 20.0
"""The others end within so many; most of it is for a machine that is busy."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a script has written that two ranks have run: the second one has a store of its own."""
    made = tmp_path_factory.mktemp("together")
    port = launched.free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, together.__file__, "whole", str(made)],
            env=launched.environment(rank, 2, port, LOTTO_STORE=str(made / f"store-{rank}")),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for code, text in launched.ended(processes, 120):
        assert code == 0, text
    return made


@pytest.fixture(scope="module")
def found(folder: Path) -> list[dict[str, object]]:
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def test_all_ranks_have_one_result(found):
    assert found[0] == found[1]
    assert str(found[0]["ours"]).startswith("autograd, 2 ranks")


def test_only_the_first_rank_writes(folder):
    assert (folder / "store-0").is_dir()
    assert not (folder / "store-1").exists()


def test_the_result_is_that_of_one_process(found, tmp_path):
    recipe, store = together.SMALL, lotto.Store(tmp_path)
    result = lotto.imp(recipe, levels=2, rate=0.5, rewind_to="5it", replicates=1, progress=False, jobs=1, store=store)
    assert [lotto.weights.digest(level.mask) for level in result.replicates[0]] == found[0]["masks"]
    assert result.table()[["density", "error"]].values.tolist() == found[0]["table"]


def test_what_is_refused_is_refused_on_all_ranks_and_they_go_on(found):
    assert "fewer than the 2 parts" in str(found[0]["refused"])
    assert "The loss of too fast became" in str(found[0]["diverged"])
    assert found[0]["long"] == found[1]["long"]


def test_how_many_ranks_there_were_is_recorded_as_arithmetic_and_has_no_part_in_the_key(folder, monkeypatch, caplog):
    store = lotto.Store(folder / "store-0")
    job = lotto.Job(together.LONG)
    manifest = json.loads((store.folder(job.key) / "manifest.json").read_text())["execution"]
    assert (manifest["engine"], manifest["ranks"], manifest["computed_with"]["ranks"]) == ("torchrun", 2, 2)
    arithmetic._say_once.cache_clear()
    assert store.lookup(job) is not None
    assert "2 ranks there, 1 ranks here" in caplog.text
    caplog.clear()
    arithmetic._say_once.cache_clear()
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    assert store.lookup(job) is not None
    assert "ranks" not in caplog.text
    path = next(p for p in store.root.rglob("manifest.json") if "outcome.json" in p.read_text())
    assert json.loads(path.read_text())["execution"]["computed_with"]["ranks"] == 1, "the first one's alone"


def killed(name: str, folder: Path, rank: int, step: int, store: Path) -> tuple[float, tuple[int, str]]:
    """Kill a rank when the training has come to a step; how long the other one lives on, its code and its words."""
    processes = launched.start(2, together.__file__, name, str(folder), LOTTO_STORE=str(store))
    output = processes[0].stdout
    assert output is not None
    for line in output:
        if line.startswith("step") and int(line.split()[1]) >= step:
            break
    processes[rank].send_signal(signal.SIGKILL)
    began = time.monotonic()
    ended = launched.ended(processes, SECONDS + 40)
    return time.monotonic() - began, ended[1 - rank]


def test_a_killed_rank_ends_the_others_and_the_same_command_goes_on_to_the_same_bits(folder, found, tmp_path):
    store, reached = tmp_path / "store", []
    for rank, step in ((1, 150), (0, 500)):
        seconds, (code, text) = killed("long", tmp_path, rank, step, store)
        assert (code, seconds < SECONDS) == (1, True), text
        assert f"Rank {rank} of 2 is gone (it was killed, or its machine is)" in text
        assert "the same command goes on from the last checkpoint" in text
        job = lotto.Job(together.LONG)
        point = lotto.Store(store).read_checkpoint(job)
        assert point is not None
        reached.append(point.step)
    assert 0 < reached[0] < reached[1] < 1500
    last = launched.start(2, together.__file__, "long", str(tmp_path), LOTTO_STORE=str(store))
    (code, text), _ = launched.ended(last)
    assert code == 0, text
    first = int(next(line for line in text.splitlines() if line.startswith("step")).split()[1])
    assert first > reached[1], "it went on"
    digests = [json.loads((tmp_path / f"long-{rank}.json").read_text()) for rank in range(2)]
    assert digests == [found[0]["long"]] * 2


@pytest.mark.extras
def test_one_that_is_busy_with_something_else_is_ended_as_well(tmp_path):
    seconds, (code, text) = killed("busy", tmp_path, 1, 0, tmp_path / "store")
    assert (code, seconds < SECONDS) == (1, True), text
    assert "lotto: Rank 1 of 2 is gone" in text


@pytest.mark.extras
@pytest.mark.parametrize(("name", "sentence"), [
    ("failing", "Rank 1 of 2 is gone (ValueError: 'no memory for this')"),
    ("other", "Rank 1 of 2 is gone (the program asks for "),
])  # fmt: skip
def test_what_goes_wrong_on_one_rank_is_said_by_the_first(name, sentence, tmp_path):
    processes = launched.start(2, together.__file__, name, str(tmp_path), LOTTO_STORE=str(tmp_path / "store"))
    (code, text), (other, _) = launched.ended(processes)
    assert (code, other) == (1, 1)
    assert sentence in text


@pytest.mark.extras
def test_a_rank_that_is_killed_under_torchrun_ends_the_command_with_a_sentence(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": launched.PATHS,
        "OMP_NUM_THREADS": "1",
        "LOTTO_STORE": str(tmp_path / "store"),
    }
    command = [
        sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(launched.free_port()),
        "-m", "lotto", "imp", "together:SMALL", "--steps", "30000it", "--levels", "1", "--replicates", "1", "--controls", "none",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "2 ranks train slices" in line:
            break
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[1]), signal.SIGKILL)
    began = time.monotonic()
    text = process.communicate()[1]
    assert process.returncode == 1
    assert time.monotonic() - began < SECONDS
    assert "lotto: Rank 1 of 2 is gone" in text or "Stopped. Finished trainings are kept" in text, text


def test_the_command_line_under_torchrun(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": launched.PATHS,
        "OMP_NUM_THREADS": "1",
        "LOTTO_STORE": str(tmp_path / "store"),
    }
    command = ["lotto", "imp", "together:SMALL", "--levels", "1", "--replicates", "1", "--controls", "none"]
    start = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        str(launched.free_port()),
        "-m",
    ]
    done = subprocess.run(
        [*start, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("2 computed, 0 remembered") == 1
    assert "Trained by autograd, 2 ranks" in done.stdout
    (made,) = tmp_path.rglob("report.html")
    assert made.exists()


JOIN = """
import sys
from lotto.core.errors import UsageError
from lotto.core.ranks import joined
try:
    joined(2.0)
except UsageError as error:
    print(error)
"""


@pytest.mark.parametrize(("rank", "sentence"), [
    (0, "Rank 1 and 2 of 3 did not come within 2 s"), (1, "Rank 0 of 3 does not answer at 127.0.0.1:"),
])  # fmt: skip
def test_a_rank_that_is_missing(rank, sentence):
    done = interpreter.run(JOIN, environment=launched.environment(rank, 3, launched.free_port()))
    assert sentence in done.stdout, done.stdout + done.stderr
    assert "torchrun --nproc-per-node" in done.stdout


@pytest.mark.parametrize(("said", "sentence"), [
    ({"RANK": "0"}, "has RANK and no WORLD_SIZE"),
    ({"WORLD_SIZE": "2"}, "has WORLD_SIZE and no RANK"),
    ({"RANK": "0", "WORLD_SIZE": "2"}, "no MASTER_ADDR and no MASTER_PORT"),
    ({"RANK": "2", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "RANK is 0 to 1"),
    ({"RANK": "x", "WORLD_SIZE": "2", "MASTER_ADDR": "a", "MASTER_PORT": "1"}, "are whole numbers"),
])  # fmt: skip
def test_half_a_launch_is_refused(said, sentence, monkeypatch):
    for name, value in said.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=sentence):
        lotto.engine.make()


@pytest.mark.parametrize(("options", "sentence"), [
    ({"jobs": 2}, "leave out jobs"), ({"backend": "ray"}, "leave out backend"), ({"backend": "queue"}, "leave out backend"),
    ({"backend": "serial", "jobs": 2}, "leave out backend and jobs"), ({"stack": 2}, "jobs and stack are 1"),
])  # fmt: skip
def test_nothing_else_runs_jobs_under_torchrun(options, sentence, monkeypatch):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=sentence):
        lotto.engine.make(**options)


def test_one_process_is_no_launch(monkeypatch, store):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "1"), ("MASTER_ADDR", "localhost"), ("MASTER_PORT", "1")):
        monkeypatch.setenv(name, value)
    assert Launch.here() is None
    assert lotto.engine.make(1, store).name == "serial"
    with pytest.raises(UsageError, match="needs several processes that torchrun has started"):
        Torchrun(store)
