"""The channels that layers share: of networks that are known as layers, and of any others that can be traced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lotto.pruning.channels import Space, channel_spaces, traced
from lotto.training.learners.conv_networks import described
from lotto.training.learners.descriptions import Add, Convolve, Description, Normalise, last_size
from lotto.training.learners.operations import Unknown


def spaces_of(module: nn.Module, example: Tensor) -> list[Space]:
    """The spaces of channels in which none is fixed.

    Convolutional networks that kernels compute are known as layers that read each other's values, however their
    forward is written; of others the forward is traced.

    Args:
        module: on the CPU, in evaluation mode.
        example: a batch of inputs of the module's type.

    Raises:
        UsageError: if neither is possible.
    """
    try:
        found = described(module, example.shape[1:])
    except Unknown:
        return channel_spaces(traced(module), example)
    return _Joined(module, found, example.shape[1:]).spaces()


class _Joined:
    """Follows the channels through a described network."""

    def __init__(self, module: nn.Module, found: Description, shape: Sequence[int]) -> None:
        self.module, self.found, self.shape = module, found, shape
        self.known: list[Space] = [Space(0, fixed=True)]
        """The space of each value; those of values that are added are one object."""

    def spaces(self) -> list[Space]:
        """Without the inputs' and the outputs'."""
        for node in self.found.nodes:
            here = self.known[node.x]
            if isinstance(node, Convolve):
                layer: Any = self.module.get_submodule(node.name)
                here = self._read(node.name, here, layer.out_channels, fixed=layer.groups != 1)
            elif isinstance(node, Normalise):
                here.norms.append(node.name)
            elif isinstance(node, Add):
                here = self._joined(here, self.known[node.other])
            self.known.append(here)
        here, height_width = self.known[-1], last_size(self.module, self.found, self.shape)
        positions = height_width[0] * height_width[1] if self.found.flat else 1
        for name in self.found.linear:
            here = self._read(name, here, self.module.get_submodule(name).out_features, positions)  # type: ignore[arg-type]
            self.known.append(here)
            positions = 1
        here.fixed = True
        unique = {id(space): space for space in self.known}
        return [space for space in unique.values() if not space.fixed]

    def _read(self, name: str, space: Space, size: int, positions: int = 1, fixed: bool = False) -> Space:
        """A layer reads channels and gives others."""
        space.fixed |= fixed
        space.readers.append((name, torch.full((space.size,), torch.nan, dtype=torch.float64), positions))
        return Space(size, fixed, [name])

    def _joined(self, one: Space, other: Space) -> Space:
        if one is other:
            return one
        one.fixed |= other.fixed
        for part in ("producers", "norms", "readers"):
            getattr(one, part).extend(getattr(other, part))
        self.known = [one if space is other else space for space in self.known]
        return one
