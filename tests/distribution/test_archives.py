"""The wheel and the source archive, made of a copy of the checkout, hold the package and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

from archives import copied, wrong_in_sdist, wrong_in_wheel

BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def built(kind: str, source: Path, out: Path) -> Path:
    """What setuptools makes of a folder, as package installers ask it to."""
    command = [sys.executable, "-c", BUILD, f"build_{kind}", str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return out / done.stdout.splitlines()[-1]


def test_archives_hold_the_package_and_nothing_else(tmp_path: Path) -> None:
    """As it is published: the wheel is made of the source archive, not of the checkout."""
    source = copied(tmp_path / "source")
    (source / "src" / "lotto" / "__pycache__").mkdir()
    (source / "src" / "lotto" / "__pycache__" / "left.cpython-311.pyc").write_bytes(b"")
    for folder in ("lotto-results", "results"):
        (source / folder).mkdir()
        (source / folder / "README.md").write_text("mine")
    sdist = built("sdist", source, tmp_path)
    assert wrong_in_sdist(sdist) == []
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path / "unpacked", filter="data")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    wheel = built("wheel", unpacked, tmp_path)
    assert wheel.name.endswith("-py3-none-any.whl")  # nothing is compiled
    assert wrong_in_wheel(wheel) == []


def test_what_is_missing_or_too_much_is_named(tmp_path: Path) -> None:
    wheel, sdist = tmp_path / "lotto.whl", tmp_path / "lotto.tar.gz"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("lotto_tickets-1.dist-info/METADATA", "Name: lotto-tickets")
        archive.writestr("tests/test_it.py", "")
    assert "the wheel lacks lotto/py.typed" in wrong_in_wheel(wheel)
    assert "the wheel has tests/test_it.py, which is no file of the package" in wrong_in_wheel(wheel)
    assert "the metadata lacks 'License-Expression: MIT'" in wrong_in_wheel(wheel)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "table.csv").write_text("")
    with tarfile.open(sdist, "w:gz") as archive:
        archive.add(tmp_path / "results", "lotto-1/results")
    assert "the source archive has results/table.csv" in wrong_in_sdist(sdist)
    assert "the source archive lacks CHANGELOG.md" in wrong_in_sdist(sdist)
