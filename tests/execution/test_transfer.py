"""Entries that travel from store to store: the same bits, verified, beside what is there."""

from __future__ import annotations

import copy
import io
import tarfile
from collections.abc import Callable

import pytest

from conftest import same_tensors, small_recipe
from lotto import Job, Store
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.execution.compute import get_or_compute
from lotto.execution.transfer import keys_of, pack, unpack
from lotto.landscape import PathTask
from lotto.training.loop import train

SHORT = small_recipe(steps="8it")
PATH = PathTask(SHORT, SHORT.initial(0), SHORT.initial(1), 3)


@pytest.fixture
def filled(tmp_path):
    """Two trainings, one of them with a step on the way, a path, and a training that was cut off."""
    store = Store(tmp_path / "there")
    get_or_compute(store, Job(SHORT, 0, keep=(4,), label="first"))
    get_or_compute(store, Job(SHORT, 1))
    get_or_compute(store, PATH)
    points: list = []
    train(Job(SHORT, 2), on_checkpoint=lambda point: points.append(copy.deepcopy(point)), checkpoint_seconds=0.0)
    store.write_checkpoint(Job(SHORT, 2), points[3])
    return store


def packed(store: Store, keys: list[str] | None = None) -> bytes:
    out = io.BytesIO()
    assert pack(store, out, keys) == len(keys if keys is not None else keys_of(store))
    return out.getvalue()


def test_a_store_travels_whole(filled, tmp_path):
    here = Store(tmp_path / "here")
    came = unpack(io.BytesIO(packed(filled)), here)
    assert (len(came.added), came.extended, came.known, came.refused) == (4, [], [], {})
    for job in (Job(SHORT, 0, keep=(4,)), Job(SHORT, 1)):
        there, run = filled.lookup(job), here.lookup(job)
        assert same_tensors(run.weights, there.weights)
        assert run.history == there.history
    assert same_tensors(here.lookup(Job(SHORT, 0, keep=(4,))).at(4), filled.lookup(Job(SHORT, 0, keep=(4,))).at(4))
    assert here.lookup(PATH) == filled.lookup(PATH)
    began: list[int] = []
    run, computed = get_or_compute(here, Job(SHORT, 2), on_step=lambda step, loss: began.append(step))
    assert computed
    assert began[0] > 3, "it goes on from the checkpoint that came"
    assert same_tensors(run.weights, train(Job(SHORT, 2)).weights)
    again = unpack(io.BytesIO(packed(filled)), here)
    assert (again.added, again.extended, len(again.known)) == ([], [], 4)
    assert not list(here.root.glob("lotto-scratch-*")), "nothing is left of the arrival"


def test_states_that_are_not_there_are_added_and_nothing_is_rewritten(tmp_path):
    one, other = Store(tmp_path / "one"), Store(tmp_path / "other")
    get_or_compute(one, Job(SHORT, 0, keep=(2,)))
    get_or_compute(other, Job(SHORT, 0, keep=(5,)))
    folder = one.folder(Job(SHORT, 0).key)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.iterdir()}
    assert unpack(io.BytesIO(packed(other)), one).extended == [Job(SHORT, 0).key]
    assert {name: ((folder / name).read_bytes(), (folder / name).stat().st_mtime_ns) for name in before} == before
    run, whole = one.lookup(Job(SHORT, 0, keep=(2, 5))), train(Job(SHORT, 0, keep=(2, 5)))
    assert all(same_tensors(run.at(step), whole.at(step)) for step in (2, 5, 8))
    assert one.lookup(Job(SHORT, 0, keep=(2, 5, 6))) is None


def rewritten(content: bytes, change: Callable[[str, bytes], tuple[str, bytes]]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=io.BytesIO(content)) as source, tarfile.open(fileobj=out, mode="w") as target:
        for member in source:
            name, data = change(member.name, source.extractfile(member).read())
            about = tarfile.TarInfo(name)
            about.size = len(data)
            target.addfile(about, io.BytesIO(data))
    return out.getvalue()


def test_what_is_not_whole_is_refused_entry_by_entry(filled, tmp_path):
    here = Store(tmp_path / "here")
    key = Job(SHORT, 1).key
    wrong = rewritten(
        packed(filled), lambda n, d: (n, d[:-1] + bytes([d[-1] ^ 1])) if n.startswith(key) and "state" in n else (n, d)
    )
    came = unpack(io.BytesIO(wrong), here)
    assert list(came.refused) == [key]
    assert "checksum" in came.refused[key]
    assert len(came.added) == 3
    assert here.lookup(Job(SHORT, 1)) is None
    other_key = rewritten(packed(filled, [key]), lambda n, d: (n.replace(key, "0" * 32), d))
    assert "another job" in unpack(io.BytesIO(other_key), here).refused["0" * 32]


@pytest.mark.parametrize("name", ["../escaped", "/etc/passwd", f"{'0' * 32}/../../x", f"{'0' * 32}/evil.py"])
def test_no_other_file_is_written(filled, tmp_path, name):
    content = rewritten(packed(filled), lambda n, d: (name, d))
    with pytest.raises(UsageError, match="no file of an entry"):
        unpack(io.BytesIO(content), Store(tmp_path / "deep" / "here"))
    assert not list(tmp_path.glob("**/escaped")) + list(tmp_path.glob("**/evil.py")) + list(tmp_path.glob("**/x"))


def test_a_link_is_no_file_of_an_entry(tmp_path):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        link = tarfile.TarInfo(f"{'0' * 32}/history.json")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    with pytest.raises(UsageError, match="no file of an entry"):
        unpack(io.BytesIO(out.getvalue()), Store(tmp_path / "here"))


@pytest.mark.parametrize("part", [0.1, 0.5, 0.9])
def test_a_part_of_an_archive_is_said_to_be_one(filled, tmp_path, part):
    content = packed(filled)
    content = content.rstrip(b"\0")
    with pytest.raises(UsageError, match="packed store"):
        unpack(io.BytesIO(content[: int(part * len(content))]), Store(tmp_path / "here"))


def test_the_commands(filled, tmp_path, capsys):
    file, there, here = tmp_path / "runs.tar", str(filled.root), str(tmp_path / "here")
    main(["store", "pack", str(file), "--store", there])
    assert "4 entries" in capsys.readouterr().out
    main(["store", "unpack", str(file), "--store", here])
    assert "4 added" in capsys.readouterr().out
    main(["store", "unpack", str(file), "--store", here])
    assert "4 known" in capsys.readouterr().out
    for wrong in (["store", "pack", "--store", there], ["store", "unpack", str(tmp_path / "missing"), "--store", here]):
        with pytest.raises(SystemExit) as stopped:
            main(wrong)
        assert stopped.value.code == 2
        said = capsys.readouterr().err
        assert "lotto store pack FILE" in said or "missing" in said
    (tmp_path / "text").write_text("no archive")
    with pytest.raises(SystemExit):
        main(["store", "unpack", str(tmp_path / "text"), "--store", here])
    assert "no packed store" in " ".join(capsys.readouterr().err.split())
