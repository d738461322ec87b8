"""The command line as a user meets it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

import interpreter
from lotto.cli.main import main


def lotto(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "lotto", *arguments],
        env={**os.environ, "COLUMNS": "120", **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_imp_end_to_end_and_again(tmp_path, capsys):
    arguments = (
        "imp", "mlp-mnist1d", "--steps", "60it", "--levels", "2", "--replicates", "2", "--control-levels", "2",
        "--jobs", "2", "--out", str(tmp_path / "out"), "--store", str(tmp_path / "store"), "--set", "evaluations=2",
    )  # fmt: skip
    command = "from lotto.cli.main import main; main()"
    first = interpreter.run(command, *arguments, environment={**os.environ, "COLUMNS": "120"})
    assert first.returncode == 0, first.stderr
    for text in ("replicate 2  level  2", "match", "new init", "random mask", "10 computed, 0 remembered"):
        assert text in first.stdout, text
    assert "atching ticket: level" in first.stdout or "No pruned level matches" in first.stdout
    assert (tmp_path / "out" / "report.html").exists()
    main(list(arguments))
    assert "0 computed, 10 remembered" in capsys.readouterr().out
    main(["report", str(tmp_path / "out")])
    assert "report.html" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["imp", "mlp-mnist"], "Unknown recipe 'mlp-mnist'. Choices: .* Did you mean 'mlp-mnist1d'?"),
        (["imp", "mlp-mnist1d", "--rate", "1.5"], "greater than 0 and less than 1; got 1.5"),
        (["imp", "mlp-mnist1d", "--rewind-to", "99ep"], "is not before the end of training"),
        (["imp", "mlp-mnist1d", "--set", "lr"], "--set takes field=value"),
        (["imp", "mlp-mnist1d", "--set", "optimizer.rate=1"], "Unknown field of optimizer 'rate'"),
        (["imp", "mlp-mnist1d", "--set", "optimizer.lr=fast"], "."),
        (["imp", "mlp-mnist1d", "--control-levels", "a,b"], "whole numbers separated by commas"),
        (["imp", "mlp-mnist1d", "--device", "gpu"], "device 'gpu' cannot be used"),
        (["imp", "mlp-mnist1d", "--jobs", "none"], "'auto' or a whole number"),
        (["imp", "mlp-mnist1d", "--out", "/dev/null"], "Cannot write to /dev/null: .* Name another folder with --out"),
        (["imp", "mlp-mnist1d", "--out", "/dev/null/x/[/b]"], r"Cannot write to /dev/null/x/\[/b\]: Not a directory"),
        (["imp", "[/b]\x1b[31m\udcff"], r"Unknown recipe '\[/b\]\\x1b\[31m\\udcff'"),
        (["run", "stabilizing.distances", "--orders", "99999999999"], "at least 2 data orders, and at most"),
        (["report", "/dev/null"], "holds no result"),
        (["data", "get", "mnst"], "Unknown data set 'mnst'. .* Did you mean 'mnist'?"),
        (["data", "get"], "Name a data set"),
        (["report", "/nowhere"], "holds no result"),
        (["bench", "lenett"], "Unknown benchmark 'lenett'"),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, text, capfd):
    import re

    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    err = capfd.readouterr().err
    assert stopped.value.code == 2
    assert re.search(text, " ".join(err.split())), err
    assert "Traceback" not in err


def test_an_unknown_option_suggests_the_nearest():
    done = lotto("imp", "mlp-mnist1d", "--level", "3")
    assert done.returncode == 2
    assert "--levels" in done.stderr
    assert "Traceback" not in done.stderr


def test_other_options_go_to_another_folder_which_is_said(tmp_path, capsys):
    def imp(*options):
        main(["imp", "mlp-mnist1d", "--steps", "20it", "--levels", "1", "--replicates", "1", "--controls", "none",
              "--jobs", "1", "--out", str(tmp_path / "[b] $x$"), *options])  # fmt: skip
        return capsys.readouterr().out

    assert "another experiment" not in imp()
    assert "another experiment" not in imp("--device", "cpu")
    assert f"{tmp_path}/[b] $x$ holds another experiment; the results go to {tmp_path}/[b] $x$-2." in imp("--seed", "1")
    assert sorted(path.name for path in tmp_path.glob("[[]*")) == ["[b] $x$", "[b] $x$-2"]


def test_what_the_system_refuses_and_what_nobody_foresaw_is_a_line(monkeypatch, capfd):
    from lotto.recipe import presets

    for error, words in [
        (OSError(5, "Input/output error", "x" * 1000), "lotto: The system refuses: Input/output error (xxx"),
        (RuntimeError("odd\x1b"), "lotto: Unforeseen RuntimeError: odd\\x1b (LOTTO_TRACEBACK=1 shows"),
    ]:
        monkeypatch.setattr(presets, "get", lambda name, error=error: (_ for _ in ()).throw(error))
        with pytest.raises(SystemExit) as stopped:
            main(["imp", "mlp-mnist1d"])
        assert stopped.value.code == 1
        err = capfd.readouterr().err
        assert err.startswith(words)
        assert (len(err) < 400, err.count("\n")) == (True, 1)
        monkeypatch.setenv("LOTTO_TRACEBACK", "1")
        with pytest.raises(type(error)):
            main(["imp", "mlp-mnist1d"])
        monkeypatch.delenv("LOTTO_TRACEBACK")


def test_signs_that_the_encoding_lacks_are_written_in_others(tmp_path):
    done = lotto("report", "ä ±\udcff", PYTHONIOENCODING="ascii")
    assert done.returncode == 2
    assert "\\xe4 +-\\udcff holds no result" in done.stderr


def test_lists(capsys):
    main(["recipes"])
    main(["data", "list"])
    out = capsys.readouterr().out
    for name in ("lenet-mnist-sgd", "resnet20-cifar10-warmup", "mnist1d", "cifar100"):
        assert name in out
