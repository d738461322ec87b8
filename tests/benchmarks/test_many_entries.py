"""A store of some thousand entries: found at once, listed as a stream, in little memory."""

from __future__ import annotations

import tracemalloc

import pytest

from lotto.benchmarks import many_entries
from lotto.cli.main import main
from lotto.execution import admin
from lotto.execution.compute import lookup


def test_synthetic_entries_are_entries(store):
    tasks = many_entries.entries(store, 20)
    assert [lookup(store, task) for task in tasks] == [{"number": number} for number in range(20)]
    found = admin.survey(store)
    assert {entry.status for entry in found} == {"finished"}
    assert {entry.key for entry in found} == {task.key for task in tasks}
    assert [admin.problem(store, entry) for entry in found] == [""] * 20
    assert admin.collect(store) == []


@pytest.mark.extras
def test_a_large_store_is_read_in_little_memory(store, capsys):
    tasks = many_entries.entries(store, 4000)
    assert many_entries._lookup(store, tasks) <= 0.005
    (store.folder(tasks[7].key) / "outcome.json").write_text("damaged")
    said = {}
    for words, most in [(["ls"], 15 << 20), (["show", tasks[0].key], 1 << 20), (["gc", "--keep-ends"], 3 << 20)]:
        tracemalloc.start()
        main(["store", *words, "--store", str(store.root)])
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        said[words[0]] = capsys.readouterr().out.splitlines()
        assert peak < most, words
    assert [line.split()[0] for line in said["ls"][:-1]] == sorted(task.key[:10] for task in tasks)
    assert "4000 finished" in said["ls"][-1]
    with pytest.raises(SystemExit):
        main(["store", "verify", "--store", str(store.root)])
    lines = capsys.readouterr().out.splitlines()
    assert lines == [lines[0], "3999 of 4000 entries are whole. The others are computed anew when wanted."]
    assert lines[0].startswith(f"{tasks[7].key}: the checksum of outcome.json is wrong")


@pytest.mark.extras
def test_the_benchmark_of_a_store(monkeypatch):
    monkeypatch.setattr(many_entries, "FEW", 10)
    rows = many_entries.large_store(300)
    assert [row["what"] for row in rows] == ["lookup", "ls", "show", "verify", "gc --dry-run"]
    assert all(row["seconds"] > 0 for row in rows)
    assert abs(rows[2]["mebibytes"]) < 10
    assert many_entries.large_store_table(rows).row_count == 5
