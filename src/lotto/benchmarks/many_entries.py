"""A store of many entries: how long one takes to be found, and what the commands take that read all of it."""

from __future__ import annotations

import json
import os
import random
import select
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rich.table import Table

import lotto
from lotto.benchmarks.harness import Row
from lotto.benchmarks.overheads import Instant
from lotto.core.errors import WorkerError
from lotto.execution.compute import get_or_compute, lookup
from lotto.execution.entries import manifest_name
from lotto.execution.store import Store
from lotto.recipe import presets

ENTRIES = 100_000
FEW = 100
"""Entries of the store that says what a command takes by itself."""
LOOKUPS = 1000
POLL_SECONDS = 0.02
COMMANDS = {"ls": ["ls"], "show": ["show"], "verify": ["verify"], "gc --dry-run": ["gc", "--dry-run", "--keep-ends"]}


def entries(store: Store, count: int) -> list[Instant]:
    """Fill a store with outcomes of tasks that compute nothing, all but the first written without waiting for the disk.

    Args:
        store: an empty one.
        count: of entries.
    """
    recipe = presets.get("mlp-mnist1d", model="mlp-4", steps="10it")
    tasks = [Instant(recipe, number) for number in range(count)]
    get_or_compute(store, tasks[0])
    manifest = store.entries.read(str(tasks[0].key), lambda _, manifest: manifest)
    assert manifest is not None
    for task in tasks[1:]:
        content = json.dumps(task.execute(), indent=1).encode()
        folder = store.folder(str(task.key))
        folder.mkdir(parents=True)
        (folder / "outcome.json").write_bytes(content)
        checksums = {"outcome.json": blake2b(content, digest_size=16).hexdigest()}
        text = json.dumps({**manifest, "job": task.description, "checksums": checksums}, indent=1)
        (folder / manifest_name(0)).write_text(text)
    return tasks


def large_store(count: int | None = None) -> list[Row]:
    """Seconds of a lookup and of commands on a large store, and their memory beyond that on a store of few entries.

    Args:
        count: entries; default 100,000.
    """
    number = ENTRIES if count is None else count
    with tempfile.TemporaryDirectory(prefix="lotto-") as few, tempfile.TemporaryDirectory(prefix="lotto-") as many:
        entries(Store(few), FEW)
        tasks, store = entries(Store(many), number), Store(many)
        about: Row = {"benchmark": "store", "title": f"A store of {number:,} entries"}
        rows: list[Row] = [{**about, "what": "lookup", "seconds": _lookup(store, tasks), "goal": "≤ 0.005"}]
        for what, words in COMMANDS.items():
            first, seconds, memory = _command(store, [*words, str(tasks[-1].key)] if what == "show" else words)
            least, _, before = _command(Store(few), [*words, str(tasks[0].key)] if what == "show" else words)
            row = {**about, "what": what, "seconds": seconds, "mebibytes": memory - before}
            rows.append({**row, "first": first, "first_of_few": least} if what == "ls" else row)
        return rows


def _lookup(store: Store, tasks: Sequence[Instant]) -> float:
    """Median seconds; each is asked for once, at random."""
    seconds = []
    for task in random.Random(0).choices(tasks, k=LOOKUPS):
        began = time.perf_counter()
        if lookup(store, task) != {"number": task.number}:
            raise WorkerError(f"Entry {task.key} is not found.")
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds)


def _command(store: Store, words: Sequence[str]) -> tuple[float, float, float]:
    """Seconds to its first line and to its end, and its most resident MiB, by Linux's account."""
    paths = [str(Path(lotto.__file__).parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "lotto", "store", *words, "--store", str(store.root)]
    began, first, memory = time.perf_counter(), 0.0, 0.0
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        while process.poll() is None:
            memory = max(memory, _resident(process.pid))
            if select.select([process.stdout], [], [], POLL_SECONDS)[0]:
                first = first or time.perf_counter() - began
                if not os.read(process.stdout.fileno(), 1 << 16):
                    break
    if process.returncode:
        raise WorkerError(f"lotto store {' '.join(words)} ended with {process.returncode}.")
    return first, time.perf_counter() - began, memory


def _resident(pid: int) -> float:
    try:
        status = Path("/proc", str(pid), "status").read_text()
    except OSError:
        return 0.0
    return max((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")), default=0.0)


def large_store_table(rows: list[Row]) -> Table:
    """The readable table."""
    table = Table(title=str(rows[0]["title"]), caption=f"memory: beyond that on a store of {FEW} entries")
    for column in ("what", "seconds", "goal", "first line after (few entries)", "memory, MiB"):
        table.add_column(column, justify="right")
    for row in rows:
        first = f"{row['first']:.2f} ({row['first_of_few']:.2f})" if "first" in row else ""
        cells: list[Any] = [row["what"], f"{row['seconds']:.3g}", row.get("goal", ""), first]
        table.add_row(*map(str, cells), f"{row['mebibytes']:.1f}" if "mebibytes" in row else "")
    return table
