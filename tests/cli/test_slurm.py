"""Workers as an array of Slurm's: with submitit's local executor, and an `sbatch` that runs arrays on this machine."""

from __future__ import annotations

import _thread
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import lotto
from conftest import same_tensors, small_recipe
from lotto import Job, Store
from lotto.cli.main import main
from lotto.execution.queue import Queue
from lotto.execution.queue_folder import QueueFolder
from lotto.training.loop import train

pytest.importorskip("submitit")
pytestmark = pytest.mark.extras
TESTS = Path(__file__).parents[1]
PATHS = os.pathsep.join([str(TESTS), str(Path(lotto.__file__).parents[1])])

SBATCH = """#!{python}
import os, re, subprocess, sys
script = open(sys.argv[-1]).read()
open({said!r}, "w").write(script)
first, last = map(int, re.search(r"--array=(\\d+)-(\\d+)", script).groups())
for task in range(first, last + 1):
    environment = dict(
        os.environ, SLURM_JOB_ID=str(100 + task), SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID=str(task), SLURM_NTASKS="1",
        SLURM_JOB_NUM_NODES="1", SLURM_JOB_NODELIST="here", SLURM_NODEID="0", SLURM_PROCID="0", SLURM_LOCALID="0",
    )
    nothing = subprocess.DEVNULL
    subprocess.Popen(["bash", sys.argv[-1]], env=environment, start_new_session=True, stdout=nothing, stderr=nothing)
print("Submitted batch job 7")
"""
SRUN = """#!{python}
import os, sys
words = iter(sys.argv[1:])
for word in words:
    if word in ("--output", "--error"):
        next(words)
    elif not word.startswith("--"):
        os.execvp(word, [word, *words])
"""


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """`sbatch` and `srun` on this machine; the path of the script that was submitted."""
    folder, said = tmp_path / "bin", tmp_path / "submitted"
    folder.mkdir()
    for name, text in (("sbatch", SBATCH), ("srun", SRUN)):
        (folder / name).write_text(text.format(python=sys.executable, said=str(said)))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", PATHS)
    return said


def check_that_they_work(store: Store) -> None:
    jobs = [Job(small_recipe(), init_seed=seed) for seed in range(3)]
    watch = threading.Timer(240, _thread.interrupt_main)
    watch.start()
    try:
        for job, run in zip(jobs, Queue(store).run(jobs), strict=True):
            assert same_tensors(run.weights, train(job).weights)
        while QueueFolder(store.root).workers():  # they end by themselves
            pass
    finally:
        watch.cancel()


def test_an_array_of_workers(tmp_path, cluster, capsys):
    store = Store(tmp_path / "store")
    how = ["--workers", "2", "--idle-timeout", "20s", "--time", "2h", "--gpus", "0", "--partition", "short"]
    main(["slurm", str(store.root), *how])
    assert "2 workers are submitted" in capsys.readouterr().out
    script = cluster.read_text()
    for line in ("--array=0-1", "--time=120", "--partition=short", "--cpus-per-task=1", "--job-name=lotto"):
        assert line in script
    check_that_they_work(store)


def test_a_rehearsal_on_this_machine(tmp_path):
    store = Store(tmp_path / "store")
    command = [
        sys.executable,
        "-m",
        "lotto",
        "slurm",
        str(store.root),
        "--workers",
        "2",
        "--idle-timeout",
        "20s",
        "--local",
    ]
    with (tmp_path / "said").open("w") as said:  # a pipe would be open until the workers end
        subprocess.run(command, env={**os.environ, "PYTHONPATH": PATHS}, stdout=said, stderr=said, check=True)
    assert "--backend queue" in (tmp_path / "said").read_text()
    check_that_they_work(store)  # the command has ended, and they have not


def test_bad_input(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    for options, sentence in (
        (["--workers", "0"], "whole numbers from 1"),
        (["--time", "soon"], "A duration is a number"),
        ([], "login node, or --local"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["slurm", str(tmp_path / "store"), *options])
        assert stopped.value.code == 2
        assert sentence in " ".join(capsys.readouterr().err.split())
