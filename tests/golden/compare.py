"""Compare this checkout with a former commit, bit for bit, on this machine.

    python tests/golden/compare.py COMMIT

Keys, bits of runs, rows of experiments and what commands print (`snapshot`) must be equal, and a store that the former
commit filled must be read. What differs is printed; the exit code is the number of differences.
"""

from __future__ import annotations

import difflib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
WORDS = ROOT / "tests" / "golden" / "words.txt"
"""Lines ``before -> after``: texts that were renamed on purpose since the former commit."""


def taken(source: Path, folder: Path, *more: str) -> dict[str, Any]:
    """The snapshot of the checkout whose packages are in ``source``."""
    folder.mkdir()
    script = ROOT / "tests" / "golden" / "snapshot.py"
    environment = {**os.environ, "PYTHONPATH": str(source), "LOTTO_DATA": str(folder.parent / "data")}
    subprocess.run([sys.executable, str(script), str(folder), *more], env=environment, check=True)
    content: dict[str, Any] = json.loads((folder / "snapshot.json").read_text())
    return content


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """One text for every value that is not what it was."""
    words = [line.split(" -> ") for line in WORDS.read_text().splitlines() if " -> " in line]
    found = []
    for part in before:
        for name in sorted({*before[part], *after[part]}):
            one, other = before[part].get(name), after[part].get(name)
            if part == "transcripts" and isinstance(one, str):
                for old, new in words:
                    one = one.replace(old, new)
            if one != other:
                texts = [json.dumps(v, indent=1) if not isinstance(v, str) else v for v in (one, other)]
                lines = difflib.unified_diff(*(t.splitlines() for t in texts), "before", "after", lineterm="", n=0)
                found.append("\n".join([f"{part}: {name}", *list(lines)[:40]]))
    return found


def main(commit: str) -> int:
    """Print the differences; returns how many there are."""
    with tempfile.TemporaryDirectory(prefix="golden-") as name:
        folder = Path(name)
        archive = subprocess.run(["git", "archive", commit, "src"], cwd=ROOT, capture_output=True, check=True).stdout
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(folder / "former", filter="data")
        shutil.copytree(ROOT / "src", folder / "present" / "src")  # which may change meanwhile
        before = taken(folder / "former" / "src", folder / "before")
        after = taken(folder / "present" / "src", folder / "after", str(folder / "before" / "store"))
    found = differences(before, after)
    print("\n\n".join(found))
    print(f"{sum(map(len, before.values()))} values of {commit}: {len(found)} differ.")
    return len(found)


if __name__ == "__main__":
    sys.exit(min(1, main(sys.argv[1])))
