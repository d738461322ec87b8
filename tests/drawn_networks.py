"""Convolutional networks at random, as hypothesis draws them."""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

POOLS = {
    "greatest": lambda: nn.MaxPool2d(2), "overlapping": lambda: nn.MaxPool2d(3, 2, 1),
    "mean": lambda: nn.AvgPool2d(2), "overlapping mean": lambda: nn.AvgPool2d((2, 3), 1, (1, 1)),
}  # fmt: skip


class Drawn(nn.Module):
    """A network of drawn parts: units (channels, kernel, stride, bias, norm, ReLU, groups), blocks of units, pooling.

    A block's first unit is strided if its shortcut has a convolution.
    """

    def __init__(self, parts, flat, hidden, size):
        super().__init__()
        self.parts, self.flat = nn.ModuleList(), flat
        channels = 2
        for kind, units, projected in parts:
            if kind in POOLS:
                self.parts.append(POOLS[kind]())
                continue
            outputs = units[-1][0] if kind == "unit" or projected else channels
            main = self._units(units, channels, outputs, block=kind == "block", strided=projected)
            shortcut = nn.Identity()
            if kind == "block" and projected:
                shortcut = self._units([(outputs, 1, 2, False, True, False, False)], channels, outputs, True, True)
            self.parts.append(nn.ModuleList([main, shortcut]) if kind == "block" else main)
            channels = outputs
        shape = self._features(torch.zeros(2, 2, *size)).shape
        widths = [shape[1], *([6] if hidden else []), 5]
        self.head = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))

    def _units(self, units, channels, outputs, block, strided):
        layers = []
        for i, (width, kernel, stride, bias, norm, relu, grouped) in enumerate(units):
            last = i == len(units) - 1
            width = outputs if last else width
            groups = math.gcd(channels, width) if grouped else 1
            stride = (2 if strided and i == 0 else 1) if block else stride
            norm = norm or (block and last) or not bias
            layers.append(nn.Conv2d(channels, width, kernel, stride, kernel // 2, groups=groups, bias=bias))
            layers += [nn.BatchNorm2d(width)] if norm else []
            layers += [nn.ReLU(inplace=norm)] if relu and not (block and last) else []
            channels = width
        return nn.Sequential(*layers)

    def _features(self, x):
        for part in self.parts:
            x = F.relu(part[0](x) + part[1](x)) if type(part) is nn.ModuleList else part(x)
        return x.flatten(1) if self.flat else x.mean((2, 3))

    def forward(self, x):
        x = self._features(x)
        for i, layer in enumerate(self.head):
            x = layer(x.relu() if i else x)
        return x


units = st.tuples(st.integers(1, 8), st.sampled_from([1, 3]), st.integers(1, 2), *[st.booleans()] * 4)
drawn_parts = st.lists(
    st.one_of(
        st.tuples(st.just("unit"), st.lists(units, min_size=1, max_size=1), st.just(False)),
        st.tuples(st.just("block"), st.lists(units, min_size=1, max_size=3), st.booleans()),
        st.tuples(st.sampled_from(sorted(POOLS)), st.just([]), st.just(False)),
    ),
    min_size=1,
    max_size=4,
)
