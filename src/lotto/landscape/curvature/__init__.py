"""The Hessian over the unpruned coordinates: eigenvalues, spectral density, how much can be pruned at once."""

from __future__ import annotations

from lotto.landscape.curvature.blocks import Block, BlocksTask, pruned_block
from lotto.landscape.curvature.convergence import Limits, LimitsTask, limits
from lotto.landscape.curvature.eigenvalues import SpectrumTask, TopTask, spectrum, spectrum_from, top, top_from
from lotto.landscape.curvature.lanczos import Spectrum, Top
from lotto.landscape.curvature.operator import Hessian
from lotto.landscape.curvature.pruning_limit import largest_prunable

__all__ = [
    "Block",
    "BlocksTask",
    "Hessian",
    "Limits",
    "LimitsTask",
    "Spectrum",
    "SpectrumTask",
    "Top",
    "TopTask",
    "largest_prunable",
    "limits",
    "pruned_block",
    "spectrum",
    "spectrum_from",
    "top",
    "top_from",
]
