"""Networks and a loss of a user's, in a module of their own so that runs of them are remembered."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import lotto


class Dropping(nn.Module):
    """A perceptron that draws random numbers in its forward."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(12, 20), nn.Linear(20, 6)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.dropout(self.first(x).relu(), 0.2, self.training))


def plain() -> nn.Module:
    """A perceptron that autograd trains."""
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 6))


def normed() -> nn.Module:
    """A convolutional network with BatchNorm."""
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 64, 4)
    )


def ours() -> nn.Module:
    """A network of lotto's from a function of a user's."""
    return lotto.models.mlp([16], (12,), 6)


class Slower(lotto.SGD):
    """An optimizer of a user's."""


class Late(lotto.Linear):
    """A schedule of a user's."""


def smoothed(outputs: Tensor, targets: Tensor) -> Tensor:
    """Cross-entropy with label smoothing."""
    return F.cross_entropy(outputs, targets, label_smoothing=0.1)


def signed(weight: Tensor, start: Tensor | None, generator: object) -> Tensor:
    """A score of a user's."""
    return weight * torch.sign(weight + 0.01)
