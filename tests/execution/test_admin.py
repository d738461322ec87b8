"""What a store says of itself: its entries, whether they are whole, what can go, what two of them differ in."""

from __future__ import annotations

import copy
import os
import time

import pytest

from conftest import same_tensors, small_recipe
from lotto import Job, Store
from lotto.cli.main import main
from lotto.core import fingerprint
from lotto.core.errors import UsageError
from lotto.core.seconds import seconds_of
from lotto.execution import admin, entries
from lotto.execution.compute import get_or_compute
from lotto.execution.serial import Serial
from lotto.landscape import PathTask
from lotto.training.loop import train

SHORT = small_recipe(steps="8it")


@pytest.fixture
def filled(store):
    """Two trainings, one of them with a step on the way, and a path."""
    get_or_compute(store, Job(SHORT, 0, keep=(4,), label="first"))
    get_or_compute(store, Job(SHORT.replace(optimizer__lr=0.2), 1))
    get_or_compute(store, PathTask(SHORT, SHORT.initial(0), SHORT.initial(1), 3))
    return store


def cut_off(store: Store, seed: int) -> Job:
    """A training that has left a checkpoint and no more."""
    job, points = Job(SHORT, seed), []
    train(job, on_checkpoint=lambda point: points.append(copy.deepcopy(point)), checkpoint_seconds=0.0)
    store.write_checkpoint(job, points[3])
    return job


def removed(found):
    return sorted(each.why for each in found)


def test_entries_are_listed_with_what_they_are(filled):
    job = cut_off(filled, 7)
    found = admin.survey(filled)
    assert [e.status for e in found] == ["finished"] * 3 + ["unfinished"]
    texts = [admin.words(e) for e in found]
    assert texts[0].startswith("mlp-24-16 on Arrays(rings, 240 training examples), SGD(lr=0.1")
    assert texts[0].endswith("dense, steps 0 to 8, order 0")
    assert texts[2].startswith("path of mlp-24-16 on")
    assert admin.unfinished_step(found[3]) == 4
    for entry in found:
        assert entry.size == sum(p.stat().st_size for p in entry.folder.iterdir())
    assert admin.find(filled, job.key[:12]).folder == filled.folder(job.key)
    with pytest.raises(UsageError, match=r"No entry of .* has a key that begins with 'xyz'"):
        admin.find(filled, "xyz")
    with pytest.raises(UsageError, match="4 entries have a key that begins with ''"):
        admin.find(filled, "")


def test_many_entries_are_shown_at_once_and_few_by_age(filled, monkeypatch):
    assert [e.key for e in admin.listed(filled)] == [e.key for e in admin.survey(filled)]
    by_key = sorted(admin.survey(filled), key=lambda entry: entry.key)
    assert [*admin.walk(filled)] == by_key
    assert [*admin.walk(filled, by_key[1].key[:8])] == by_key[1:2]
    looked, real = [], admin._entry
    monkeypatch.setattr(admin, "_entry", lambda store, folder: looked.append(folder) or real(store, folder))
    monkeypatch.setattr(admin, "SORTED", 1)
    found = admin.listed(filled)
    assert next(found) == by_key[0]
    assert len(looked) == 2, "not the whole store"
    assert [*found] == by_key[1:]
    looked.clear()
    assert admin.find(filled, by_key[2].key[:9]) == by_key[2]
    assert [folder.name for folder in looked] == [by_key[2].key]
    (filled.root / "ab").write_text("no folder")
    assert [*admin.walk(filled)] == by_key
    assert [*admin.walk(Store(filled.root / "nowhere"))] == []


def test_every_checksum_is_verified(filled):
    assert [admin.problem(filled, entry) for entry in admin.survey(filled)] == ["", "", ""]
    for name, folder in ((p.name, p.parent) for e in admin.survey(filled) for p in sorted(e.folder.iterdir())):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[:-3] + b"!" + content[-2:])
        whole = [admin.problem(filled, entry) for entry in admin.survey(filled) if entry.status == "finished"]
        assert len(whole) - whole.count("") == (0 if name.startswith("manifest") else 1), name
        (folder / name).write_bytes(content)


def test_nothing_of_use_is_removed_unless_it_is_asked_for(filled):
    cut_off(filled, 7)
    assert admin.collect(filled) == []
    assert admin.collect(filled, older_than=60.0) == []
    assert len(admin.survey(filled)) == 4


def test_what_is_asked_for_goes_and_a_dry_run_removes_nothing(filled):
    job = cut_off(filled, 7)
    assert removed(admin.collect(filled, unfinished=True, dry_run=True)) == ["unfinished"]
    assert removed(admin.collect(filled, older_than=60.0, unfinished=True)) == [], "it is not that old"
    assert removed(admin.collect(filled, unfinished=True)) == ["unfinished"]
    assert not filled.folder(job.key).exists()
    old = filled.folder(Job(SHORT, 0).key)
    for path in old.iterdir():
        os.utime(path, (time.time() - 10 * 86400,) * 2)
    assert removed(admin.collect(filled, older_than=seconds_of("1w"), dry_run=True)) == ["older"]
    assert removed(admin.collect(filled, older_than=seconds_of("1w"))) == ["older"]
    assert len(admin.survey(filled)) == 2
    assert [path.name for path in filled.root.rglob("*") if "removed" in path.name or path.suffix == ".lock"] == []


def test_ends_are_kept_and_what_is_on_the_way_goes(filled):
    get_or_compute(filled, Job(SHORT, 0, keep=(2, 6)))
    folder = filled.folder(Job(SHORT, 0).key)
    dry = admin.collect(filled, keep_ends=True, dry_run=True)
    found = admin.collect(filled, keep_ends=True)
    assert dry == found
    assert sorted(each.path.name for each in found) == [f"state-{step}.safetensors" for step in (2, 4, 6)]
    assert sorted(p.name for p in folder.iterdir()) == ["history.json", "manifest-2.json", "state-8.safetensors"]
    assert all(admin.problem(filled, entry) == "" for entry in admin.survey(filled))
    run, trained = get_or_compute(filled, Job(SHORT, 0))
    assert not trained
    assert set(run.states) == {8}
    again, trained = get_or_compute(filled, Job(SHORT, 0, keep=(4,)))
    assert trained
    assert same_tensors(again.at(4), train(Job(SHORT, 0, keep=(4,))).at(4))
    assert admin.collect(filled) == []


def test_files_that_no_manifest_names_go_and_those_of_every_manifest_stay(filled):
    get_or_compute(filled, Job(SHORT, 0, keep=(2,)))
    folder = filled.folder(Job(SHORT, 0).key)
    before = {p.name for p in folder.iterdir()}
    (folder / "checkpoint.safetensors").write_bytes(b"left")
    (folder / "state-5.safetensors").write_bytes(b"of an extension that was killed")
    (filled.root / "aa").mkdir(exist_ok=True)
    (filled.root / "aa" / f"{'a' * 32}.lock").touch()
    (filled.root / "aa" / "mine.lock").touch()
    assert len(admin.collect(filled)) == 3
    assert {p.name for p in folder.iterdir()} == before
    assert (filled.root / "aa" / "mine.lock").exists()


def test_what_a_running_process_holds_is_left(filled):
    job = cut_off(filled, 7)
    with filled.locked(job.key):
        (found,) = admin.collect(filled, unfinished=True)
        assert found.held
        assert filled.read_checkpoint(job) is not None
    assert not admin.collect(filled, unfinished=True)[0].held


def test_damaged_entries_that_were_set_aside_go(filled, caplog):
    job = Job(SHORT, 0)
    (filled.folder(job.key) / "history.json").write_text("[]")
    get_or_compute(filled, job)
    assert [e.status for e in admin.survey(filled)].count("set aside") == 1
    assert removed(admin.collect(filled)) == ["set aside, being damaged, or half removed"]
    assert not get_or_compute(filled, job)[1]


def test_entries_of_a_former_version_are_named_once_counted_and_removed(filled, monkeypatch, caplog):
    schema = fingerprint.SCHEMA + 1
    monkeypatch.setattr(fingerprint, "SCHEMA", schema)
    monkeypatch.setattr(entries, "SCHEMA", {"schema": schema})
    for _ in range(2):
        Serial(Store(filled.root)).run([Job(SHORT, 3)])
    assert caplog.text.count("holds 3 entries of a former version") == 1
    assert [e.status for e in admin.survey(filled)] == ["former"] * 3 + ["finished"]
    main(["store", "ls", "--store", str(filled.root)])
    assert removed(admin.collect(filled)) == ["of a former version"] * 3
    assert [e.status for e in admin.survey(filled)] == ["finished"]


def test_a_store_of_this_version_says_nothing(filled, caplog):
    for _ in range(2):
        Serial(Store(filled.root)).run([Job(SHORT, 0)])
    assert "former" not in caplog.text


@pytest.mark.parametrize(
    ("age", "expected"), [("90m", 5400.0), ("12h", 43200.0), ("1.5d", 129600.0), ("2w", 1209600.0)]
)
def test_ages(age, expected):
    assert seconds_of(age) == expected


def test_an_age_that_cannot_be_read():
    with pytest.raises(UsageError, match="10min, 12h, 30d, 2w; got 'soon'"):
        seconds_of("soon")


def said(capsys, *arguments: str) -> str:
    main(["store", *arguments])
    return capsys.readouterr().out


def test_the_command(filled, capsys, monkeypatch):
    monkeypatch.setenv("LOTTO_STORE", str(filled.root))
    one, other = Job(SHORT, 0).key, Job(SHORT.replace(optimizer__lr=0.2), 1).key
    cut_off(filled, 7)
    assert "3 finished" in said(capsys, "ls")
    assert "first: mlp-24-16 on Arrays(rings" in said(capsys, "ls", one[:6])
    shown = said(capsys, "show", one[:9])
    for text in ("label: first", "kept steps: 4, 8", "recipe.optimizer: SGD(lr=0.1", "made by: torch", "state-4.safe"):
        assert text in shown, text
    assert "a checkpoint at step 4" in said(capsys, "show", Job(SHORT, 7).key)
    assert "3 of 3 entries are whole." in said(capsys, "verify")
    explained = said(capsys, "explain", one, other).splitlines()
    assert "recipe.optimizer.lr: 0.1 | 0.2" in explained
    assert "start.weights" in "".join(explained)
    assert "1 would go" in said(capsys, "gc", "--unfinished", "--dry-run")
    assert "1 gone" in said(capsys, "gc", "--unfinished")
    (filled.folder(one) / "history.json").write_text("[]")
    with pytest.raises(SystemExit) as stop:
        main(["store", "verify"])
    assert stop.value.code == 1
    for wrong in (["explain", one], ["ls", "--dry-run"], ["show", "nothing"]):
        with pytest.raises(SystemExit) as stop:
            main(["store", *wrong])
        assert stop.value.code == 2
