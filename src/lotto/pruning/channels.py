"""Which channels the layers of a network share, and what is known of them: what can be removed with no effect."""

from __future__ import annotations

import contextlib
import io
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn import functional as F

from lotto.core.errors import UsageError
from lotto.models.norm_relu import NormReLU
from lotto.models.plain import is_plain

SAME_CHANNELS = (nn.ReLU, nn.Identity, nn.Dropout, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)
UNDERSTOOD = (nn.Linear, nn.Flatten, NormReLU, *SAME_CHANNELS, *CONVOLUTIONS, *NORMS)
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
        norms: layers that work on each channel by itself.
        readers: (layer, constants of the channels where it reads them, NaN = they vary; positions per channel).
    """

    size: int
    fixed: bool = False
    producers: list[str] = field(default_factory=list)
    norms: list[str] = field(default_factory=list)
    readers: list[tuple[str, Tensor, int]] = field(default_factory=list)


@dataclass
class Channels:
    """What is known of a tensor's axis 1: its space, its constant channels (NaN = it varies), positions per channel."""

    space: Space
    constant: Tensor
    positions: int = 1


def traced(module: nn.Module) -> fx.GraphModule:
    """A module's forward as a graph of its own layers, in the mode (training or evaluation) that it is in.

    Raises:
        UsageError: if it cannot be traced (`torch.fx`).
    """
    try:
        return fx.GraphModule(module, _Tracer().trace(module))
    except Exception as error:  # tracing runs the user's code on stand-ins: anything can be raised
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UsageError(f"The forward of {type(module).__name__} cannot be traced: {reason}") from error


@torch.no_grad()
def channel_spaces(graph: fx.GraphModule, example: Tensor) -> list[Space]:
    """All spaces in which channels may go, from the inputs on; their constants are those of evaluation.

    Understands linear and convolution layers, BatchNorm, ReLU, pooling, flattening, sums and means over positions;
    channels that anything else touches are left out. With dropout, a network in training mode draws other numbers for
    fewer channels: then its channels are left out, too.

    Args:
        graph: from `traced`; its nodes' ``meta`` has the shapes afterwards.
        example: a batch of inputs.

    Raises:
        UsageError: if the graph cannot be run on them: the forward has branches, of which tracing took another.
    """
    training = graph.training
    try:
        with contextlib.redirect_stderr(io.StringIO()):  # where torch prints a traceback before it raises
            ShapeProp(graph.eval()).propagate(example)
    except Exception as error:
        raise UsageError(
            "The forward cannot be traced: it goes another way for these inputs than for those that tracing tries, "
            "such as `if x is None`."
        ) from error
    finally:
        graph.train(training)
    survey = _Survey(graph)
    for node in graph.graph.nodes:
        survey.visit(node)
    return survey.spaces()


class _Tracer(fx.Tracer):
    """Traces each of our layers as one node, as torch's are."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m) is NormReLU or super().is_leaf_module(m, module_qualified_name)


class _Survey:
    """Follows the channels through a traced network."""

    def __init__(self, graph: fx.GraphModule) -> None:
        self.graph = graph
        self.modules = dict(graph.named_modules())
        self.known: dict[fx.Node, Channels] = {}
        self.merged: dict[int, Space] = {}
        self.all: list[Space] = []
        self.uses: dict[str, int] = {}
        self.seen_changed = _seen_changed(graph, self.modules)
        for node in graph.graph.nodes:
            if node.op in ("call_module", "get_attr"):  # a layer, or one of its parameters beside it
                name = str(node.target) if node.op == "call_module" else str(node.target).rpartition(".")[0]
                self.uses[name] = self.uses.get(name, 0) + 1

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
        shape = shape_of(node)
        if node in self.seen_changed:
            made = None
        elif node.op == "call_module" and inputs and (made := self._layer(node, inputs, shape)) is not None:
            self.known[node] = made
            return
        elif node.op in ("call_function", "call_method") and inputs and shape is not None:
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
        if not is_plain(layer, UNDERSTOOD):  # someone has changed what it computes
            return None
        once = self.uses[name] == 1 and shape is not None
        if isinstance(layer, (nn.Linear, *CONVOLUTIONS)) and once:
            linear = isinstance(layer, nn.Linear)
            if getattr(layer, "groups", 1) != 1 or (linear and shape is not None and len(shape) != 2):
                return None
            self.find(given.space).readers.append((name, given.constant, given.positions))
            made = self._new(layer.weight.shape[0], constant=_constant_outputs(layer, given))
            made.space.producers.append(name)
            return made
        if isinstance(layer, NORMS) and once and given.positions == 1 and layer.running_mean is not None:
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
        if isinstance(layer, SAME_CHANNELS) and not (isinstance(layer, nn.Dropout) and self.graph.training):
            divided = getattr(layer, "divisor_override", None) is not None
            return self._same(given, isinstance(layer, nn.ReLU), getattr(layer, "padding", 0), divided)
        return None

    def _function(self, node: fx.Node, inputs: list[Channels], shape: tuple[int, ...]) -> Channels | None:
        first = inputs[0]
        if node.target in _RELU:
            return self._same(first, True)
        if node.target in _FLATTEN and node.args[1:] == (1,) and not node.kwargs:
            return self._flat(first, shape)
        if node.target in _POOL:
            padding = node.kwargs.get("padding", node.args[3] if len(node.args) > 3 else 0)
            divisor = node.kwargs.get("divisor_override", node.args[6] if len(node.args) > 6 else None)
            return self._same(first, False, padding, node.target is F.avg_pool2d and divisor is not None)
        before = shape_of(node.all_input_nodes[0])
        if node.target in _MEAN and before is not None and len(before) > 2 and len(shape) == 2:
            axes: Any = node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")
            known = isinstance(axes, (tuple, list)) and all(isinstance(a, int) for a in axes)
            if known and sorted(a % len(before) for a in axes) == [*range(2, len(before))]:
                return self._same(first, False)
        if node.target in _ADD and len(inputs) == 2 and set(node.kwargs) == set():
            second = inputs[1]
            if shape_of(node.all_input_nodes[1]) == before == shape and first.positions == second.positions == 1:
                return self._sum(first, [second])
        return None

    def _sum(self, first: Channels, others: Sequence[Channels]) -> Channels:
        for other in others:
            self._merge(first.space, other.space)
            first = Channels(self.find(first.space), first.constant + other.constant)
        return first

    @staticmethod
    def _same(given: Channels, relu: bool, padding: Any = 0, divided: bool = False) -> Channels:
        constant = given.constant.clamp(min=0) if relu else given.constant.clone()
        if divided or padding not in (0, (0, 0)):  # by a number of the user's; or zeros come in at the border
            constant[constant != 0] = torch.nan
        return Channels(given.space, constant, given.positions)

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


_VIEWS = {"flatten", "view", "reshape", "detach", "transpose", "permute", "squeeze", "unsqueeze", "contiguous", "t"}
_SAME_MEMORY = (nn.Flatten, nn.Identity, nn.Dropout, nn.Dropout2d, nn.Unflatten)


def _seen_changed(graph: fx.GraphModule, modules: dict[str, nn.Module]) -> set[fx.Node]:
    """Operations in place whose input is read once more afterwards, itself or through a view of it.

    What is known of that input's channels does not hold for the later reader.
    """
    order = {node: i for i, node in enumerate(graph.graph.nodes)}
    in_place = {node for node in order if node.all_input_nodes and _is_in_place(node, modules)}

    def aliases(node: fx.Node) -> set[fx.Node]:
        """Nodes whose outcome may be in the memory of this one's."""
        found, waiting = set(), [node]
        while waiting:
            at = waiting.pop()
            if at in found:
                continue
            found.add(at)
            if (at in in_place or _is_view(at, modules)) and at.all_input_nodes:
                waiting.append(at.all_input_nodes[0])
            waiting += [user for user in at.users if _is_view(user, modules)]
        return found

    return {
        node
        for node in in_place
        if any(
            order[user] > order[node]
            for alias in aliases(node.all_input_nodes[0])
            if order[alias] < order[node]
            for user in alias.users
        )
    }


def _is_in_place(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return bool(getattr(modules[str(node.target)], "inplace", False))
    if node.op not in ("call_function", "call_method"):
        return False
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    augmented = name.startswith("i") and getattr(operator, name, None) is node.target  # iadd, imul, ...
    return augmented or (name.endswith("_") and not name.endswith("__")) or bool(node.kwargs.get("inplace", False))


def _is_view(node: fx.Node, modules: dict[str, nn.Module]) -> bool:
    if node.op == "call_module":
        return isinstance(modules[str(node.target)], _SAME_MEMORY)
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return node.op in ("call_function", "call_method") and (name in _VIEWS or node.target is operator.getitem)


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """Of a node's outcome, where that is one tensor."""
    meta: Any = node.meta.get("tensor_meta")
    return tuple(meta.shape) if hasattr(meta, "shape") else None


def by_channel(layer: Any, positions: int) -> Tensor:
    """Weights in float64, shape (outputs, channels read, positions or kernel positions)."""
    weight = layer.weight.double()
    return weight.reshape(weight.shape[0], -1, positions) if weight.dim() == 2 else weight.flatten(2)


def is_padded(layer: Any) -> bool:
    """Whether zeros come in at the border."""
    return isinstance(layer, CONVOLUTIONS) and layer.padding not in (0, (0,), (0, 0), "valid")


def _constant_outputs(layer: Any, given: Channels) -> Tensor:
    """The outputs that do not depend on any input, NaN for the others."""
    weight = by_channel(layer, given.positions)
    varies = given.constant.isnan()
    if is_padded(layer):  # a constant other than 0 ends at the border
        varies |= given.constant != 0
    outputs: Tensor = (weight * given.constant.nan_to_num()[:, None]).sum((1, 2))
    if layer.bias is not None:
        outputs += layer.bias.double()
    outputs[(weight[:, varies] != 0).any(2).any(1)] = torch.nan
    return outputs
