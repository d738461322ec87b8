"""The CIFAR ResNet in one dimension: signals in the place of images."""

from __future__ import annotations

from torch import Tensor, nn


class Block1d(nn.Module):
    """Two convolutions of width 3 with BatchNorm and a shortcut; strided blocks project the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm1d(outputs)
        self.conv2 = nn.Conv1d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm1d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv1d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm1d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """Shape (batch, channels, positions)."""
        out = self.bn1(self.conv1(x)).relu_()
        return self.bn2(self.conv2(out)).add_(self.shortcut(x)).relu_()


class ResNet1d(nn.Module):
    """ResNet-N for signals, N = 6n + 2: a convolution of width 5, three stages of n blocks, the mean over positions.

    Example:
        >>> from lotto.models.resnet1d import ResNet1d
        >>> sum(p.numel() for p in ResNet1d(20, 1, 10, width=8).parameters() if p.dim() > 1)  # those that are pruned
        23272

    Args:
        depth: number of layers, shortcuts not counted.
        channels: of the inputs, shape (batch, channels, positions), or (batch, positions) for one.
        classes: number of outputs.
        width: channels of the first stage; the others have twice and four times as many, at a half and a quarter of
            the positions.
    """

    def __init__(self, depth: int, channels: int, classes: int, width: int = 16) -> None:
        super().__init__()
        self.conv = nn.Conv1d(channels, width, 5, padding=2, bias=False)
        self.bn = nn.BatchNorm1d(width)
        blocks: list[nn.Module] = []
        inputs = width
        for stage in range(3):
            for i in range((depth - 2) // 6):
                outputs = width * 2**stage
                blocks.append(Block1d(inputs, outputs, 2 if stage > 0 and i == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores, shape (batch, classes)."""
        if x.dim() == 2:
            x = x.unsqueeze(1)
        x = self.bn(self.conv(x)).relu_()
        return self.fc(self.blocks(x).mean(2))
