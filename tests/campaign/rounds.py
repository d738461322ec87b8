"""What campaigns of many processes share: rounds until enough were killed, what came of every training, a table."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from conftest import same_tensors
from lotto import Job, Store
from lotto.training.loop import train


class Rounds(Protocol):
    """Processes that are disturbed, round after round."""

    tally: Counter[str]

    @property
    def kills(self) -> int:
        """How many processes were killed."""

    def round(self, number: int) -> None:
        """Ask for trainings, and disturb those who do them until they are done."""

    def close(self, rounds: int) -> None:
        """End all, and look for everything."""


def until(rounds: Rounds, kills: int) -> Counter[str]:
    """Rounds until so many processes have been killed."""
    number = 0
    try:
        while rounds.kills < kills:
            rounds.round(number)
            number += 1
            print(f"\r{number} rounds, {rounds.kills} kills", end="", file=sys.stderr, flush=True)
    finally:
        rounds.close(number)
    return rounds.tally


def look_for(jobs: Sequence[Job], store: Store, lines: Sequence[list[str]], tally: Counter[str]) -> None:
    """Count what became of trainings: all are to be there, with the bits of an undisturbed one."""
    for job in jobs:
        run = store.lookup(job)
        tally["lost"] += run is None
        tally["wrong"] += run is not None and not same_tensors(run.weights, train(job).weights)
    tally["raw"] += sum(line[0] == "raw" for line in lines)
    computed = Counter(line[1] for line in lines if line[0] == "computed")
    tally["trainings"] = len(jobs)
    tally["computed"] = sum(computed[job.key or ""] for job in jobs)
    tally["computed most often"] = max(computed.values(), default=0)


def written(tally: Counter[str], ending: str, out: Path | None) -> None:
    """Print the table, and write it to a file if there is one."""
    lines = ["| what | how often |", "|---|---|", *(f"| {what} | {count} |" for what, count in tally.items())]
    text = "\n".join([*lines, "", ending, ""])
    print(f"\n{text}")
    if out:
        out.write_text(text)
