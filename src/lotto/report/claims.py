"""Claims and what results say about them, for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from rich.markup import escape

from lotto.experiments.claims import Decision, Verdict

COLOURS = {Verdict.SUPPORTED: "green", Verdict.CONTRADICTED: "red", Verdict.UNDECIDED: "yellow"}


def console_claims(decisions: Sequence[Decision]) -> Iterator[str]:
    """A paragraph of rich markup for each claim, then a count."""
    for decision in decisions:
        claim, colour = decision.claim, COLOURS[decision.verdict]
        lines = [
            f"[bold]{claim.number:2}  {escape(claim.sentence)}[/]  [{colour}]{decision.verdict.value}[/]",
            f"    source   {escape(claim.source)}: {escape(claim.paper)}",
            f"    measure  {escape(claim.statistic)}",
        ]
        for finding in decision.findings:
            shade = COLOURS[finding.verdict]
            lines.append(f"    [{shade}]ours[/]     {escape(finding.where)}: {escape(finding.figure)}")
        if not decision.findings:
            lines.append(f"    ours     no results here; make them with: {escape(claim.command)}")
        yield "\n".join([*lines, ""])
    counts = Counter(d.verdict for d in decisions)
    yield ", ".join(f"{counts[v]} {v.value}" for v in Verdict) + "."
