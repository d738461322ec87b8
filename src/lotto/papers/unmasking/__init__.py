"""*Unmasking the Lottery Ticket Hypothesis*: what a mask encodes, seen in the error landscape."""

from __future__ import annotations

from lotto.papers.unmasking.claims import CLAIMS
from lotto.papers.unmasking.experiments import EXPERIMENTS

__all__ = ["CLAIMS", "EXPERIMENTS"]
