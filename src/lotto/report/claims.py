"""Claims and what results say about them, for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from textwrap import wrap

from rich.markup import escape

from lotto.core.text import printable
from lotto.experiments.claims import Decision, Finding, Verdict

COLOURS = {
    Verdict.SUPPORTED: "green", Verdict.CONTRADICTED: "red", Verdict.UNDECIDED: "yellow",
    Verdict.AGREES: "green", Verdict.DIFFERS: "red",
}  # fmt: skip
WIDTH, INDENT = 80, 13
"""Signs in a line, and before its text."""


def console_claims(decisions: Sequence[Decision]) -> Iterator[str]:
    """A paragraph of rich markup for each claim, in lines of at most 80 signs, then a count.

    >>> from lotto.papers import check_claims, claims_of
    >>> *paragraphs, counts = console_claims(check_claims(claims_of("stabilizing"), []))
    >>> counts.split(", ")[2]
    '14 not decided'
    """
    for decision in decisions:
        claim, colour = decision.claim, COLOURS[decision.verdict]
        title = "\n".join(wrap(f"{claim.number:2}  {claim.sentence}", WIDTH, subsequent_indent="    "))
        lines = [f"[bold]{escape(title)}[/]", f"    [{colour}]{decision.verdict.value}[/]"]
        lines += _part("source", f"{claim.source}: {claim.paper}")
        lines += _part("measure", claim.statistic)
        for finding in decision.findings:
            lines += _finding(finding)
        if not decision.findings:
            lines += _part("ours", f"no results here; make them with: {claim.command}")
        yield "\n".join([*lines, ""])
    counts = Counter(d.verdict for d in decisions)
    yield "\n".join(wrap(", ".join(f"{counts[v]} {v.value}" for v in Verdict) + ".", WIDTH))


def _finding(finding: Finding) -> Iterator[str]:
    shade = COLOURS[finding.verdict]
    yield from _part("ours", finding.where, shade)
    yield from _part("", f"{finding.figure} → {finding.verdict.value} (p = {finding.p:.2g})")
    for condition in finding.conditions:
        yield from _part("", f"if {condition}")


def _part(name: str, text: str, colour: str = "dim") -> Iterator[str]:
    """A text with its name before the first of its lines."""
    for i, line in enumerate(wrap(printable(text), WIDTH - INDENT)):
        head = f"    [{colour}]{name}[/]".ljust(INDENT + len(f"[{colour}][/]")) if i == 0 and name else " " * INDENT
        yield head + escape(line)
