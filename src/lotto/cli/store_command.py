"""``lotto store``: what is remembered."""

from __future__ import annotations

import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tyro.conf import Positional

from lotto.cli.screen import say
from lotto.cli.stopping import stopping
from lotto.core.errors import UsageError
from lotto.core.text import size_words

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lotto.execution.admin import Entry
    from lotto.execution.entries import StoreFolder

ARGUMENTS = {
    "ls": range(2), "show": range(1, 2), "verify": range(100), "gc": range(1), "explain": range(2, 3),
    "pack": range(1, 100), "unpack": range(1, 2),
}  # fmt: skip
USAGE = {
    "ls": "lotto store ls [KEY]",
    "show": "lotto store show KEY",
    "verify": "lotto store verify [KEY ...]",
    "gc": "lotto store gc [--older-than 30d] [--unfinished] [--keep-ends] [--dry-run]",
    "explain": "lotto store explain KEY KEY",
    "pack": "lotto store pack FILE [KEY ...]",
    "unpack": "lotto store unpack FILE",
}


def store(
    action: Positional[Literal["ls", "show", "verify", "gc", "explain", "pack", "unpack"]],
    keys: Positional[tuple[str, ...]] = (),
    /,
    *,
    older_than: str | None = None,
    unfinished: bool = False,
    keep_ends: bool = False,
    dry_run: bool = False,
    store: Path | None = None,
) -> None:
    """Look at what is remembered, verify it, remove what is of no use, compare two runs, take it elsewhere.

    ls lists the entries, the oldest first, or more than a thousand at once in the order of their keys; show says all of
    one; verify reads every checksum; gc removes entries of former versions, what was set aside because it was damaged
    and what killed processes and a queue's left, and what its options name, but nothing that a running process works
    on; explain says what differs between what two keys were made of; pack writes entries, or all, to one file, and
    unpack takes them into another store, beside what it holds. A key may be cut short.

    Args:
        action: ls, show, verify, gc, explain, pack or unpack.
        keys: of which entries; the first digits will do. Of pack and unpack the file comes first.
        older_than: gc removes finished entries of this age too: 90m, 12h, 30d, 2w; with the next two, only such.
        unfinished: gc removes what has not been finished too, checkpoints among it.
        keep_ends: gc removes all states of finished trainings but the last.
        dry_run: gc only says what it would remove.
        store: folder where runs are remembered (default: LOTTO_STORE or the user's cache).
    """
    from lotto.execution.admin import find
    from lotto.execution.entries import StoreFolder

    if len(keys) not in ARGUMENTS[action]:
        raise UsageError(f"It is: {USAGE[action]}; got {len(keys)} arguments.")
    if action != "gc" and (older_than or unfinished or keep_ends or dry_run):
        raise UsageError(f"--older-than, --unfinished, --keep-ends and --dry-run belong to gc: {USAGE['gc']}.")
    stopping.unwind()
    opened = StoreFolder(store)
    if action == "gc":
        _collect(opened, older_than, unfinished, keep_ends, dry_run)
    elif action == "explain":
        _explain(find(opened, keys[0]), find(opened, keys[1]))
    elif action == "show":
        _show(find(opened, keys[0]))
    elif action == "ls":
        _list(opened, keys)
    elif action == "pack":
        _pack(opened, Path(keys[0]), keys[1:])
    elif action == "unpack":
        _unpack(opened, Path(keys[0]))
    else:
        _verify(opened, keys)


def _list(store: StoreFolder, keys: Sequence[str]) -> None:
    from lotto.execution.admin import ASIDE, DAMAGED, FINISHED, FORMER, UNFINISHED, listed, words

    counts, sizes = Counter[str](), Counter[str]()
    for entry in listed(store, *(key.lower() for key in keys)):
        counts[entry.status] += 1
        sizes[entry.status] += entry.size
        start = f"{entry.key[:10]}  {size_words(entry.size):>8}  {_date(entry.modified)}"
        if entry.status == FINISHED:
            say(f"{start}  {entry.manifest.get('label') or ''}: {words(entry)}".rstrip())
        elif entry.status in (UNFINISHED, DAMAGED):
            say(f"{start}  {entry.status}")
    words_of = {FORMER: "of a former version, ignored", ASIDE: "set aside as damaged"}
    order = [status for status in (FINISHED, UNFINISHED, DAMAGED, FORMER, ASIDE) if counts[status]]
    parts = [f"{counts[s]} {words_of.get(s, s)} ({size_words(sizes[s])})" for s in order]
    say(f"{store.root}: {', '.join(parts) or 'nothing is remembered here'}.")
    if counts[FORMER] or counts[ASIDE]:
        say("lotto store gc removes what is of a former version and what was set aside.")


def _show(entry: Entry) -> None:
    from lotto.execution.admin import UNFINISHED, unfinished_step, words

    manifest = entry.manifest
    say(f"{entry.key}  {entry.status}, {size_words(entry.size)}\n{words(entry)}\n{entry.folder}")
    if entry.status == UNFINISHED:
        step = unfinished_step(entry)
        say("no checkpoint" if step is None else f"a checkpoint at step {step}")
        return
    lines = {
        "label": manifest.get("label"),
        "finished": manifest.get("finished"),
        "seconds": manifest.get("seconds"),
        "kept steps": ", ".join(map(str, manifest.get("states", []))),
        **{f"recipe.{k}": v for k, v in manifest.get("recipe", {}).items()},
        **{f"made by: {k}": v for k, v in {**manifest.get("versions", {}), **manifest.get("execution", {})}.items()},
    }
    for name, value in lines.items():
        if value not in (None, ""):
            say(f"  {name}: {value}")
    for path in sorted(entry.folder.iterdir()):
        say(f"  {size_words(path.stat().st_size):>8}  {path.name}")


def _verify(store: StoreFolder, keys: Sequence[str]) -> None:
    from lotto.execution.admin import DAMAGED, FINISHED, find, problem, walk

    every = (entry for entry in walk(store) if entry.status in (FINISHED, DAMAGED))
    count = damaged = 0
    for entry in [find(store, key) for key in keys] if keys else every:
        count += 1
        if found := problem(store, entry):
            damaged += 1
            say(f"{entry.key}: {found}")
    say(
        f"{count - damaged} of {count} entries are whole."
        + " The others are computed anew when wanted." * bool(damaged)
    )
    if damaged:
        sys.exit(1)


def _collect(store: StoreFolder, older_than: str | None, unfinished: bool, keep_ends: bool, dry_run: bool) -> None:
    from lotto.core.seconds import seconds_of
    from lotto.execution.admin import collect

    found = collect(store, None if older_than is None else seconds_of(older_than), unfinished, keep_ends, dry_run)
    reasons = sorted({each.why for each in found if not each.held})
    for why in reasons:
        those = [each for each in found if each.why == why and not each.held]
        say(f"{len(those):>6}  {size_words(sum(each.size for each in those)):>8}  {why}")
    if held := sum(each.held for each in found):
        say(f"{held} stay: a running process works on them.")
    gone = [each for each in found if not each.held]
    done = "would go" if dry_run else "gone"
    say(f"{store.root}: {len(gone)} {done}, {size_words(sum(each.size for each in gone))}.")


def _explain(a: Entry, b: Entry) -> None:
    from lotto.execution.admin import explain

    computed, recorded = explain(a, b)
    for path, x, y in computed:
        say(f"{path}: {x} | {y}")
    if not computed:
        say("The two keys were made of the same.")
    for number, (path, x, y) in enumerate(recorded):
        if not number:
            say("Beside the keys:")
        say(f"  {path}: {x} | {y}")


def _pack(store: StoreFolder, path: Path, prefixes: Sequence[str]) -> None:
    from lotto.core import files
    from lotto.execution.admin import find
    from lotto.execution.transfer import keys_of, pack

    keys = [find(store, prefix).key for prefix in prefixes] or keys_of(store)
    with files.replacing(path) as temporary, temporary.open("wb") as out:
        count = pack(store, out, keys)
    say(f"{path}: {_entries(count)} of {store.root}, {size_words(path.stat().st_size)}.")


def _unpack(store: StoreFolder, path: Path) -> None:
    from lotto.core import files
    from lotto.execution.transfer import unpack

    if not files.is_file(path):
        raise UsageError(f"There is no file {path}.")
    with files.attempting(f"read {path}"), path.open("rb") as source:
        received = unpack(source, store)
    for key, problem in received.refused.items():
        say(f"{key}: {problem}")
    parts = {"added": received.added, "extended": received.extended, "known": received.known}
    counts = [f"{len(found)} {word}" for word, found in parts.items() if found]
    counts += [f"{len(received.refused)} refused"] if received.refused else []
    say(f"{store.root}: {', '.join(counts) or 'no entries'}.")
    if received.refused:
        sys.exit(1)


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _date(modified: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(modified))
