"""All methods of the library side by side: the error of their subnetworks against what their trainings cost."""

from __future__ import annotations

from lotto.papers.methods.claims import CLAIMS
from lotto.papers.methods.experiments import EXPERIMENTS

__all__ = ["CLAIMS", "EXPERIMENTS"]
