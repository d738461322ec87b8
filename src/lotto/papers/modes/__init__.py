"""Whether tickets of all methods lie in one mode of the error landscape, and what an equal error hides: ours."""

from __future__ import annotations

from lotto.papers.modes.claims import CLAIMS
from lotto.papers.modes.experiments import EXPERIMENTS

__all__ = ["CLAIMS", "EXPERIMENTS"]
