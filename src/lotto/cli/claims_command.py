"""``lotto claims``: a paper's claims, decided from stored results."""

from __future__ import annotations

from pathlib import Path

from tyro.conf import Positional

from lotto.cli.screen import console, say
from lotto.cli.stopping import stopping


def claims(paper: Positional[str] = "stabilizing", folder: Positional[Path | None] = None, /) -> None:
    """Decide the claims of a paper from stored results.

    Reads every experiment in a folder and below it, puts equal training settings together, and writes claims.csv
    beside them. Supported or contradicted: the one-sided 95 % bound of the statistic over replicates is on one side of
    the threshold, after Holm's correction over the paper's claims, and the network is one that the claim is about, by
    conditions that stored results show; else it agrees or differs at another scale.

    Args:
        paper: stabilizing, unmasking, signs, ...; an unknown one lists them.
        folder: where the results are (default: lotto-results/PAPER).
    """
    from lotto import papers
    from lotto.core import files
    from lotto.experiments.claims import as_frame
    from lotto.experiments.results import grouped, read_below
    from lotto.report.claims import console_claims

    stopping.unwind()
    known = papers.claims_of(paper)
    folder = folder or Path("lotto-results") / paper
    decisions = papers.check_claims(known, grouped(read_below(folder)))
    for part in console_claims(decisions):
        console.print(part, highlight=False)
    files.write_text(folder / "claims.csv", as_frame(decisions).to_csv(index=False))
    say(f"Table   {folder / 'claims.csv'}")
