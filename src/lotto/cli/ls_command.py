"""``lotto ls``: the results below a folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from lotto.cli.screen import say
from lotto.cli.stopping import stopping
from lotto.core.errors import UsageError, text
from lotto.core.text import shortened

FOLDER = Path("lotto-results")
TICKETS, EXPERIMENT = "lotto.result", "lotto.experiment"
"""What a result says that it is."""
LARGEST = 256_000_000
"""Bytes of a file that may be a result."""
Line = tuple[str, str, str, str, str]


def ls(folder: Positional[Path] = FOLDER, /) -> None:
    """List the results below a folder, a line each: recipe, density reached, verdict, date.

    The density and the verdict are those of the sparsest level that matches, or of the one that `lotto imp` has chosen
    where none is shown to; of an experiment of the papers its name and title. The date is that of the file.

    Args:
        folder: where to look, in it and below it.
    """
    stopping.unwind()
    if not folder.is_dir():
        raise UsageError(f"There is no folder {text(str(folder))}; name one with results: lotto ls FOLDER.")
    found, damaged = [], []
    for path in _files(folder):
        try:
            about = json.loads(path.read_text())
            if (form := about.get("format") if isinstance(about, dict) else None) in (TICKETS, EXPERIMENT):
                found.append(_tickets(path, about) if form == TICKETS else _experiment(path, about))
        except (OSError, ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
            damaged.append(path)
    widths = [max(map(len, column)) for column in zip(*found, strict=True)]
    for line in found:
        say("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
    for path in damaged:
        say(f"{path} cannot be read as a result.")
    say(f"{len(found) or 'No'} result{'' if len(found) == 1 else 's'} below {folder}.")


def _files(folder: Path) -> Iterator[Path]:
    """Files that may describe a result: ``result.json``, or the JSON of a CSV beside it."""
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            path = Path(root, name)
            described = name == "result.json" or (name.endswith(".json") and path.with_suffix(".csv").name in names)
            if described and path.is_file() and path.stat().st_size <= LARGEST:
                yield path


def _tickets(path: Path, about: dict[str, Any]) -> Line:
    rows, unit = about["table"], about["error_unit"]
    # Results of the time before verdicts name no level: it was the last that matched.
    matching = about.get("matching_level", max(row["level"] for row in rows if row["matching"]))
    chosen = rows[about.get("chosen_level", matching)]
    error, dense, n = _number(chosen["error"]), _number(chosen["dense_error"]), int(chosen["n"])
    verdict = "matching" if matching else chosen.get("verdict", "dense")
    said = "no pruned level matches" if verdict == "dense" else verdict
    figures = f"{said}: error {error}{unit}, dense {dense}{unit}, n = {n}"
    left = "–" if verdict == "dense" else f"{100 * chosen['density']:.3g} % left"
    return str(path.parent), shortened(about["recipe"]["name"]), left, figures, _date(path)


def _experiment(path: Path, about: dict[str, Any]) -> Line:
    name = f"{about.get('paper', 'stabilizing')}.{about['name']}"
    return str(path.parent), shortened(about["recipe"]["name"]), "", f"{name}: {about['title']}", _date(path)


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}"


def _date(path: Path) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(path.stat().st_mtime))
