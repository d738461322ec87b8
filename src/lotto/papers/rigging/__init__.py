"""*Rigging the Lottery*, and other trainings along which the mask changes: SET, gradual magnitude pruning, ITOP."""

from __future__ import annotations

from lotto.papers.rigging.claims import CLAIMS
from lotto.papers.rigging.experiments import EXPERIMENTS

__all__ = ["CLAIMS", "EXPERIMENTS"]
