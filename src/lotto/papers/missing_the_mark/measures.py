"""What the experiment of *Missing the Mark* measures: errors of each method's masks, and of two ablations of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lotto.experiments.measures import Kind


@dataclass(frozen=True)
class Method:
    """A way to prune.

    Attributes:
        title: what figures call it.
        before: whether the weights at the rewind step are pruned; else trained ones.
        iterative: whether each level is pruned from the one before it, as by IMP; else by one cut.
        options: those of the plan: score and allocation.
        ablated: whether its masks are shuffled and put on new weights: of a random mask both are the same thing.
    """

    title: str
    before: bool = True
    iterative: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)
    ablated: bool = True


METHODS: dict[str, Method] = {
    "random-layer": Method("random, same density in all layers", options={"score": "random", "allocation": "layer"},
                           ablated=False),
    "random-erk": Method("random, Erdős–Rényi–Kernel", options={"score": "random", "allocation": "erk"}, ablated=False),
    "magnitude": Method("magnitude before training", options={"score": "magnitude"}),
    "snip": Method("SNIP", options={"score": "snip"}),
    "grasp": Method("GraSP", options={"score": "grasp"}),
    "synflow": Method("SynFlow", options={"score": "synflow"}),
    "one-shot": Method("magnitude after training, one cut", before=False, options={"score": "magnitude"}),
    "imp": Method("magnitude after training, iterative", before=False, iterative=True,
                  options={"score": "magnitude"}),
}  # fmt: skip
"""By the names of the option ``methods``. Allocations are global where a method names none."""
BEFORE = ("magnitude", "snip", "grasp", "synflow")
"""Those that the paper assesses."""
AFTER, RANDOM = "imp", "random-layer"
"""What they are compared with, from above and from below."""

OWN = {name: Kind(f"{name} mask") for name in METHODS}
SHUFFLED = {name: Kind(f"{name} mask, shuffled") for name in METHODS}
FRESH = {name: Kind(f"{name} mask, new initialisation") for name in METHODS}
KINDS = (OWN, SHUFFLED, FRESH)
