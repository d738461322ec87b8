"""What an experiment's rows say about the claims of its paper, for its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from lotto.core.statistics import Verdict
from lotto.experiments.claims import Claim, Decision, check_claims
from lotto.experiments.results import StoredResult, grouped


class Findings:
    """What the rows of a folder say about the claims of their papers.

    Args:
        results: all of the folder. Claims of a paper that one network's results say something about are tested
            together.
        claims: by paper.
    """

    def __init__(self, results: Sequence[StoredResult], claims: Mapping[str, Sequence[Claim]]) -> None:
        self._decisions: dict[str, list[Decision]] = {}
        for paper in {str(result.about["paper"]) for result in results} & set(claims):
            of_paper = [result for result in results if result.about["paper"] == paper]
            found = check_claims(claims[paper], grouped(of_paper))
            self._decisions[paper] = [decision for decision in found if decision.findings]

    def of(self, result: StoredResult) -> list[Decision]:
        """Those of the claims that an experiment's rows are made for."""
        name = f" {result.about['paper']}.{result.about['name']} "
        return [d for d in self._decisions.get(str(result.about["paper"]), ()) if name in f"{d.claim.command} "]


def sentence(decisions: Sequence[Decision]) -> str:
    """What the claims come to, in a sentence."""
    if not decisions:
        return "Measured, without a claim that these rows alone decide: the figure and the table have the values."
    found = Counter(decision.verdict for decision in decisions)
    shown = [f"{found[verdict]} {verdict.value}" for verdict in Verdict if found[verdict]]
    said = f"Of {len(decisions)} claims" if len(decisions) > 1 else "Of one claim"
    decided = [d for d in decisions if d.verdict is not Verdict.UNDECIDED]
    example = f" {decided[0].verdict.value.capitalize()}: {decided[0].claim.sentence}" if decided else ""
    return f"{said} that these rows say something about: {', '.join(shown)}.{example}"


def rows(decisions: Sequence[Decision]) -> list[list[str]]:
    """A row for each finding: the claim, its verdict, the network with the figure."""
    return [
        [
            f"{decision.claim.number} {decision.claim.sentence}",
            finding.verdict.value,
            f"{finding.where}: {finding.figure}",
        ]
        for decision in decisions
        for finding in decision.findings
    ]
