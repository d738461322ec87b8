"""CIFAR ResNets of He et al. (6n + 2 layers; 16, 32, 64 channels) with 1x1 convolution shortcuts."""

from __future__ import annotations

from torch import Tensor, nn

from lotto.models.norm_relu import NormReLU


class Block(nn.Module):
    """Two 3x3 convolutions with BatchNorm and a shortcut; strided blocks project the shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = NormReLU(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = NormReLU(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x))
        return self.bn2(self.conv2(out), self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-N for small images, N = 6n + 2. ResNet-20 at width 16 has 272,474 parameters."""

    def __init__(self, depth: int, channels: int, classes: int, width: int = 16) -> None:
        super().__init__()
        per_stage = (depth - 2) // 6
        self.conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.bn = NormReLU(width)
        blocks: list[nn.Module] = []
        inputs = width
        for stage in range(3):
            for i in range(per_stage):
                outputs = width * 2**stage
                blocks.append(Block(inputs, outputs, 2 if stage > 0 and i == 0 else 1))
                inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.conv(x))
        x = self.blocks(x)
        return self.fc(x.mean((2, 3)))
