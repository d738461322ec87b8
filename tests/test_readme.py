"""Every Python block of the README runs as it stands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import lotto
from lotto import recipes

README = (Path(__file__).parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_python_blocks_run(block, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len([line for line in block.splitlines() if line.strip()]) <= 25
    exec(compile(block, "README", "exec"), {"__name__": "readme"})
    assert "of the weights, error" in capsys.readouterr().out
    assert lotto.Ticket.load(tmp_path / "ticket.safetensors").density <= 1


def test_there_is_a_block_and_commands_name_real_recipes():
    assert BLOCKS
    for name in re.findall(r"lotto imp (\S+)", README):
        assert name in recipes.PRESETS, name
