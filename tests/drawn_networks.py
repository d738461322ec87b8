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


FUNCTIONS = {
    "none": nn.Identity, "relu": lambda: nn.ReLU(inplace=True), "relu6": lambda: nn.ReLU6(inplace=True),
    "hardtanh": lambda: nn.Hardtanh(-0.8, 1.1), "leaky": lambda: nn.LeakyReLU(0.2),
}  # fmt: skip


class Sum(nn.Module):
    """``act(main(x) + shortcut(x))``."""

    def __init__(self, main, shortcut, act):
        super().__init__()
        self.main, self.shortcut, self.act = main, shortcut, act

    def forward(self, x):
        return self.act(self.main(x) + self.shortcut(x))


class Composed(nn.Module):
    """A network of drawn parts, more freely than `Drawn`: units (channels, kernel, stride, bias, norm, groups, function, whether BatchNorm and
    function come first), sums of units and of what these read, pooling.

    A sum's first unit is strided if its shortcut has a convolution.
    """

    def __init__(self, parts, flat, hidden, size):
        super().__init__()
        self.flat, channels, found = flat, 2, []
        for kind, units, projected, function in parts:
            if kind in POOLS:
                found.append(POOLS[kind]())
            elif kind == "unit":
                found.append(self._units(units, channels, units[-1][0]))
                channels = units[-1][0]
            else:
                outputs = units[-1][0] if projected else channels
                main = self._units(units, channels, outputs, 2 if projected else 1)
                shortcut = nn.Identity()
                if projected:
                    shortcut = self._units([(outputs, 1, 2, *units[0][3:])], channels, outputs, 2)
                found.append(Sum(main, shortcut, FUNCTIONS[function]()))
                channels = outputs
        self.parts = nn.Sequential(*found)
        shape = self._features(torch.zeros(2, 2, *size)).shape
        widths = [shape[1], *([6] if hidden else []), 5]
        self.head = nn.ModuleList(nn.Linear(a, b) for a, b in pairwise(widths))
        self.act = FUNCTIONS[parts[0][3] if parts[0][3] != "none" else "relu"]()

    def _units(self, units, channels, outputs, stride=None):
        layers = []
        for i, (width, kernel, own_stride, bias, norm, grouped, function, first) in enumerate(units):
            width = outputs if i == len(units) - 1 else width
            groups = math.gcd(channels, width) if grouped else 1
            step = own_stride if stride is None else stride if i == 0 else 1
            convolution = nn.Conv2d(channels, width, kernel, step, kernel // 2, groups=groups, bias=bias)
            normed = [nn.BatchNorm2d(channels if first else width)] if norm else []
            # In place, a function would change what a sum reads, too.
            act = [FUNCTIONS[function]() if normed or not first else nn.LeakyReLU(0.3)]
            layers += [*normed, *act, convolution] if first else [convolution, *normed, *act]
            channels = width
        return nn.Sequential(*layers)

    def _features(self, x):
        x = self.parts(x)
        return x.flatten(1) if self.flat else x.mean((2, 3))

    def forward(self, x):
        x = self._features(x)
        for i, layer in enumerate(self.head):
            x = layer(self.act(x) if i else x)
        return x


functions = st.sampled_from(sorted(FUNCTIONS))
free_units = st.tuples(
    st.integers(1, 8), st.sampled_from([1, 3]), st.integers(1, 2), *[st.booleans()] * 3, functions, st.booleans()
)
composed_parts = st.lists(
    st.one_of(
        st.tuples(st.just("unit"), st.lists(free_units, min_size=1, max_size=1), st.just(False), functions),
        st.tuples(st.just("sum"), st.lists(free_units, min_size=1, max_size=3), st.booleans(), functions),
        st.tuples(st.sampled_from(sorted(POOLS)), st.just([]), st.just(False), functions),
    ),
    min_size=1,
    max_size=4,
)
