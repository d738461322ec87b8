"""How the command line starts: what it lists agrees with what there is, and it waits for nothing that it does not use."""

from __future__ import annotations

import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import small_recipe
from lotto import Job
from lotto.cli import commands
from lotto.cli.main import main
from lotto.execution.compute import get_or_compute
from lotto.recipe import presets
from lotto.recipe.titles import preset_titles

SLOW = ("torch", "numpy", "pandas", "scipy", "matplotlib", "numba", "loky", "safetensors", "jinja2", "PIL", "pooch")
CLI = Path(inspect.getfile(commands)).parent


def imported_by(scripts: list[str]) -> list[tuple[str, list[str]]]:
    """What each script printed, and which slow packages were imported when it ended: each in a clean interpreter.

    They are forks of one that has imported what each of them needs at least, and nothing of ours but the first step.
    """
    parent = f"""
import contextlib, io, json, os, sys
import rich.table, rich.logging, tyro
assert not set(sys.modules) & set({SLOW!r})
for script in {scripts!r}:
    sys.stdout.flush()
    if os.fork() == 0:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed), contextlib.suppress(SystemExit):
            exec(script)
        print(json.dumps([printed.getvalue(), sorted(set(sys.modules) & set({SLOW!r}))]), flush=True)
        os._exit(0)
    os.wait()
"""
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    found = [tuple(json.loads(line)) for line in done.stdout.splitlines()]
    assert len(found) == len(scripts), done.stderr
    return found


def typed(*arguments: str) -> str:
    return f"from lotto.cli.main import main; main({list(arguments)!r})"


def test_commands_that_compute_nothing_import_nothing_slow(store):
    run, _ = get_or_compute(store, Job(small_recipe(steps="3it"), label="the only one"))
    key, at = run.key, ["--store", str(store.root)]
    words = {
        (): "Missing subcommand",
        ("--version",): ", torch 2.",
        ("--help",): "Find winning tickets: iterative magnitude pruning",
        ("imq",): "Available subcommands: imp, power, run",
        ("--levels", "3"): "misplaced",
        ("imp",): "Missing from lotto imp",
        ("imp", "lenet-mnist", "--level", "3"): "Perhaps you meant",
        ("recipes",): "lenet-mnist-fast",
        ("ls", str(Path(__file__).parents[2] / "results")): "results below",
        ("store", "ls", *at): "the only one",
        ("store", "ls", "--store", "/nowhere"): "nothing is remembered here",
        ("store", "show", key, *at): "recipe.model",
        ("store", "verify", *at): "1 of 1 entries are whole",
        ("store", "gc", *at): "0 gone",
        ("store", "explain", key, key, *at): "The two keys were made of the same",
        ("store", "show", "zzz", *at): "No entry of",
        ("imp", "mlp-mnist"): "Unknown recipe 'mlp-mnist'. Choices: ",
        ("power", "nothing"): "Unknown recipe 'nothing'. Choices: ",
        ("run", "stabilizing.distances", "nothing"): "Unknown recipe 'nothing'. Choices: ",
        ("report", "/nowhere"): "/nowhere holds no result: there is no readable result.json in it.",
        ("export", "/nowhere/at-all"): "There is no file or folder '/nowhere/at-all'; `lotto ls` lists the results",
        **{(name, "--help"): f"usage: lotto {name}" for name in commands.COMMANDS},
    }
    for (arguments, text), (printed, slow) in zip(
        words.items(), imported_by([typed(*arguments) for arguments in words]), strict=True
    ):
        assert text in printed, arguments
        assert slow == [], arguments


def test_what_is_looked_for_is_seen_where_it_is_imported():
    ((_, slow),) = imported_by(["import lotto; lotto.Store"])
    assert {"torch", "numpy", "loky"} <= set(slow)


def test_the_list_of_commands_agrees_with_the_commands():
    files = {path.name.removesuffix("_command.py") for path in CLI.glob("*_command.py")}
    assert set(commands.COMMANDS) == files
    for name, line in commands.COMMANDS.items():
        assert inspect.getdoc(commands.command(name)).splitlines()[0] == line


@pytest.mark.parametrize("name", commands.COMMANDS)
def test_the_help_of_one_command_is_that_beside_all_others(name, capsys, monkeypatch):
    def help_of() -> str:
        with pytest.raises(SystemExit):
            main([name, "--help"])
        return capsys.readouterr().out

    alone = help_of()
    monkeypatch.setattr(commands, "_is_asked_for", lambda *_: True)
    assert help_of() == alone != ""


def test_a_shell_learns_the_options_of_all_commands(capsys):
    with pytest.raises(SystemExit):
        main(["--tyro-print-completion", "bash"])
    out = capsys.readouterr().out
    for option in ("--rewind-to", "--tracker", "--config", "--format", "--older-than", "--compact", "--repetitions"):
        assert option in out


def test_the_titles_of_the_presets_are_those_of_their_docstrings():
    assert preset_titles() == {name: inspect.getdoc(p).splitlines()[0] for name, p in presets.PRESETS.items()}
    assert [*preset_titles()] == [*presets.PRESETS]
    assert all(re.fullmatch(r"[A-Z].*\.", title) for title in preset_titles().values())


def test_the_command_line_imports_what_is_slow_only_in_the_commands():
    # A bare package stands for `lotto`, whose names import torch.
    script = f"""
import sys, types
package = sys.modules["lotto"] = types.ModuleType("lotto")
package.__path__ = {[str(CLI.parent)]!r}
import lotto.cli.main
print([name for name in ("torch", "numpy", "pandas", "lotto.recipe", "lotto.data") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
