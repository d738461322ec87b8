"""Options from a file: as if typed, unless they are."""

from __future__ import annotations

import re

import pytest

from lotto.cli.commands import command
from lotto.cli.config import options_of, with_config
from lotto.cli.main import main
from lotto.core.errors import UsageError


@pytest.fixture
def read(tmp_path):
    """What a file and typed words come to, for a command."""

    def arguments(content: str, *typed: str, name: str = "imp") -> list[str]:
        path = tmp_path / "options.toml"
        path.write_text(content)
        return with_config(name, command(name), ["lenet", "--config", str(path), *typed])

    return arguments


def test_options_of_every_kind_are_typed(read):
    content = """
levels = 8
rate = 0.3
rewind_to = "500it"
densities = [0.5, 0.25]
control-levels = [1, 2]
controls = ["random"]
one_shot = true
adaptive = false
compile = true
tracker = ["a", "b:c"]
set = ["optimizer.momentum=0.9"]
"""
    assert read(content) == [
        "--levels=8", "--rate=0.3", "--rewind-to=500it", "--densities=0.5,0.25", "--control-levels=1,2",
        "--controls=random", "--one-shot", "--compile=True", "--tracker=a", "--tracker=b:c",
        "--set=optimizer.momentum=0.9", "lenet",
    ]  # fmt: skip
    assert read("random_chain = false", name="run") == ["--no-random-chain", "lenet"]
    assert read("random_chain = true", name="run") == ["lenet"]
    assert read("look_at = [3, 5]", name="run") == ["--eval-levels=3,5", "lenet"]
    assert read("eval-levels = [3, 5]", "--look-at", "4", name="run") == ["lenet", "--look-at", "4"]


def test_what_is_typed_wins(read):
    content = 'levels = 8\nseed = 1\none-shot = true\nset = ["optimizer.lr=0.5", "steps=9ep", "init=module"]'
    assert read(content, "--levels", "3", "--seed=2", "--one-shot", "--lr", "0.1", "--steps=1ep") == [
        "--set=init=module", "lenet", "--levels", "3", "--seed=2", "--one-shot", "--lr", "0.1", "--steps=1ep",
    ]  # fmt: skip
    # Of what may be typed several times the last counts, which is the typed one.
    assert read('set = "init=module"', "--set", "init=kaiming-normal")[-2:] == ["--set", "init=kaiming-normal"]
    assert read("random_chain = false", "--no-random-chain", name="run") == ["lenet", "--no-random-chain"]


def test_fields_of_a_recipe_are_a_table(read):
    content = '[set]\nsteps = "8ep"\noptimizer = {lr = 0.05, momentum = 0.9}\n[set.schedule]\nkind = "cosine"'
    assert read(content) == [
        '--set=steps="8ep"', "--set=optimizer.lr=0.05", "--set=optimizer.momentum=0.9", '--set=schedule.kind="cosine"',
        "lenet",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("levls = 8", r"Unknown option of lotto imp in .*options.toml 'levls'. Choices: .*Did you mean 'levels'"),
        ("[levels]\na = 1", r"levels in a --config file is a number, a text or a list of such; got {'a': 1}"),
        ("one-shot = 1", r"one-shot in a --config file is true or false; got 1"),
        ("set = 3", r"set in a --config file is a text or a list of texts; got 3"),
        ("levels = ", r"is no TOML \(.*\). A line is, for instance: levels = 8"),
        ("config = 'x'", r"Unknown option of lotto imp in .* 'config'"),
    ],
)
def test_what_is_no_option_is_one_sentence(read, content, said):
    with pytest.raises(UsageError, match=said):
        read(content)


def test_files_that_are_not_there_and_two_files(tmp_path):
    with pytest.raises(UsageError, match=r"--config '.*/none.toml' cannot be read: No such file"):
        with_config("imp", command("imp"), ["x", f"--config={tmp_path}/none.toml"])
    with pytest.raises(UsageError, match="--config names one file; got a and b"):
        with_config("imp", command("imp"), ["x", "--config=a", "--config", "b"])


@pytest.mark.parametrize("name", ["imp", "run"])
def test_every_option_of_the_help_can_stand_in_a_file(name, capsys):
    with pytest.raises(SystemExit):
        main([name, "--help"])
    shown = set(re.findall(r"[ (,]--(?:no-)?([a-z][a-z-]+)", capsys.readouterr().out))
    known = options_of(command(name))
    assert shown - {"help", "config"} == set(known)
    assert {known[alias].name for alias in ("track", "look-at") if alias in known} <= {"tracker", "eval-levels"}


def test_the_command_does_what_file_and_words_say(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small.toml").write_text(
        'levels = 3\nreplicates = 1\ncontrols = "none"\njobs = 1\nout = "here"\nstore = "runs"\nsteps = "20it"\n'
        "[set]\nevaluations = 1\noptimizer.lr = 0.05\n"
    )
    main(["imp", "mlp-mnist1d", "--config", "small.toml", "--levels", "1"])
    said = capsys.readouterr().out
    assert "2 computed, 0 remembered" in said  # the dense network and one level
    main(["ls", "here"])
    assert re.search(r"^here  mlp-mnist1d  .*n = 1  \d{4}-\d\d-\d\d", capsys.readouterr().out)
    with pytest.raises(SystemExit) as stopped:
        main(["imp", "mlp-mnist1d", "--config", "none.toml"])
    assert stopped.value.code == 2
    assert "cannot be read" in capsys.readouterr().err
