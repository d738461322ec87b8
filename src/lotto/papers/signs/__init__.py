"""*Deconstructing Lottery Tickets* and *Masks, Signs, and Learning Rate Rewinding*: what signs and masks hold."""

from __future__ import annotations

from lotto.papers.signs.claims import CLAIMS
from lotto.papers.signs.experiments import EXPERIMENTS

__all__ = ["CLAIMS", "EXPERIMENTS"]
