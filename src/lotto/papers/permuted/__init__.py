"""*Sparse Training from Random Initialization* by aligned masks, and barriers modulo permutation of units."""

from __future__ import annotations

from lotto.papers.permuted.claims import CLAIMS
from lotto.papers.permuted.experiments import EXPERIMENTS

__all__ = ["CLAIMS", "EXPERIMENTS"]
