"""A recurrent network for series of unequal lengths."""

from __future__ import annotations

from torch import Tensor, nn


class Gru(nn.Module):
    """A gated recurrent unit, and class scores of the mean of its outputs over the moments that there are.

    Example:
        >>> from lotto.models.gru import Gru
        >>> series = torch.randn(2, 4, 10)  # three signals and the mask
        >>> series[:, -1] = (torch.arange(10) < torch.tensor([[10], [6]])).float()
        >>> Gru(4, 5, width=8)(series).shape
        torch.Size([2, 5])

    Args:
        channels: of the inputs, the mask among them.
        classes: number of outputs.
        width: of the recurrent state.
    """

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.gru = nn.GRU(channels - 1, width, batch_first=True)
        self.fc = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores, shape (batch, classes), of (batch, channels, moments); the last channel is 0 behind the end."""
        outputs, _ = self.gru(x[:, :-1].transpose(1, 2))
        there = x[:, -1, :, None]
        return self.fc((outputs * there).sum(1) / there.sum(1).clamp(min=1))
