"""Pages made of the tables in results/: what was measured, and how each claim of a paper was decided."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

BENCHMARKS = (
    "costs.csv",
    "bench-lenet.csv",
    "bench-resnet.csv",
    "bench-others.csv",
    "bench-dynamic.csv",
    "bench-memory.csv",
)


def rows(titles: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    """A table of Markdown."""
    heads = list(titles)
    lines = [heads, ["---"] * len(heads), *body]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


BENCHMARKS_BEGIN = """# Benchmarks

Ratios of lotto's time to another's, taken in turns in one run (`lotto bench`): the mean, and the least and the greatest
of the turns. What they were measured on, and what was tried: [results/speed.md](../../../results/speed.md).
"""
CLAIMS_BEGIN = """# How each claim was decided

`lotto claims PAPER results`: the statistic of each claim on each network that has stored results, with its one-sided
95 % bound and number of replicates. How verdicts are made: [verdicts](../../verdicts.md).
"""


def benchmarks(results: Path) -> str:
    """The stored benchmarks, as ratios with the range over their turns."""
    text = BENCHMARKS_BEGIN
    for name in BENCHMARKS:
        for title, part in pd.read_csv(results / name).groupby("title", sort=False):
            text += f"\n## {title}\n\n`results/{name}`\n\n{memory(part) if 'mebibytes' in part else ratios(part)}\n"
    return text


def memory(part: pd.DataFrame) -> str:
    """Of one title, what was measured in bytes."""
    body = ((row.what, f"{row.mebibytes:.0f}", f"{row.per_network:.1f}") for row in part.itertuples())
    return rows(("what", "MiB", "MiB a network"), body)


def ratios(part: pd.DataFrame) -> str:
    """Of one title, what was measured in seconds."""
    body = (
        (row.what, row.against, f"{row.ratio:.2f}", f"{row.ratio_min:.2f} to {row.ratio_max:.2f}", row.goal)
        for row in part.itertuples()
    )
    return rows(("what", "against", "times as quick", "of the turns", "goal"), body)


def claims(results: Path) -> str:
    """Every claim with its verdict, and every network's part in it."""
    text = CLAIMS_BEGIN
    for file in sorted(results.glob("*/claims.csv")):
        text += f"\n## {file.parent.name.replace('_', ' ')}\n"
        for number, part in pd.read_csv(file).fillna("").groupby("claim", sort=False):
            first = part.iloc[0]
            statistic = first.statistic[:1].upper() + first.statistic[1:]
            text += f"\n### {number}. {first.sentence}\n\n{first.source}. {statistic}. **{first.verdict}.**\n\n"
            body = ((row["where"], row["ours"], row["finding"]) for _, row in part.iterrows())
            text += rows(("network", "ours", "finding"), body) + "\n"
    return text


PAGES = {"benchmarks": benchmarks, "claims": claims}


def write(app: object) -> None:
    """Write the pages beside the gallery's."""
    root = Path(app.srcdir)  # type: ignore[attr-defined]
    folder = root / "docs" / "site" / "made"
    folder.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        (folder / f"{name}.md").write_text(page(root / "results"))


def setup(app: object) -> dict[str, bool]:
    """Write them before the pages are read."""
    app.connect("builder-inited", write)  # type: ignore[attr-defined]
    return {"parallel_read_safe": True}
