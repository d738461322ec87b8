"""What is measured of each method."""

from __future__ import annotations

from dataclasses import dataclass

from lotto.experiments.measures import FRACTION, SHARE, Kind, Measure


@dataclass(frozen=True)
class Method:
    """A way to a subnetwork.

    Attributes:
        title: what figures call it.
        rewinds: whether its trainings begin at the rewind step; others are the same at each.
        single: whether it takes one training at most, so that no network is trained to the end to be pruned.
    """

    title: str
    rewinds: bool = False
    single: bool = True


METHODS: dict[str, Method] = {
    "random": Method("random (ERK)"),
    "magnitude": Method("magnitude at initialisation"),
    "snip": Method("SNIP"),
    "grasp": Method("GraSP"),
    "synflow": Method("SynFlow"),
    "set": Method("SET"),
    "rigl": Method("RigL, fewer at once"),
    "gradual": Method("gradual"),
    "early-bird": Method("Early-Bird"),
    "one-shot": Method("one-shot", rewinds=True, single=False),
    "imp": Method("IMP", rewinds=True, single=False),
    "lr-rewinding": Method("LR rewinding", rewinds=True, single=False),
    "fine-tuning": Method("fine-tuning", rewinds=True, single=False),
    "swamp": Method("SWAMP", rewinds=True, single=False),
}
"""By the names of the option ``methods``."""
KINDS = {name: Kind(f"method {name}") for name in METHODS}

COMPUTE = Measure("training compute", FRACTION)
"""Multiplications of all trainings that lead to the network over those of one dense training."""
STOPPED = Measure("mask settled", SHARE)
"""Of Early-Bird: the part of the training after which the mask has settled; 1 where it does not."""
