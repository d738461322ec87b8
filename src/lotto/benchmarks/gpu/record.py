"""The file of a card: every case is written at once, so that whatever ends the command, a rerun goes on."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import lotto
from lotto.benchmarks.gpu.networks import Sizes
from lotto.benchmarks.harness import Row
from lotto.core import files
from lotto.core.errors import UsageError

MOST_TRIES = 2
"""A case that has ended the process so often is left out."""


def machine_of(device: str, sizes: Sizes) -> dict[str, Any]:
    """What a figure depends on: card, driver, libraries, lotto's version and source text, and how much is measured."""
    chosen = torch.device(device)
    on_card = chosen.type == "cuda"
    return {
        "card": torch.cuda.get_device_name(chosen) if on_card else f"processor, {platform.machine()}",
        "memory_mebibytes": torch.cuda.get_device_properties(chosen).total_memory >> 20 if on_card else 0,
        "driver": _driver() if on_card else "none",
        "cuda": str(torch.version.cuda),
        "cudnn": str(torch.backends.cudnn.version()),
        "torch": str(torch.__version__),
        "lotto": version("lotto-tickets"),
        "source": _source(),
        "sizes": repr(sizes),
    }


def _driver() -> str:
    """The version of the card's driver, if its own program says it."""
    asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return found.split("\n")[0].strip() or "unknown"


def _source() -> str:
    """A digest of lotto's code: what it computes may be other after any change."""
    digest, root = hashlib.blake2b(digest_size=8), Path(lotto.__file__).parent
    for path in sorted(root.rglob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


class Record:
    """The cases that are measured, and those that could not be.

    Args:
        path: the JSON file.
        machine: see `machine_of`.

    Raises:
        UsageError: if the file is no such record, or that of another machine.

    >>> record = Record(Path("card.json"), {"card": "none"})
    >>> record.begin("loop lenet"), record.end("loop lenet", [{"seconds": 1.0}], 2.0)
    (None, None)
    >>> Record(Path("card.json"), {"card": "none"}).rows("loop lenet")
    [{'seconds': 1.0}]
    """

    def __init__(self, path: Path, machine: Mapping[str, Any]) -> None:
        self.path, self.machine = path, dict(machine)
        self.cases: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.cases = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads(self.path.read_text("utf-8"))
            there, cases = dict(found["machine"]), {str(k): dict(v) for k, v in found["cases"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{self.path} is no record of lotto bench gpu. Take another --out.") from error
        names = sorted({*there, *self.machine})
        if other := [n for n in names if there.get(n) != self.machine.get(n)]:
            said = "; ".join(f"{n} {there.get(n)} there, {self.machine.get(n)} here" for n in other)
            raise UsageError(
                f"{self.path} was measured with something else ({said}): its rows do not go with those of now. "
                "Take another --out, or move the file away."
            )
        return cases

    def is_done(self, name: str) -> bool:
        """Whether a case is measured, or could not be."""
        found = self.cases.get(name, {})
        return "rows" in found or "problem" in found

    def rows(self, name: str) -> list[Row]:
        """A case's rows; none if it is not measured."""
        return list(self.cases.get(name, {}).get("rows", []))

    def problem(self, name: str) -> str:
        """Why a case could not be measured; empty if it could, or was not tried."""
        return str(self.cases.get(name, {}).get("problem", ""))

    def begin(self, name: str) -> None:
        """Write that a case is tried; one that has ended the process before too often is given up."""
        tries = self.cases.get(name, {}).get("tries", 0)
        if tries >= MOST_TRIES:
            self.fail(name, f"The command was ended {tries} times while it measured this.")
            return
        self.cases[name] = {"tries": tries + 1}
        self._write()

    def end(self, name: str, rows: list[Row], seconds: float) -> None:
        """Write a case's rows, and how long they took to measure."""
        self.cases[name] = {"rows": rows, "seconds": seconds}
        self._write()

    def fail(self, name: str, problem: str) -> None:
        """Write why a case cannot be measured."""
        self.cases[name] = {"problem": problem}
        self._write()

    def forget(self, name: str) -> None:
        """Take back that a case was tried: somebody stopped it."""
        self.cases.pop(name, None)
        self._write()

    def _write(self) -> None:
        files.write_json(self.path, {"machine": self.machine, "cases": self.cases})
