"""Small convolutional networks: Conv-2/4/6 of the LTH paper, and a 1-D one for MNIST-1D."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class Conv(nn.Module):
    """Conv-2, -4 or -6: pairs of 3x3 convolutions (64, 128, 256 wide) with max-pooling, then 256-256-out.

    Source: LTH (1803.03635), figure 2.
    """

    def __init__(self, depth: int, shape: Sequence[int], classes: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.depth = depth
        for i in range(depth):
            out = 64 * 2 ** (i // 2)
            self.add_module(f"conv{i + 1}", nn.Conv2d(channels, out, 3, padding=1))
            channels = out
        shrink = 2 ** (depth // 2)
        self.fc1 = nn.Linear(channels * (height // shrink) * (width // shrink), 256)
        self.fc2 = nn.Linear(256, 256)
        self.fc3 = nn.Linear(256, classes)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, self.depth + 1):
            x = self.get_submodule(f"conv{i}")(x).relu()
            if i % 2 == 0:
                x = F.max_pool2d(x, 2)
        x = x.flatten(1)
        return self.fc3(self.fc2(self.fc1(x).relu()).relu())


class Conv1d(nn.Module):
    """Three strided 1-D convolutions of 25 channels and a linear layer, as MNIST-1D's authors use."""

    def __init__(self, length: int, classes: int, channels: int = 25) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, channels, 5, stride=2, padding=1)
        self.conv2 = nn.Conv1d(channels, channels, 3, stride=2, padding=1)
        self.conv3 = nn.Conv1d(channels, channels, 3, stride=2, padding=1)
        for kernel in (5, 3, 3):
            length = (length + 2 - kernel) // 2 + 1
        self.fc = nn.Linear(channels * length, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1).unsqueeze(1)
        x = self.conv3(self.conv2(self.conv1(x).relu()).relu()).relu()
        return self.fc(x.flatten(1))
