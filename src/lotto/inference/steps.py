"""A trained network as steps over kept weights: what `lotto::sparse_network` computes, in plain words.

Steps can be written as text, so that they stand in a program of `torch.export`, and worked off by torch's own
operators; `kernel_plan` has them worked off by kernels.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from lotto.core.errors import UsageError

VERSION = 1
LAYER, VIEW, SUM, MEAN, GREATEST, AVERAGE = "layer", "view", "sum", "mean", "greatest", "average"
Numbers = tuple[int, ...]


class Step(NamedTuple):
    """One of: ``relu(layer(x) + bias + added)``; ``relu(x + added)``; another view; means; greatest numbers.

    Attributes:
        kind: `LAYER`, `SUM`, `VIEW`, `MEAN` over all places, `GREATEST` or `AVERAGE` of each block of places, the
            latter without padding.
        source: whose outputs are read: those of the step before which so many stand; 0 = the network's inputs.
        shape: of a layer's whole weight, (outputs, inputs) or (outputs, inputs, kernel); of an example's view; of a
            block.
        stride, padding, dilation: of a convolution or of blocks, one number for each dimension.
        added: as ``source``, what is added; None = nothing.
        relu: whether ReLU follows.
        groups: of a convolution's inputs and outputs; ``shape`` has the inputs of one.
        kept: of a layer how many weights are stored; -1 = all, in their order and without places.
    """

    kind: str
    source: int
    shape: Numbers = ()
    stride: Numbers = ()
    padding: Numbers = ()
    dilation: Numbers = ()
    added: int | None = None
    relu: bool = False
    kept: int = -1
    groups: int = 1

    @property
    def stored(self) -> int:
        """Weights of a layer that are stored."""
        return math.prod(self.shape) if self.kept < 0 else self.kept

    def outputs(self, x: Sequence[int]) -> list[int]:
        """The shape of an example's outputs, from that of its inputs.

        Raises:
            UsageError: if it cannot read such inputs.
        """
        if self.kind == VIEW:
            fits, out = math.prod(x) == math.prod(self.shape), [*self.shape]
        elif self.kind == SUM:
            fits, out = True, [*x]
        elif self.kind == MEAN:
            fits, out = len(x) > 1, [x[0]]
        else:
            kernel = self.shape[2:] if self.kind == LAYER else self.shape
            fits = len(x) == 1 + len(kernel) and (self.kind != LAYER or x[0] == self.shape[1] * self.groups)
            spans = zip(x[1:], kernel, self.stride, self.padding, self.dilation, strict=False)
            sizes = [(size + 2 * p - d * (k - 1) - 1) // s + 1 for size, k, s, p, d in spans]
            out = [self.shape[0] if self.kind == LAYER else x[0], *sizes]
        if not fits:
            raise UsageError(f"A {self.kind} of the shape {[*self.shape]} cannot read examples of the shape {[*x]}.")
        return out


def to_text(steps: Sequence[Step]) -> str:
    """Steps as JSON, without what has its default."""
    defaults = Step._field_defaults
    plain = [{k: v for k, v in step._asdict().items() if k not in defaults or v != defaults[k]} for step in steps]
    return json.dumps({"version": VERSION, "steps": plain}, separators=(",", ":"))


def from_text(text: str) -> list[Step]:
    """Steps of a text.

    Raises:
        UsageError: if a later version has written it.

    >>> from_text(to_text([Step(LAYER, 0, (2, 3), relu=True)]))[0].shape
    (2, 3)
    """
    found = json.loads(text)
    if found["version"] != VERSION:
        raise UsageError(
            f"This program is of edition {found['version']}, which this lotto cannot compute; update lotto, or export "
            "the network again."
        )
    plain: list[Any] = [{k: tuple(v) if isinstance(v, list) else v for k, v in step.items()} for step in found["steps"]]
    return [Step(plainly.pop("kind"), plainly.pop("source"), **plainly) for plainly in plain]


def shapes(steps: Sequence[Step], x: Sequence[int]) -> list[list[int]]:
    """The shapes of an example's inputs and of its outputs after each step."""
    found = [[*x]]
    for step in steps:
        found.append(step.outputs(found[step.source]))
        if step.added is not None and [*found[step.added]] != found[-1]:
            raise UsageError(f"Outputs of the shapes {found[step.added]} and {found[-1]} cannot be added.")
    return found


def stored(steps: Sequence[Step]) -> Iterator[tuple[slice, slice | None, slice]]:
    """For each layer its places in the vectors of values, of places (None = all are stored) and of biases."""
    value = place = bias = 0
    for step in steps:
        if step.kind == LAYER:
            places = None if step.kept < 0 else slice(place, place + step.kept)
            yield slice(value, value + step.stored), places, slice(bias, bias + step.shape[0])
            value, place, bias = value + step.stored, place + max(0, step.kept), bias + step.shape[0]


def by_torch(steps: Sequence[Step], x: Tensor, values: Tensor, places: Tensor, biases: Tensor) -> Tensor:
    """The outputs by torch's own operators: every weight is made whole.

    Args:
        steps: of the network.
        x: inputs, shape (batch, ...).
        values: kept weights of all layers.
        places: where they stand in each whole weight.
        biases: of all layers.
    """
    outputs, vectors = [x], stored(steps)
    for step in steps:
        given = outputs[step.source]
        if step.kind == LAYER:
            value, place, bias = next(vectors)
            out = _layer(step, given, values[value], None if place is None else places[place], biases[bias])
        elif step.kind == VIEW:
            out = given.reshape(len(given), *step.shape)
        elif step.kind == MEAN:
            out = given.flatten(2).mean(2)
        elif step.kind == GREATEST:
            pool: Any = F.max_pool2d if len(step.shape) == 2 else F.max_pool1d
            out = pool(given, step.shape, step.stride, step.padding, step.dilation)
        elif step.kind == AVERAGE:
            average: Any = F.avg_pool2d if len(step.shape) == 2 else F.avg_pool1d
            out = average(given, step.shape, step.stride)
        else:
            out = given
        out = out if step.added is None else out + outputs[step.added]
        outputs.append(out.relu() if step.relu else out)
    return outputs[-1]


def _layer(step: Step, x: Tensor, values: Tensor, places: Tensor | None, bias: Tensor) -> Tensor:
    whole = values
    if places is not None:
        whole = values.new_zeros(math.prod(step.shape)).index_put((places.long(),), values)
    whole = whole.view(step.shape)
    if not step.stride:
        return F.linear(x, whole, bias)
    convolve: Any = F.conv2d if len(step.stride) == 2 else F.conv1d
    found: Tensor = convolve(x, whole, bias, step.stride, step.padding, step.dilation, step.groups)
    return found


def count(steps: Sequence[Step]) -> tuple[int, int, int]:
    """How many values, places and biases there must be."""
    layers = [step for step in steps if step.kind == LAYER]
    return sum(s.stored for s in layers), sum(max(0, s.kept) for s in layers), sum(s.shape[0] for s in layers)


def check(steps: Sequence[Step], places: Tensor) -> None:
    """Raise ``UsageError`` unless places are those of the weights that steps keep."""
    layers = [step for step in steps if step.kind == LAYER]
    for step, (_, where, _) in zip(layers, stored(steps), strict=True):
        at = places[where or slice(0)]
        outside = len(at) and (int(at[0]) < 0 or int(at[-1]) >= math.prod(step.shape))
        if outside or bool((torch.diff(at) <= 0).any()):
            raise UsageError("The places of kept weights do not ascend within their layer.")
