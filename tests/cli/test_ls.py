"""``lotto ls``, and the tables of folders as texts: a line for each result, whatever else lies there."""

from __future__ import annotations

import io
import json
import os
import re
from pathlib import Path

import pandas as pd
import pytest

import lotto
from conftest import small_recipe
from lotto import papers
from lotto.cli import ls_command
from lotto.cli.main import main
from lotto.execution.serial import Serial
from lotto.experiments.results import FORMAT
from lotto.report.experiments import save_experiment
from lotto.report.save import describe, save_result


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A result with a matching level, one that decides nothing, an experiment; and what is none."""
    top = tmp_path_factory.mktemp("results")
    engine = Serial(lotto.Store(tmp_path_factory.mktemp("store")))
    recipe = small_recipe(tolerance=50.0)
    matching = lotto.imp(recipe, levels=2, rate=0.5, replicates=2, controls=(), engine=engine)
    assert matching.matching_level == 2
    save_result(matching, top / "a" / "matching", "c", 1.0)
    one = lotto.imp(recipe.replace(name="alone"), levels=1, rate=0.5, replicates=1, controls=(), engine=engine)
    one.save(top / "one")
    distances = papers.get("stabilizing.distances")
    options = distances.options(recipe, {"replicates": 1, "levels": 1})
    save_experiment(distances, options, distances.run(options, engine), top / "b", "c", 1.0)
    (top / "a" / "package.json").write_text("{}")
    (top / "data.json").write_text("[1, 2")
    (top / ".hidden").mkdir()
    (top / ".hidden" / "result.json").write_text((top / "one" / "result.json").read_text())
    return top


def listed(folder, capsys) -> list[str]:
    main(["ls", str(folder)])
    return capsys.readouterr().out.splitlines()


def test_a_line_for_each_result(folder, capsys):
    os.utime(folder / "one" / "result.json", (1_700_000_000, 1_700_000_000))
    lines = listed(folder, capsys)
    assert len(lines) == 4
    found = [re.split(r" {2,}", line) for line in lines[:3]]
    assert [cells[0] for cells in found] == [str(folder / name) for name in ("a/matching", "b", "one")]
    assert found[0][1:3] == ["small", "25 % left"]
    assert re.fullmatch(r"matching: error \S+ %, dense \S+ %, n = 2", found[0][3])
    assert found[1][1:3] == ["small", f"stabilizing.distances: {papers.get('stabilizing.distances').title}"]
    assert found[2][1:3] == ["alone", "50 % left"]
    assert found[2][3].startswith("not decided (n = 1): error ")
    assert found[2][4].startswith("2023-11-1")
    assert lines[3] == f"3 results below {folder}."


def test_where_nothing_matches_and_where_nothing_is(folder, tmp_path, capsys):
    content = json.loads((folder / "one" / "result.json").read_text())
    content |= {"matching_level": 0, "chosen_level": 0}
    (tmp_path / "result.json").write_text(json.dumps(content))
    assert re.split(r" {2,}", listed(tmp_path, capsys)[0])[2:4][0] == "–"
    assert "no pruned level matches: error" in listed(tmp_path, capsys)[0]
    old = {k: v for k, v in content.items() if k not in ("matching_level", "chosen_level")}
    old["table"] = [{k: v for k, v in row.items() if k != "verdict"} for row in content["table"]]
    (tmp_path / "result.json").write_text(json.dumps(old))
    assert "result below" in listed(tmp_path, capsys)[-1]
    (tmp_path / "result.json").write_text(json.dumps({"format": "lotto.result", "table": []}))
    assert listed(tmp_path, capsys)[0] == f"{tmp_path}/result.json cannot be read as a result."
    (tmp_path / "result.json").unlink()
    assert listed(tmp_path, capsys) == [f"No results below {tmp_path}."]
    with pytest.raises(SystemExit) as stopped:
        main(["ls", str(tmp_path / "nowhere")])
    assert stopped.value.code == 2
    assert "lotto ls FOLDER" in capsys.readouterr().err


def test_results_are_known_by_what_they_are_written_with():
    assert ls_command.EXPERIMENT == FORMAT
    assert f'"format": "{ls_command.TICKETS}"' in Path(str(describe.__code__.co_filename)).read_text()


def test_tables_of_folders_as_texts(folder, capsys):
    main(["report", str(folder / "one"), "--format", "csv"])
    found = pd.read_csv(io.StringIO(capsys.readouterr().out))
    assert found["level"].tolist() == [0, 1]
    assert found["error"].tolist() == pd.read_csv(folder / "one" / "table.csv")["error"].tolist()
    main(["report", str(folder / "one"), "--format", "markdown"])
    assert capsys.readouterr().out == lotto.load(folder / "one").table_as("markdown")
    main(["report", str(folder / "b"), "--format", "latex"])
    text = capsys.readouterr().out
    assert text.startswith("\\begin{table}")
    assert "STAB" in text
    main(["report", str(folder / "b"), "--format", "csv"])
    rows = pd.read_csv(io.StringIO(capsys.readouterr().out))
    pd.testing.assert_frame_equal(rows, pd.read_csv(folder / "b" / "distances.csv"))
    with pytest.raises(SystemExit):
        main(["report", str(folder / "one"), "--format", "html"])
    assert "Unknown format of a table 'html'. Choices: csv, latex, markdown." in capsys.readouterr().err
