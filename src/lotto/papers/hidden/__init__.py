"""What matching hides, and what it is worth: changed examples, classes, calibration; equal budgets; other trainings."""

from __future__ import annotations

from lotto.papers.hidden.budget import budget
from lotto.papers.hidden.claims import CLAIMS
from lotto.papers.hidden.examples import examples
from lotto.papers.hidden.moved import moved

EXPERIMENTS = (examples, budget, moved)

__all__ = ["CLAIMS", "EXPERIMENTS"]
