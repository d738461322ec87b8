"""VGG-11/13/16/19 for small images: BatchNorm, average pooling, one linear layer."""

from __future__ import annotations

from torch import Tensor, nn

from lotto.models.norm_relu import NormReLU

PLANS: dict[int, tuple[tuple[int, int], ...]] = {
    11: ((64, 1), (128, 1), (256, 2), (512, 2), (512, 2)),
    13: ((64, 2), (128, 2), (256, 2), (512, 2), (512, 2)),
    16: ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)),
    19: ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)),
}
"""Depth -> (channels, convolutions) of each stage; stages are separated by 2x2 max-pooling."""


class VGG(nn.Module):
    """VGG with BatchNorm as the lottery-ticket papers use it: no hidden fully connected layers."""

    def __init__(self, depth: int, channels: int, classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for stage, (outputs, repeats) in enumerate(PLANS[depth]):
            if stage:
                layers.append(nn.MaxPool2d(2))
            for _ in range(repeats):
                layers += [
                    nn.Conv2d(channels, outputs, 3, padding=1, bias=False),
                    NormReLU(outputs),
                    nn.Identity(),  # where a ReLU would be: names are counted
                ]
                channels = outputs
        self.features = nn.Sequential(*layers)
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))
