"""A ticket: the rewound start and the mask. Trained weights are never called a ticket."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lotto.core import files
from lotto.core.check import checked
from lotto.core.errors import UsageError, text
from lotto.core.shown import brief, table
from lotto.pruning import masks
from lotto.pruning.masks import Mask

START, MASK = "start/", "mask/"
SHOWN = ("level", "replicate", "order_seed", "test_error", "dense_error")
"""What of a ticket's information is printed."""


@checked
@dataclass(frozen=True)
class Ticket:
    """A subnetwork to be trained: ``start`` (the full state dict at the rewind step, masked) and ``mask``.

    Attributes:
        start: weights at the rewind step; pruned ones are 0.
        mask: what is kept.
        rewind_step: iteration at which training goes on.
        info: where it comes from: recipe, level, seeds, errors, the network's number of parameters. Plain values.

    >>> ticket = Ticket(lotto.pruning.masks.apply(recipe.initial(0), mask), mask)
    >>> path = ticket.save("ticket.safetensors")
    >>> run = lotto.train(recipe, start=Ticket.load(path))
    >>> ticket.density
    0.5
    """

    start: Mapping[str, Tensor]
    mask: Mask
    rewind_step: int = 0
    info: Mapping[str, Any] = field(default_factory=dict)

    @property
    def density(self) -> float:
        """Fraction of prunable weights left."""
        return masks.density(self.mask)

    @property
    def parameter_fraction(self) -> float | None:
        """Fraction of all parameters of the network left; None for a ticket that does not know how many there are."""
        parameters = self.info.get("parameters")
        return None if parameters is None else 1 - (masks.size(self.mask) - masks.count(self.mask)) / parameters

    @property
    def warning(self) -> str:
        """Which layers are pruned to nothing, in a sentence; empty if none is."""
        dead = masks.empty_layers(self.mask)
        return f"Pruned to nothing, so that no signal passes through its weights: {', '.join(dead)}." if dead else ""

    @checked
    def save(self, path: str | Path) -> Path:
        """Write the ticket as one safetensors file, atomically; returns its path.

        The tensors are ``start/NAME``, the whole state dict with pruned weights 0, and ``mask/NAME``, boolean: whoever
        has torch and safetensors reads them with the latter's ``load_file``, without lotto.

        Raises:
            UsageError: if no weight is left: that is no subnetwork. If the mask does not fit the start.
        """
        if not masks.count(self.mask):
            raise UsageError("The ticket keeps no weight at all, so it is not saved; take one of an earlier level.")
        start = masks.apply(self.start, self.mask)  # also that of a ticket that was put together by hand
        tensors = {START + n: t for n, t in start.items()} | {MASK + n: t for n, t in self.mask.items()}
        metadata = {
            "format": "lotto.ticket",
            "version": "1",
            "rewind_step": str(self.rewind_step),
            "density": repr(self.density),
            "info": self._info(),
            **({"warning": self.warning} if self.warning else {}),
            **masks.shared_metadata(self.mask),
        }
        files.save_tensors(Path(path), tensors, metadata)
        return Path(path)

    def _info(self) -> str:
        try:
            return json.dumps(dict(self.info))
        except (TypeError, ValueError) as error:
            raise UsageError(
                f"A ticket's info holds plain values, which a file can keep; got {text(self.info)}."
            ) from error

    @classmethod
    @checked
    def load(cls, path: str | Path) -> Ticket:
        """Read a ticket file.

        Raises:
            UsageError: if the file is missing or not a ticket.
        """
        tensors, metadata = files.load_tensors(Path(path), "lotto.ticket")
        with files.reading(Path(path)):
            shared = json.loads(metadata.get(masks.SHARED, "{}"))
            mask = Mask({n.removeprefix(MASK): t for n, t in tensors.items() if n.startswith(MASK)}, shared)
            start = {n.removeprefix(START): t for n, t in tensors.items() if n.startswith(START)}
            masks.check_fits(mask, start)
            return cls(start, mask, int(metadata["rewind_step"]), json.loads(metadata["info"]))

    def __repr__(self) -> str:
        said = "".join(f", {name}={brief(self.info[name])}" for name in SHOWN if name in self.info)
        left = f"{100 * self.density:.3g} % of {masks.size(self.mask):,} weights"
        warning = f"; {self.warning.rstrip('.')}" if self.warning else ""
        return f"Ticket({left}, rewind_step={self.rewind_step}{said}{warning})"

    def _repr_html_(self) -> str:
        """A table of what it is and of its layers."""
        rows = [("weights left", f"{100 * self.density:.3g} %"), ("rewind step", self.rewind_step)]
        rows += [(name.replace("_", " "), brief(self.info[name])) for name in SHOWN if name in self.info]
        rows += [(layer, f"{100 * part:.3g} %") for layer, part in masks.layer_densities(self.mask).items()]
        return table(("", "Ticket"), rows, "A ticket: weights at the rewind step, and what is left of each layer")
