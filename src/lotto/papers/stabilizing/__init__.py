"""*Stabilizing the Lottery Ticket Hypothesis*, and its successor, *Linear Mode Connectivity*."""

from __future__ import annotations

from lotto.papers.stabilizing.claims import CLAIMS
from lotto.papers.stabilizing.experiments import EXPERIMENTS

__all__ = ["CLAIMS", "EXPERIMENTS"]
