"""Files and folders as they are found: torn, swapped, empty, of another format, with wrong values in them.

``python tests/fuzz/damage.py`` counts what reading each of them gives.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pool import LONG
from surface import Context, by_itself, outcome

import lotto
from lotto.core.errors import UsageError
from lotto.experiments import results
from lotto.inference import export
from lotto.report import experiments as report_experiments
from lotto.report import save as report_save

WRONG = {
    "null": None, "list": [], "dict": {}, "text": "abc", "long text": LONG, "number": -1, "nan": float("nan"),
    "large": 10**400, "true": True, "nested": [[{"a": None}]], "brackets": "[/b] {x}",
}  # fmt: skip
"""Values in the place of a JSON file's."""


def torn(path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Ways to spoil one file, each with what does it."""
    content = path.read_bytes()
    yield "empty", lambda: path.write_bytes(b"")
    yield "half", lambda: path.write_bytes(content[: len(content) // 2])
    yield "one byte", lambda: path.write_bytes(content[:1])
    yield "without end", lambda: path.write_bytes(content[:-3])
    yield "zeros", lambda: path.write_bytes(bytes(len(content)))
    yield "bytes", lambda: path.write_bytes(bytes(range(256)) * 4)
    yield "text", lambda: path.write_text("a,b\n1,2\n")
    yield "json", lambda: path.write_text('{"a": [1, 2]}')
    yield "json list", lambda: path.write_text("[]")
    yield "deep json", lambda: path.write_text("[" * 100_000)
    yield "flipped", lambda: path.write_bytes(content[:20] + bytes([content[20] ^ 255]) + content[21:])
    yield "flipped later", lambda: path.write_bytes(content[:-20] + bytes([content[-20] ^ 255]) + content[-19:])
    yield "missing", path.unlink
    yield "folder", lambda: (path.unlink(), path.mkdir())[0]
    yield "dangling link", lambda: (path.unlink(), path.symlink_to("/nonexistent/file"))[0]
    yield "link to itself", lambda: (path.unlink(), path.symlink_to(path.name))[0]
    yield "huge header", lambda: path.write_bytes((2**62).to_bytes(8, "little") + content[8:])


def wrong_values(path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """Each entry of a JSON file, two levels deep, missing and of another type."""
    content = json.loads(path.read_text())

    def places(value: Any, depth: int) -> Iterator[tuple[str, ...]]:
        if isinstance(value, dict):
            for name in value:
                yield (name,)
                if depth:
                    yield from ((name, *rest) for rest in places(value[name], depth - 1))

    def spoil(place: tuple[str, ...], value: Any, gone: bool) -> None:
        made = json.loads(json.dumps(content))
        inner = made
        for name in place[:-1]:
            inner = inner[name]
        if gone:
            del inner[place[-1]]
        else:
            inner[place[-1]] = value
        path.write_text(json.dumps(made))

    for place in places(content, 1):
        yield f"without {'.'.join(place)}", lambda place=place: spoil(place, None, True)
        for name, value in WRONG.items():
            yield f"{'.'.join(place)} = {name}", lambda place=place, value=value: spoil(place, value, False)


def wrong_cells(path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A CSV without a column, without rows, with text for numbers, with more than it should have."""
    lines = path.read_text().splitlines()
    for i, column in enumerate(lines[0].split(",")):

        def without(i: int = i) -> None:
            path.write_text("\n".join(",".join(c for j, c in enumerate(x.split(",")) if j != i) for x in lines))

        def text(i: int = i) -> None:
            path.write_text("\n".join(
                [lines[0], *(",".join("abc" if j == i else c for j, c in enumerate(x.split(","))) for x in lines[1:])]
            ))  # fmt: skip

        yield f"without {column}", without
        yield f"{column} = text", text
    yield "no rows", lambda: path.write_text(lines[0] + "\n")
    yield "more cells", lambda: path.write_text("\n".join([lines[0], *(f"{x},1,2" for x in lines[1:])]))


Reader = tuple[Callable[[Context], Path], str, Callable[[Path], Any]]


def _command(*arguments: Any) -> None:
    """Run the command line; what it says with exit code 2 is an error in a sentence."""
    from lotto.cli.main import main

    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        try:
            main([str(a) for a in arguments])
        except SystemExit as stop:
            if stop.code == 2:
                raise UsageError("Refused by the command line.") from None
            if stop.code:
                raise RuntimeError(f"exit code {stop.code}: {said.getvalue()[-300:]}") from None


def _experiment(c: Context) -> Path:
    folder = c.folder / "experiment"
    if not folder.is_dir():
        experiment = lotto.papers.get("stabilizing.sparsity")
        report_experiments.save_experiment(experiment, c.options, c.rows, folder, "lotto run", 1.0)
    return folder


READERS: dict[str, Reader] = {
    "Ticket.load": (
        lambda c: c.ticket_file.parent,
        "ticket.safetensors",
        lambda f: lotto.Ticket.load(f / "ticket.safetensors"),
    ),
    "Mask.load": (lambda c: c.mask_file.parent, "mask.safetensors", lambda f: lotto.Mask.load(f / "mask.safetensors")),
    "load_trained": (lambda c: c.saved, "trained.safetensors", export.load_trained),
    "load_result": (lambda c: c.saved, "result.json", report_save.load_result),
    "lotto report": (lambda c: c.saved, "result.json", lambda f: _command("report", f)),
    "lotto export": (lambda c: c.saved, "trained.safetensors", lambda f: _command("export", f)),
    "results.read": (_experiment, "sparsity.json", results.read_below),
    "results.read csv": (_experiment, "sparsity.csv", results.read_below),
    "lotto claims": (_experiment, "sparsity.json", lambda f: _command("claims", "stabilizing", f)),
    "lotto claims csv": (_experiment, "sparsity.csv", lambda f: _command("claims", "stabilizing", f)),
    "lotto report of experiments": (_experiment, "sparsity.json", lambda f: _command("report", f)),
    "lotto report of experiments csv": (_experiment, "sparsity.csv", lambda f: _command("report", f)),
    "ImageFolder": (lambda c: c.images, "train/a/0.png", lambda f: _seen(lotto.data.ImageFolder(f, 8))),
    "ImageFolder class": (lambda c: c.images, "train/a", lambda f: _seen(lotto.data.ImageFolder(f, 8))),
    "ImageFolder split": (lambda c: c.images, "test", lambda f: _seen(lotto.data.ImageFolder(f, 8))),
}


def _seen(images: Any) -> None:
    images.fingerprint  # noqa: B018
    list(images.batches(0, 0, 1, 4))
    list(images.evaluation("test", 4))


def spoiled(path: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """All ways to spoil what is there."""
    if path.is_dir():
        yield "missing", lambda: shutil.rmtree(path)
        yield "empty", lambda: (shutil.rmtree(path), path.mkdir())[0]
        yield "file", lambda: (shutil.rmtree(path), path.write_text("abc"))[0]
        return
    yield from torn(path)
    if path.suffix == ".json":
        yield from wrong_values(path)
    if path.suffix == ".csv":
        yield from wrong_cells(path)


SETTINGS = ("lr", "optimizer", "optimizer.lr", "optimizer.kind", "schedule.kind", "schedule.milestones", "batch_size",
            "steps", "augment", "augment.crop", "pruning.rates", "pruning.exclude", "model", "data", "loss", "error",
            "precision", "tolerance", "name", "rewind_to", "compile", "device", "validation")  # fmt: skip
TYPED = (
    "",
    "abc",
    "null",
    "[]",
    "[1]",
    "{}",
    '{"a": 1}',
    "-1",
    "1e400",
    "NaN",
    "true",
    '"x"',
    "[[1], 2]",
    LONG,
    "[/b]",
)


def cases(context: Context) -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """(reader, damage, what reads it); every case works on a copy of its own."""
    for number, (name, (original, file, read)) in enumerate(READERS.items()):
        whole = original(context)
        kinds = (
            [kind for kind, _ in spoiled(whole / file)] if not (whole / file).is_dir() else ["missing", "empty", "file"]
        )
        for i, kind in enumerate(kinds):

            def attempt(
                whole: Path = whole, file: str = file, kind: str = kind, read: Any = read, at: str = f"{number}-{i}"
            ) -> Any:
                copy = context.folder / "damaged" / at
                shutil.copytree(whole, copy, ignore=shutil.ignore_patterns("damaged", "store*"))
                try:
                    dict(spoiled(copy / file))[kind]()
                    return read(copy)
                finally:
                    shutil.rmtree(copy, ignore_errors=True)

            yield name, kind, attempt
    from lotto.cli.options import overridden

    recipe = lotto.recipes.get("mlp-mnist1d")
    for setting in SETTINGS:
        for typed in TYPED:
            yield "--set", f"{setting}={typed[:20]}", lambda s=setting, t=typed: overridden(recipe, {}, [f"{s}={t}"])


def main() -> None:
    """Count all; print what breaks."""
    counts: Counter[str] = Counter()
    wanted = [a for a in sys.argv[1:] if not a.startswith("-")]
    for name, kind, attempt in cases(Context.shared):
        if wanted and name not in wanted:
            continue
        with warnings.catch_warnings():
            found, said = outcome(attempt)
        counts[found] += 1
        if found in ("raw", "unclean"):
            print(f"{name} {kind}: {said[:260]}")
        elif found == "accepted" and "-a" in sys.argv:
            print(f"accepted: {name} {kind}")
    print(dict(counts))


if __name__ == "__main__":
    with by_itself():
        main()
