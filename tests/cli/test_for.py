"""``--for 9min``: a command that is called again and again, a piece each time, ends where one that was left alone does."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest
from safetensors.torch import load_file

from conftest import same_tensors
from lotto.cli.main import main
from lotto.cli.stopping import OUT_OF_TIME, Stopping

IMPATIENT = """
from lotto.execution import compute
compute.CHECKPOINT_SECONDS = 0.1
from lotto.cli.main import main
main()
"""
"""The program, for which a second is long enough."""


def piece(folder, jobs, seconds=None):
    """Run the command once; returns its exit code and what it said."""
    arguments = [
        "imp", "mlp-mnist1d", "--steps", "1000it", "--levels", "3", "--replicates", "2", "--controls", "none",
        "--jobs", str(jobs), "--out", str(folder / "out"), "--store", str(folder / "store"),
    ]  # fmt: skip
    if seconds is not None:
        arguments += ["--for", f"{seconds}s"]
    done = subprocess.run(
        [sys.executable, "-c", IMPATIENT, *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.extras
@pytest.mark.parametrize("jobs", [1, 2])
def test_pieces_end_where_a_whole_does(jobs, tmp_path):
    assert piece(tmp_path / "whole", jobs)[0] == 0
    seconds, codes = 1, []
    while not codes or codes[-1] == OUT_OF_TIME:
        code, said = piece(tmp_path / "pieces", jobs, seconds)
        codes.append(code)
        seconds += 1  # a start takes seconds
        assert "Traceback" not in said
        if code:
            assert said.count("Time is up. Finished trainings are kept; the same command goes on from here.") == 1
    assert codes[-1] == 0
    assert len(codes) > 1
    assert same_tensors(*(load_file(tmp_path / name / "out" / "ticket.safetensors") for name in ("whole", "pieces")))


def test_time_that_was_up_and_went_unheard_is_up_again(monkeypatch):
    monkeypatch.setattr("lotto.cli.stopping.PATIENCE_SECONDS", 0.05)
    one, heard = Stopping(), 0
    with one.handled(program=False):
        one.unwind(0.05)
        for _ in range(2):
            try:
                time.sleep(30)
            except BaseException:
                heard += 1
        assert heard == 2
        assert one.stopped() == OUT_OF_TIME


@pytest.mark.parametrize(
    ("given", "said"), [("59s", "--for is at least 60s"), ("9", "A duration is"), ("0min", "at least 60s")]
)
def test_a_time_that_is_no_use_is_refused(given, said, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["imp", "mlp-mnist1d", "--for", given])
    assert ended.value.code == 2
    assert said in " ".join(capsys.readouterr().err.split())
