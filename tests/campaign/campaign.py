"""Kill, fail and damage on purpose; count what is lost. Seeded, and goes on where it was stopped.

    PYTHONPATH=tests python tests/campaign/campaign.py --kills 1000 --faults 1000 --damages 500 --work FOLDER --out TABLE.md

Each round begins from a store whose right content is known, does its worst, and looks for everything that had been
finished. What counts: *lost*, finished and not found afterwards; *wrong*, other bits than an undisturbed training;
*false damage*, reported where nothing was damaged; *raw*, an exception that is not one of lotto's sentences; *left*,
locks, files on their way and scratch folders that the next start does not remove; *alive*, processes five seconds after
their parent's death.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import torch
from faults import NUMBERS, Faults
from scenario import (
    RECIPE,
    ROWS,
    any_job,
    child,
    count_finished,
    is_right,
    journal_of,
    over_workers,
    path,
    reference,
    serial,
    table,
)

from lotto import Job, Store
from lotto.core import files, scratch
from lotto.core.errors import LottoError
from lotto.execution import admin
from lotto.execution.compute import get_or_compute, lookup
from lotto.execution.serial import Serial
from lotto.training.loop import train

BAD = ("lost", "wrong", "false damage", "raw", "left", "alive")
KILLS = {"process": 0.7, "process, with gc beside it": 0.1, "parent": 0.06, "worker": 0.07, "group": 0.07}
"""What is killed, and its part of all kills."""
Tally = Counter[str]


class Campaign:
    """The folders and the counts so far."""

    def __init__(self, work: Path, seed: int) -> None:
        self.work, self.seed = work, seed
        self.root, self.out = work / "store", work / "out"
        self.state = work / "counts.json"
        for folder in (work, self.out, work / "tmp"):
            folder.mkdir(parents=True, exist_ok=True)
        tempfile.tempdir = os.environ["TMPDIR"] = str(work / "tmp")
        kept = json.loads(self.state.read_text()) if self.state.exists() else {}
        self.counts: dict[str, Tally] = {name: Counter(tally) for name, tally in kept.items()}
        self.finished: dict[int, set[int]] = {}

    def until(self, name: str, number: int, once: Callable[[Tally, random.Random], None]) -> None:
        """Repeat something until it has been done often enough."""
        tally = self.counts.setdefault(name, Counter())
        while tally["number"] < number:
            bad = sum(tally[word] for word in BAD)
            once(tally, random.Random(f"{self.seed} {name} {tally['number']}"))
            files.write_json(self.state, self.counts)
            if sum(tally[word] for word in BAD) > bad:
                self.keep_evidence(name, tally["number"])

    def keep_evidence(self, name: str, number: int) -> None:
        """Keep what the processes said in a round that went wrong."""
        for kind in ("journal", "said"):
            file = self.root.with_name(f"store.{kind}")
            if file.exists():
                shutil.copy(file, self.work / f"wrong-{name.replace(' ', '-')}-{number}.{kind}")
        print(f"{name}, round {number}: {dict(self.counts[name])}", flush=True)

    def clean(self) -> None:
        """Begin with an empty store."""
        for folder in (self.root, self.out):
            shutil.rmtree(folder, ignore_errors=True)
        self.out.mkdir()
        self.finished.clear()
        self.begin()

    def begin(self) -> None:
        """Forget what was said before."""
        for kind in ("journal", "said"):
            self.root.with_name(f"store.{kind}").unlink(missing_ok=True)


# --- kills --------------------------------------------------------------------------------------------


def kill_processes(campaign: Campaign, tally: Tally, draw: random.Random, gc: bool = False) -> None:
    """One to four processes on one store, killed at random moments while they train and extend."""
    if tally["rounds"] % 20 == 0 or gc:
        campaign.clean()
    campaign.begin()
    first = tally["rounds"] // 4
    seeds = range(first, first + 2)
    for seed in range(first, first + 3):
        reference(seed)
    path(first)
    number = draw.choice([1, 1, 2, 3, 4])
    alive = [child(serial, campaign.root, campaign.out, seeds, i, draw.getrandbits(32)) for i in range(number)]
    draw.shuffle(alive)
    if draw.random() < 0.8:
        _until(lambda: any(word == "finished" for word, *_ in journal_of(campaign.root)), 20)
    for pid in alive:
        if gc:
            with contextlib.suppress(LottoError):
                admin.collect(Store(campaign.root), older_than=draw.choice([None, 0.0]), keep_ends=draw.random() < 0.5)
        time.sleep(draw.uniform(0.0, 0.25))
        os.kill(pid, signal.SIGKILL)
    for pid in alive:
        os.waitpid(pid, 0)
    tally["rounds"] += 1
    tally["number"] += number
    look_for_everything(campaign, tally, lose=gc)


def kill_with_workers(campaign: Campaign, tally: Tally, draw: random.Random, whom: str) -> None:
    """A process with two workers: it, or one of them, or all are killed."""
    if tally["rounds"] % 10 == 0:
        campaign.clean()
    campaign.begin()
    first = 1000 + tally["rounds"]
    for seed in (first, first + 1):
        reference(seed)
    pid = child(over_workers, campaign.root, campaign.out, range(first, first + 2), 0, draw.getrandbits(32))
    if draw.random() < 0.8:
        wanted = draw.choice([0, 1, 10, 20])
        _until(lambda: len(list(journal_of(campaign.root))) >= wanted or _ended(pid), 60)
        time.sleep(draw.uniform(0.0, 0.2))
    else:
        time.sleep(draw.uniform(0.0, 3.0))
    workers = _members(pid, "LokyProcess")
    if whom == "group":
        os.killpg(pid, signal.SIGKILL)
    else:
        target = draw.choice(workers) if whom == "worker" and workers else pid
        with contextlib.suppress(ProcessLookupError):
            os.kill(target, signal.SIGKILL)
    tally["number"] += 1
    tally["rounds"] += 1
    os.waitpid(pid, 0)
    began = time.monotonic()
    _until(lambda: not _members(pid), 5)
    tally["milliseconds"] = max(tally["milliseconds"], int(1000 * (time.monotonic() - began)))
    tally["alive"] += len(_members(pid))
    scratch.sweep(campaign.work / "tmp")
    tally["left"] += len(list(Path("/dev/shm").glob(f"sem.loky-{pid}-*")))
    tally["left"] += len(list((campaign.work / "tmp").glob("lotto-*")))
    look_for_everything(campaign, tally)


def look_for_everything(campaign: Campaign, tally: Tally, lose: bool = False) -> None:
    """Count what went wrong in a round; with ``lose`` somebody has removed entries on purpose."""
    store, new = Store(campaign.root), {}
    for word, *rest in journal_of(campaign.root):
        tally["wrong"] += word == "wrong"
        tally["raw"] += word == "raw"
        tally["refused"] += word in ("refused", "not-kept")
        if word == "finished":
            new.setdefault(int(rest[0]), set()).update(map(int, rest[1].split(",")))
    for seed, steps in new.items():
        campaign.finished.setdefault(seed, set()).update(steps)
    whole = tally["rounds"] % 10 == 0
    checked, lost, wrong = count_finished(store, campaign.finished if whole else {s: campaign.finished[s] for s in new})
    tally["checked"] += checked
    tally["lost"] += 0 if lose else lost
    tally["wrong"] += wrong
    said = campaign.root.with_name("store.said")
    text = said.read_text(errors="replace") if said.exists() else ""
    tally["false damage"] += text.count("damaged") + len(list(campaign.root.glob("??/*.damaged-*")))
    # A worker that has only been forked when its parent is killed says so through loky, before any of our code runs.
    tally["raw"] += text.count("Traceback") - text.count("EOFError: Ran out of input")
    store.begin()
    tally["left"] += len(_left(campaign.root))
    results = campaign.out / "table.csv"
    if results.exists():
        lines = results.read_text().splitlines()
        tally["wrong"] += len(set(lines)) != 1 or len(lines) != ROWS
        files.write_text(results, table(0))
        tally["left"] += len(_left(campaign.out))


def _left(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("*") if p.name.endswith((".tmp", ".lock")) or ".removed-" in p.name]


def _ended(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _members(group: int, named: str = "") -> list[int]:
    found = subprocess.run(
        ["pgrep", "-g", str(group), *(["-f", named] if named else [])], capture_output=True, text=True, check=False
    ).stdout.split()
    return [int(pid) for pid in found]


def _until(condition: Callable[[], object], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)


# --- faults -------------------------------------------------------------------------------------------

FIRST, MORE = (4,), (4, 7)


def _job(keep: tuple[int, ...] = FIRST, seed: int = 0) -> Job:
    return Job(RECIPE, seed, seed, keep=keep)


def _nothing(store: Store) -> None:
    store.root.mkdir()


def _one(store: Store) -> None:
    get_or_compute(store, _job())


def _cut_off(store: Store) -> None:
    def stop(point: object) -> None:
        store.write_checkpoint(_job(), point)  # type: ignore[arg-type]
        if point.step >= 6:  # type: ignore[attr-defined]
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        train(_job(), on_checkpoint=stop, checkpoint_seconds=0.0)


def _killed(store: Store) -> None:
    _one(store)
    other = store.folder(str(_job(seed=1).key))
    other.mkdir(parents=True)
    (other / ".history.json.999999999.0123abcd.tmp").write_bytes(b"half")
    (store.root / "locks").mkdir(exist_ok=True)
    (store.root / "locks" / f"{other.name}.lock").touch()


def _train(store: Store, seconds: float = 30.0) -> bool:
    return is_right(get_or_compute(store, _job(), checkpoint_seconds=seconds)[0], _job())


def _extend(store: Store) -> bool:
    return is_right(get_or_compute(store, _job(MORE))[0], _job(MORE))


def _run(store: Store) -> bool:
    return all(is_right(run, job) for job in [_job(), _job(seed=1)] for run in Serial(Store(store.root)).run([job]))


def _path(store: Store) -> bool:
    task, expected = path(0)
    return bool(get_or_compute(store, task)[0] == expected)


def _collect(store: Store) -> bool:
    admin.collect(store, unfinished=True, keep_ends=True)
    return True


def _results(store: Store) -> bool:
    files.write_text(store.root / "table.csv", table(1))
    return True


SCENARIOS: dict[str, tuple[Callable[[Store], None], Callable[[Store], bool]]] = {
    "train": (_nothing, _train),
    "train with checkpoints": (_nothing, lambda store: _train(store, 0.0)),
    "resume": (_cut_off, _train),
    "read": (_one, _train),
    "extend": (_one, _extend),
    "a path": (_one, _path),
    "start after a kill": (_killed, _run),
    "gc": (_one, _collect),
    "results": (_one, _results),
}


def all_faults(campaign: Campaign, names: Iterable[str] = SCENARIOS) -> list[tuple[str, int, int, bool]]:
    """Every operation of every scenario with every error, once and from there on."""
    found = []
    for name in names:
        prepare, work = SCENARIOS[name]
        campaign.clean()
        store = Store(campaign.root)
        prepare(store)
        for number in NUMBERS:
            shutil.copytree(store.root, campaign.work / "counted", dirs_exist_ok=False)
            counting = Faults(campaign.work / "counted", None, number)
            with counting.injected():
                assert work(Store(campaign.work / "counted")), name
            shutil.rmtree(campaign.work / "counted")
            found += [(name, at, number, lasting) for at in range(len(counting.names)) for lasting in (False, True)]
    return found


def one_fault(campaign: Campaign, tally: Tally, fault: tuple[str, int, int, bool]) -> None:
    """Let one operation fail, then look for what was finished before, and do the same again without faults."""
    name, at, number, lasting = fault
    prepare, work = SCENARIOS[name]
    campaign.clean()
    store = Store(campaign.root)
    prepare(store)
    faults = Faults(campaign.root, at, number, lasting)

    def disturbed(store: Store, out: Path, journal: object, *_: object) -> None:
        signal.alarm(60)
        with faults.injected():
            right = work(store)
        journal.write("right" if right else "wrong", "0")  # type: ignore[attr-defined]

    pid = child(disturbed, campaign.root, campaign.out, range(1), 0, 0)
    _, status = os.waitpid(pid, 0)
    words = [word for word, *_ in journal_of(campaign.root)]
    tally["number"] += 1
    tally["rounds"] += 1
    tally["raw"] += "raw" in words or os.waitstatus_to_exitcode(status) not in (0, 2)
    results = campaign.root / "table.csv"
    tally["wrong"] += "wrong" in words or (results.exists() and results.read_text() != table(1))
    tally["refused"] += "refused" in words
    said = campaign.root.with_name("store.said").read_text(errors="replace")
    tally["raw"] += "Traceback" in said and "raw" not in words
    if prepare in (_one, _killed):
        kept = _job(()) if work is _collect else _job()
        found = lookup(store, kept)
        tally["checked"] += 1
        tally["lost"] += found is None
        tally["wrong"] += found is not None and not is_right(found, kept)
    again = work(Store(campaign.root))
    tally["wrong"] += not again
    tally["false damage"] += len(list(campaign.root.glob("??/*.damaged-*")))
    Store(campaign.root).begin()
    admin.collect(Store(campaign.root))
    tally["left"] += len(_left(campaign.root))


# --- torn and swapped files ---------------------------------------------------------------------------

DAMAGES = ("cut", "flip", "zero", "empty", "remove", "swap", "folder", "half of another")


def one_damage(campaign: Campaign, tally: Tally, draw: random.Random) -> None:
    """Damage one or two files of a store with three entries, before or after they are looked up."""
    if not (template := campaign.work / "template").exists():
        for seed in range(3):
            get_or_compute(Store(template), _job(MORE, seed))
            get_or_compute(Store(template), _job((2,), seed))
    campaign.clean()
    shutil.copytree(template, campaign.root)
    store = Store(campaign.root)
    jobs = [any_job(draw, range(3)), *(_job((2, *MORE), seed) for seed in range(3))]
    before = [lookup(store, job) for job in jobs]
    paths = sorted(p for p in campaign.root.glob("??/*/*") if p.is_file())
    for path_ in draw.sample(paths, draw.choice([1, 1, 2])):
        damage(path_, draw.choice(DAMAGES), draw.choice(paths), draw)
    tally["number"] += 1
    tally["rounds"] += 1
    try:
        for job, run in zip(jobs, before, strict=True):
            late = run is None or is_right(run, job)
            tally["wrong"] += not (late and is_right(get_or_compute(store, job)[0], job))
            tally["checked"] += 1
    except LottoError as error:
        tally["refused"] += 1
        print(error)
    except Exception as error:
        tally["raw"] += 1
        print(repr(error))
    tally["lost"] += sum(store.lookup(job) is None for job in jobs)
    admin.collect(store)
    tally["left"] += len(_left(campaign.root)) + len(list(campaign.root.glob("??/*.damaged-*")))


def damage(file: Path, how: str, other: Path, draw: random.Random) -> None:
    """Damage a file."""
    content = file.read_bytes() if file.is_file() else b"?"
    at = draw.randrange(len(content))
    if how in ("remove", "folder"):
        file.unlink(missing_ok=True)
        if how == "folder":
            file.mkdir()
        return
    if not file.is_file() or not other.is_file():
        return
    changed = {
        "cut": content[:at],
        "flip": content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :],
        "zero": content[:at] + bytes(len(content) - at),
        "empty": b"",
        "swap": other.read_bytes(),
        "half of another": other.read_bytes()[:at] + content[at:],
    }[how]
    if how == "swap":
        other.write_bytes(content)
    file.write_bytes(changed)


# --- all of it ----------------------------------------------------------------------------------------


def run(campaign: Campaign, kills: int, faults: int, damages: int) -> None:
    """Everything, so many times."""
    campaign.until("damaged files", damages, lambda tally, draw: one_damage(campaign, tally, draw))
    if faults:
        every = all_faults(campaign)
        random.Random(campaign.seed).shuffle(every)
        chosen = (every * (1 + faults // len(every)))[:faults]
        for name in SCENARIOS:
            those = [fault for fault in chosen if fault[0] == name]

            def fault(tally: Tally, draw: random.Random, those: list = those) -> None:  # type: ignore[type-arg]
                one_fault(campaign, tally, those[tally["number"]])

            campaign.until(f"faults: {name}", len(those), fault)
    for name, part in KILLS.items():

        def kill(tally: Tally, draw: random.Random, name: str = name) -> None:
            if name.startswith("process"):
                kill_processes(campaign, tally, draw, "gc" in name)
            else:
                kill_with_workers(campaign, tally, draw, name)

        campaign.until(f"kills: {name}", round(kills * part), kill)


def lines(campaign: Campaign) -> Iterator[str]:
    """The table."""
    columns = ["number", "checked", *BAD, "refused"]
    yield "| | " + " | ".join([*columns[:1], "entries looked for", *columns[2:]]) + " |"
    yield "|---|" + "---|" * len(columns)
    groups = {kind: [n for n in campaign.counts if n.startswith(kind)] for kind in ("kills", "faults", "damaged")}
    for kind, names in groups.items():
        for name in names:
            yield f"| {name} | " + " | ".join(str(campaign.counts[name][c]) for c in columns) + " |"
        if len(names) > 1:
            total = [sum(campaign.counts[name][c] for name in names) for c in columns]
            yield f"| **{kind}** | " + " | ".join(f"**{number}**" for number in total) + " |"


def main() -> None:
    """Read the arguments and run; exits with 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--damages", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, help="goes on here if it was stopped; default a new folder")
    parser.add_argument("--out", type=Path, help="where the table goes")
    options = parser.parse_args()
    torch.set_num_threads(1)
    work = options.work or Path(tempfile.mkdtemp(prefix="lotto-campaign-"))
    campaign = Campaign(work.absolute(), options.seed)
    began = time.monotonic()
    run(campaign, options.kills, options.faults, options.damages)
    text = "\n".join(lines(campaign))
    slowest = max((tally["milliseconds"] for tally in campaign.counts.values()), default=0)
    print(f"{text}\n\n{time.monotonic() - began:.0f} s. No process was alive {slowest / 1000:.1f} s after a kill.")
    if options.out:
        files.write_text(options.out, text + "\n")
    if not options.work:
        shutil.rmtree(work, ignore_errors=True)
    sys.exit(any(tally[word] for tally in campaign.counts.values() for word in BAD))


if __name__ == "__main__":
    main()
