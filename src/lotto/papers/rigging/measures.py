"""What the experiment of *Rigging the Lottery* measures."""

from __future__ import annotations

from lotto.experiments.measures import FRACTION, SHARE, Kind, Measure

STATIC, SET, RIGL, GRADUAL = Kind("static"), Kind("set"), Kind("rigl"), Kind("gradual")
SET_EXPLORING, RIGL_EXPLORING = Kind("set, exploring"), Kind("rigl, exploring")
"""With the setting that explores more weights (ITOP)."""
SET_FEWER, RIGL_FEWER = Kind("set, fewer"), Kind("rigl, fewer")
"""With fewer weights exchanged at each update."""

EXPLORED = Measure("explored", SHARE)
"""The part of the prunable weights that have been kept at one step of the training or another."""
EMPTY = Measure("empty channels", SHARE)
"""Of the layers' output channels or features, those that none of the layer's weights is left of."""
ARITHMETIC = Measure("arithmetic", FRACTION)
"""Multiplications of all trainings that lead to the network (IMP's are many) over those of a dense training."""
