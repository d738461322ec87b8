"""What the two archives that are published hold, and what they must not."""

from __future__ import annotations

import subprocess
import tarfile
import zipfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).parents[2]
PACKAGE = PurePosixPath("src/lotto")
JUNK = {"__pycache__", ".venv", "lotto-results", "results", "build", "dist", ".git", ".github", ".ci"}
BESIDE = ("LICENSE", "README.md", "CHANGELOG.md", "CITATION.cff", "SECURITY.md", "pyproject.toml", "Makefile")


def tracked(*below: str) -> set[PurePosixPath]:
    """Files of the checkout that belong to the project."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *below]
    found = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return {PurePosixPath(name) for name in found.stdout.split("\0") if name and (ROOT / name).is_file()}


def copied(folder: Path) -> Path:
    """A copy of the project's files but stored results, in which archives are made and nothing is left in the checkout."""
    for name in tracked():
        if name.parts[0] == "results":
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes((ROOT / name).read_bytes())
    return folder


def wrong_in_wheel(wheel: Path) -> list[str]:
    """What is missing in a wheel, or too much; empty if nothing is."""
    with zipfile.ZipFile(wheel) as archive:
        names = {PurePosixPath(name) for name in archive.namelist()}
        about = next(name for name in names if name.name == "METADATA")
        metadata = archive.read(str(about)).decode()
    wanted = {PurePosixPath("lotto", name.relative_to(PACKAGE)) for name in tracked(str(PACKAGE))}
    wanted.add(about.parent / "licenses" / "LICENSE")
    own = {about.parent / name for name in ("METADATA", "WHEEL", "RECORD", "entry_points.txt", "top_level.txt")}
    lacks = [f"the wheel lacks {name}" for name in sorted(wanted - names)]
    more = [f"the wheel has {name}, which is no file of the package" for name in sorted(names - wanted - own)]
    said = ("License-Expression: MIT", "Author: the lotto authors", "Requires-Python: >=3.10", "Provides-Extra: vision")
    return [*lacks, *more, *(f"the metadata lacks {line!r}" for line in said if line not in metadata)]


def wrong_in_sdist(sdist: Path) -> list[str]:
    """What is missing in a source archive, or too much; empty if nothing is."""
    with tarfile.open(sdist) as archive:
        names = {PurePosixPath(*PurePosixPath(each.name).parts[1:]) for each in archive.getmembers() if each.isfile()}
    wanted = {*tracked(str(PACKAGE)), *tracked("tests"), *map(PurePosixPath, BESIDE)}
    lacks = [f"the source archive lacks {name}" for name in sorted(wanted - names)]
    junk = [name for name in sorted(names) if JUNK & set(name.parts) or name.suffix == ".pyc"]
    return [*lacks, *(f"the source archive has {name}" for name in junk)]
