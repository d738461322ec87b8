"""*Pruning Neural Networks at Initialization: Why Are We Missing the Mark?*"""

from __future__ import annotations

from lotto.papers.missing_the_mark.claims import CLAIMS
from lotto.papers.missing_the_mark.experiments import EXPERIMENTS

__all__ = ["CLAIMS", "EXPERIMENTS"]
