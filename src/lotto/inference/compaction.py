"""A smaller network with the same outputs: units that pruning has cut off are removed.

A unit can go if nothing reads it, or if it is constant (no unpruned weight leads into it from anything that varies)
and what reads it can take the constant into its bias. Exact up to rounding; in evaluation mode only.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from lotto.errors import UsageError
from lotto.models.norm_relu import NormReLU

SAME_CHANNELS = (nn.ReLU, nn.Identity, nn.Dropout, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
_RELU = {"relu", "relu_", torch.relu, F.relu}
_ADD = {operator.add, operator.iadd, torch.add, "add", "add_"}
_FLATTEN = {"flatten", torch.flatten}
_POOL = {F.max_pool2d, F.avg_pool2d, F.adaptive_avg_pool2d}
_MEAN = {"mean", torch.mean}


@dataclass
class Space:
    """The channels that several layers share, as all summands of a residual network do.

    Attributes:
        size: number of channels.
        fixed: none may go: the network's inputs and outputs, and what is not understood.
        producers: layers whose outputs these channels are.
        norms: layers that work on each channel alone.
        readers: (layer, constants of the channels where it reads them, NaN = they vary; places per channel).
    """

    size: int
    fixed: bool = False
    producers: list[str] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    readers: list[tuple[str, Tensor, int]] = field(default_factory=list)


@dataclass
class Channels:
    """What is known of a tensor's axis 1: its space, its constant channels (NaN = it varies), places per channel."""

    space: Space
    constant: Tensor
    places: int = 1


def compact(module: nn.Module, example: Tensor) -> fx.GraphModule:
    """A copy of a trained, pruned network without the units that are cut off.

    Understands linear and convolution layers, BatchNorm, ReLU, pooling, flattening, sums and means over positions;
    channels that anything else touches all stay.

    Args:
        module: its pruned weights are 0.
        example: a batch of inputs.

    Returns:
        A network in evaluation mode whose outputs equal those of ``module.eval()`` up to rounding.

    Raises:
        UsageError: if the module's forward cannot be traced (`torch.fx`).
    """
    training = module.training
    try:
        graph = fx.GraphModule(module, _Tracer().trace(module.eval()))
    except Exception as error:  # tracing runs the user's code on stand-ins: anything can be raised
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"The forward of {type(module).__name__} cannot be traced: {reason}") from error
    finally:
        module.train(training)
    own = copy.deepcopy(graph)  # with tensors of its own
    with torch.no_grad():
        ShapeProp(own).propagate(example)
        survey = _Survey(own)
        for node in own.graph.nodes:
            survey.visit(node)
        for space in survey.spaces():
            _shrink(own, space)
    return own


class _Tracer(fx.Tracer):
    """Takes our layers as torch's: whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, NormReLU) or super().is_leaf_module(m, module_qualified_name)


class _Survey:
    """Follows the channels through a traced network."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.modules = dict(graph.named_modules())
        self.known: dict[fx.Node, Channels] = {}
        self.merged: dict[int, Space] = {}
        self.all: list[Space] = []
        self.uses: dict[str, int] = {}
        for node in graph.graph.nodes:
            if node.op == "call_module":
                self.uses[node.target] = self.uses.get(node.target, 0) + 1

    def spaces(self) -> list[Space]:
        """All spaces in which channels may go."""
        unique = {id(self.find(space)): self.find(space) for space in self.all}
        return [space for space in unique.values() if not space.fixed and space.producers]

    def find(self, space: Space) -> Space:
        """The space that a merged one has become."""
        while id(space) in self.merged:
            space = self.merged[id(space)]
        return space

    def visit(self, node: fx.Node) -> None:
        """Note what a node does to the channels."""
        inputs = [self.known[n] for n in node.all_input_nodes if n in self.known]
        shape = _shape(node)
        if node.op == "call_module" and inputs and (made := self._layer(node, inputs, shape)) is not None:
            self.known[node] = made
            return
        if node.op in ("call_function", "call_method") and inputs and shape is not None:
            made = self._function(node, inputs, shape)
            if made is not None:
                self.known[node] = made
                return
        for channels in inputs:  # something that is not understood: its channels stay
            self.find(channels.space).fixed = True
        if shape is not None and len(shape) > 1 and node.op != "output":
            self.known[node] = self._new(shape[1], fixed=True)

    def _new(self, size: int, fixed: bool = False, constant: Tensor | None = None) -> Channels:
        space = Space(size, fixed)
        self.all.append(space)
        return Channels(space, torch.full((size,), torch.nan, dtype=torch.float64) if constant is None else constant)

    def _layer(self, node: fx.Node, inputs: list[Channels], shape: tuple[int, ...] | None) -> Channels | None:
        layer, name, given = self.modules[str(node.target)], str(node.target), inputs[0]
        if len(inputs) != len(node.all_input_nodes) or len(inputs) > 1 + isinstance(layer, NormReLU):
            return None
        once = self.uses[name] == 1 and shape is not None
        if isinstance(layer, (nn.Linear, *CONVOLUTIONS)) and once:
            linear = isinstance(layer, nn.Linear)
            if getattr(layer, "groups", 1) != 1 or (linear and shape is not None and len(shape) != 2):
                return None
            self.find(given.space).readers.append((name, given.constant, given.places))
            made = self._new(layer.weight.shape[0], constant=_constant_outputs(layer, given))
            made.space.producers.append(name)
            return made
        if isinstance(layer, NORMS) and once and given.places == 1 and layer.running_mean is not None:
            self.find(given.space).norms.append(name)
            mean, variance = layer.running_mean.double(), layer.running_var.double()  # type: ignore[union-attr]
            scaled = (given.constant - mean) / (variance + layer.eps).sqrt()
            if layer.affine:
                scaled = scaled * layer.weight.double() + layer.bias.double()
            if isinstance(layer, NormReLU):
                return self._same(self._sum(Channels(given.space, scaled), inputs[1:]), True)
            return Channels(given.space, scaled)
        if isinstance(layer, nn.Flatten) and layer.start_dim == 1 and layer.end_dim == -1 and shape is not None:
            return self._flat(given, shape)
        if isinstance(layer, SAME_CHANNELS):
            return self._same(given, isinstance(layer, nn.ReLU), getattr(layer, "padding", 0))
        return None

    def _function(self, node: fx.Node, inputs: list[Channels], shape: tuple[int, ...]) -> Channels | None:
        first = inputs[0]
        if node.target in _RELU:
            return self._same(first, True)
        if node.target in _FLATTEN and node.args[1:] == (1,):
            return self._flat(first, shape)
        if node.target in _POOL:
            return self._same(first, False, node.kwargs.get("padding", node.args[3] if len(node.args) > 3 else 0))
        before = _shape(node.all_input_nodes[0])
        if node.target in _MEAN and before is not None and len(before) > 2 and len(shape) == 2:
            axes = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            if isinstance(axes, (tuple, list)) and sorted(a % len(before) for a in axes) == [*range(2, len(before))]:
                return self._same(first, False)
        if node.target in _ADD and len(inputs) == 2 and set(node.kwargs) == set():
            second = inputs[1]
            if _shape(node.all_input_nodes[1]) == before == shape and first.places == second.places == 1:
                return self._sum(first, [second])
        return None

    def _sum(self, first: Channels, others: Sequence[Channels]) -> Channels:
        for other in others:
            self._merge(first.space, other.space)
            first = Channels(self.find(first.space), first.constant + other.constant)
        return first

    @staticmethod
    def _same(given: Channels, relu: bool, padding: Any = 0) -> Channels:
        constant = given.constant.clamp(min=0) if relu else given.constant.clone()
        if padding not in (0, (0, 0)):  # zeros come in at the border
            constant[constant != 0] = torch.nan
        return Channels(given.space, constant, given.places)

    @staticmethod
    def _flat(given: Channels, shape: tuple[int, ...]) -> Channels:
        return Channels(given.space, given.constant, shape[1] // given.space.size)

    def _merge(self, first: Space, second: Space) -> None:
        a, b = self.find(first), self.find(second)
        if a is b:
            return
        a.fixed |= b.fixed
        for part in ("producers", "norms", "readers"):
            getattr(a, part).extend(getattr(b, part))
        self.merged[id(b)] = a


def _shape(node: fx.Node) -> tuple[int, ...] | None:
    meta: Any = node.meta.get("tensor_meta")
    return tuple(meta.shape) if hasattr(meta, "shape") else None


def _by_channel(layer: Any, places: int) -> Tensor:
    """Weights in float64, shape (outputs, channels read, places or kernel positions)."""
    weight = layer.weight.double()
    return weight.reshape(weight.shape[0], -1, places) if weight.dim() == 2 else weight.flatten(2)


def _padded(layer: Any) -> bool:
    return isinstance(layer, CONVOLUTIONS) and layer.padding not in (0, (0,), (0, 0), "valid")


def _constant_outputs(layer: Any, given: Channels) -> Tensor:
    """The outputs that do not depend on any input, NaN for the others."""
    weight = _by_channel(layer, given.places)
    varies = given.constant.isnan()
    if _padded(layer):  # a constant other than 0 ends at the border
        varies |= given.constant != 0
    outputs: Tensor = (weight * given.constant.nan_to_num()[:, None]).sum((1, 2))
    if layer.bias is not None:
        outputs += layer.bias.double()
    outputs[(weight[:, varies] != 0).any(2).any(1)] = torch.nan
    return outputs


def _shrink(graph: fx.GraphModule, space: Space) -> None:
    """Remove the channels that all readers can do without."""
    layers = dict(graph.named_modules())
    keep = torch.zeros(space.size, dtype=torch.bool)
    for name, constant, places in space.readers:
        layer = layers[name]
        read = (_by_channel(layer, places) != 0).any(2).any(0)
        needed = constant.isnan() | (constant != 0 if _padded(layer) else torch.zeros_like(read))
        keep |= read & needed
    if bool(keep.all()):
        return
    if not bool(keep.any()):
        keep[0] = True  # a layer has at least one unit
    for name, constant, places in space.readers:
        _narrow_reader(layers[name], keep, constant, places)
    for name in space.producers:
        layer = layers[name]
        layer.weight = nn.Parameter(layer.weight[keep].clone())
        if layer.bias is not None:
            layer.bias = nn.Parameter(layer.bias[keep].clone())
        setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", int(keep.sum()))
    for name in space.norms:
        norm = layers[name]
        for part in ("weight", "bias", "running_mean", "running_var"):
            tensor = getattr(norm, part)
            if tensor is not None:
                kept = tensor[keep].clone()
                setattr(norm, part, nn.Parameter(kept) if isinstance(tensor, nn.Parameter) else kept)
        norm.num_features = int(keep.sum())


def _narrow_reader(layer: Any, keep: Tensor, constant: Tensor, places: int) -> None:
    weight = _by_channel(layer, places)
    gone = ~keep
    moved = (weight[:, gone] * constant.nan_to_num()[gone, None]).sum((1, 2))
    if bool((moved != 0).any()):
        bias = (
            moved.to(layer.weight.dtype) if layer.bias is None else (layer.bias.double() + moved).to(layer.bias.dtype)
        )
        layer.bias = nn.Parameter(bias)
    shape = layer.weight.shape
    if isinstance(layer, nn.Linear):
        kept = layer.weight.reshape(shape[0], -1, places)[:, keep].flatten(1)
        layer.in_features = kept.shape[1]
    else:
        kept = layer.weight[:, keep]
        layer.in_channels = kept.shape[1]
    layer.weight = nn.Parameter(kept.clone())
