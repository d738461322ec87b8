"""Products with the Hessian of a convolutional network by the kernels that train it; see `learners.tangent_pass`.

A product costs about as much as two training steps on the same examples, and less as more is pruned: neither weights
nor directions have anything else than what the mask keeps. The loss may be any whose batches add up: torch
differentiates it twice, with respect to the outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lotto.core.jit import can_compile
from lotto.landscape.curvature.mean_loss import LossOfRecipe
from lotto.recipe.recipe import Recipe
from lotto.training.learners.activations import RELU
from lotto.training.learners.arithmetic import crossovers_where_quicker
from lotto.training.learners.batch_innermost import LANES, rounded_up
from lotto.training.learners.conv_networks import description_of
from lotto.training.learners.descriptions import Description, channels_and_size
from lotto.training.learners.network_layers import Layers, views
from lotto.training.network import Network

if TYPE_CHECKING:
    from lotto.training.learners.tangent_nodes import Unit

BATCH = 128
"""At most so many examples at once: fewer, and what is called for each batch takes longer than its sums."""


@dataclass
class _Batch:
    """What is the same in every product of a batch: of the linear layers at the end, and of the loss.

    Attributes:
        slot: where its activations are, see `tangent_pass.TangentPass`.
        outputs, gradient: of the loss; the latter as a function of the former.
        weight: of the batch's mean loss in that of all.
        inputs, given: of each linear layer its inputs and its outputs' gradients, shape (features, batch).
    """

    slot: int
    outputs: Tensor
    gradient: Tensor
    weight: float
    inputs: list[Tensor]
    given: list[Tensor]


class ByKernels(NamedTuple):
    """What a network computes, and the densities below which its layers are lists of single weights."""

    found: Description
    crossovers: Mapping[str, float]


def by_kernels(recipe: Recipe, network: Network) -> ByKernels | None:
    """How kernels compute a network; None if they do not, or torch is quicker."""
    possible = recipe.loop is None and recipe.arithmetic != "dense" and network.device.type == "cpu" and can_compile()
    if not (possible and recipe.arrays.has_tensors and network.dtype == torch.float32):
        return None
    found = description_of(network, recipe.arrays.shape)
    if found is None or not _is_suited(recipe, network.module, found):
        return None
    crossovers = crossovers_where_quicker(recipe, network.module, found, _not_zero(network.module))
    return None if crossovers is None else ByKernels(found, crossovers)


def _is_suited(recipe: Recipe, module: nn.Module, found: Description) -> bool:
    """Whether kernels know how its gradients move."""
    from lotto.training.learners.tangent_nodes import Unsuited, activations

    steps = Layers(module, found, {}).network.steps
    try:
        activations(steps, steps, *channels_and_size(recipe.arrays.shape), lambda units: 0)
    except Unsuited:
        return False
    return found.before == (None, *[RELU] * (len(found.linear) - 1))


def _not_zero(module: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.detach() != 0 for name, parameter in module.named_parameters()}


class KernelProducts:
    """Products with the Hessian, summed over batches.

    Args:
        loss: whose Hessian; a mean of known weights, see `LossOfRecipe.adds_up`.
        module: the network, in evaluation mode.
        how: kernels compute it.
        mask: the weights that a direction has.
        index: for each of these, which of its numbers are coordinates.
    """

    def __init__(
        self, loss: LossOfRecipe, module: nn.Module, how: ByKernels, mask: Mapping[str, Tensor],
        index: Sequence[Tensor],
    ) -> None:  # fmt: skip
        from lotto.training.learners.tangent_nodes import activations

        found = how.found
        self.loss, self.flat = loss, found.flat
        self.count = min(loss.count, loss.recipe.arrays.size(loss.split))
        self.batch = -(-self.count // -(-self.count // BATCH))  # batches as equal as can be
        kept = {name: keep.bool() for name, keep in mask.items()}
        none = {name: torch.zeros(p.shape, dtype=torch.bool) for name, p in module.named_parameters()}
        layers = Layers(module, found, _not_zero(module), how.crossovers)
        directions = Layers(module, found, {**none, **kept}, how.crossovers)
        folded, self.size = Folded(layers), len(layers.flat)
        self.nodes = activations(
            layers.network.steps, directions.network.steps, *channels_and_size(loss.recipe.arrays.shape), folded.bias_of
        )
        for node in self.nodes:
            for way in node.ways:
                way.direction.weight += self.size
        self.values = torch.cat([folded.weights, torch.zeros(self.size), *folded.biases])
        starts = {name: int(view.storage_offset()) for name, view in layers.parameters.items()}
        self.index = torch.cat([i + starts[name] for name, i in zip(mask, index, strict=True)])
        self.scales = folded.scales[self.index].double()
        self.head, self.like = [part.layer for part in layers.network.head.layers], layers.parameters
        self.names = [f"{name}.weight" for name in found.linear]
        self.directed = [name in mask for name in self.names]
        self.head_direction = self._parts(self.values[self.size : 2 * self.size])
        self.kept: list[_Batch] = []
        self.passes: Any = None

    def product(self, vector: np.ndarray, first: bool = False) -> np.ndarray:
        """``H v`` in float64; of the ``first`` batch only, or of all."""
        flat = self.values[self.size : 2 * self.size]
        flat[self.index] = (torch.from_numpy(vector) * self.scales).float()
        total, count = torch.zeros(len(self.index), dtype=torch.float64), 0.0
        for batch in self._batches(first):
            total += self._moved(batch)
            count += batch.weight
        return (total * self.scales / count).numpy()

    def _parts(self, vector: Tensor) -> list[Tensor]:
        """The linear layers' part of a direction or of what moves with it."""
        parts = dict(zip(self.like, views(vector, self.like), strict=True))
        return [parts[name] for name in self.names]

    def _batches(self, first: bool) -> Iterator[_Batch]:
        """Batches with their activations; few are kept from product to product."""
        from lotto.training.learners.tangent_pass import TangentPass

        if self.kept:
            yield from self.kept
            return
        keep = self.loss.is_small
        if self.passes is None:
            slots = -(-self.count // self.batch) if keep else 1
            self.passes = TangentPass(self.nodes, rounded_up(self.batch, LANES), slots, self.flat, self.values.numpy())
            self.moved = torch.from_numpy(self.passes.gradients)[self.size : 2 * self.size]
            self.moved_head = self._parts(self.moved)
        made: list[_Batch] = []
        for slot, (x, y) in enumerate(self.loss.batches(self.batch)):
            batch = self._computed(slot if keep else 0, x, y)
            if batch is None:
                continue
            yield batch
            if first:
                return
            if keep:
                made.append(batch)
        self.kept = made

    def _computed(self, slot: int, x: Tensor, y: Any) -> _Batch | None:
        """Activations and gradients of a batch; None of one without any target."""
        h, inputs = self.passes.forward(x, slot), []
        for i, layer in enumerate(self.head):
            h = h.relu() if i else h
            inputs.append(h)
            h = layer.weight @ h if layer.bias is None else torch.addmm(layer.bias[:, None], layer.weight, h)
        with torch.enable_grad():
            outputs = h.t()[: len(x)].detach().requires_grad_()
            loss, weight = self.loss.of_outputs(outputs, y)
            if not weight:
                return None
            (gradient,) = torch.autograd.grad(loss * weight, outputs, create_graph=True)
        d, given = _filled(gradient.detach(), self.passes.batch), list[Tensor]()
        for i, layer in reversed([*enumerate(self.head)]):
            given.append(d)
            d = layer.weight.t() @ d
            if i:
                d.mul_(inputs[i] > 0)
        self.passes.backward(d, slot)
        return _Batch(slot, outputs, gradient, weight, inputs, given[::-1])

    def _moved(self, batch: _Batch) -> Tensor:
        """How a batch's gradients move, over the coordinates."""
        direction, found = self.head_direction, self.moved_head
        h, moved = self.passes.forward_moves(batch.slot), list[Tensor]()
        for i, layer in enumerate(self.head):
            moved.append(h.clone())
            h = layer.weight @ h
            if self.directed[i]:
                h.addmm_(direction[i], batch.inputs[i])
            if i + 1 < len(self.head):
                h.mul_(batch.inputs[i + 1] > 0)
        d = _filled(_along(batch, h.t()[: len(batch.outputs)]), self.passes.batch)
        for i, layer in reversed([*enumerate(self.head)]):
            if self.directed[i]:
                torch.mm(d, batch.inputs[i].t(), out=found[i])
                found[i].addmm_(batch.given[i], moved[i].t())
            d = layer.weight.t() @ d
            if self.directed[i]:
                d.addmm_(direction[i].t(), batch.given[i])
            if i:
                d.mul_(batch.inputs[i] > 0)
        self.passes.backward_moves(d, batch.slot)
        return self.moved[self.index].double()


def _along(batch: _Batch, moved: Tensor) -> Tensor:
    """How the loss's gradient moves with its outputs."""
    if not batch.gradient.requires_grad:
        return torch.zeros_like(moved)
    (found,) = torch.autograd.grad(batch.gradient, batch.outputs, moved, retain_graph=True)
    return found


def _filled(gradient: Tensor, batch: int) -> Tensor:
    """Shape (outputs, batch), of (examples, outputs), with zeros for the examples that are missing."""
    found = torch.zeros(gradient.shape[1], batch)
    found[:, : len(gradient)] = gradient.t()
    return found


class Folded:
    """The weights with what BatchNorm by its running statistics multiplies them by, and the biases that this leaves.

    Attributes:
        weights, scales: vectors as `Layers.flat`.
        biases: of the activations, one after another.
    """

    def __init__(self, layers: Layers) -> None:
        self.layers, self.biases = layers, list[Tensor]()
        self.scales = torch.ones_like(layers.flat)
        self.weights = layers.flat.clone()

    def bias_of(self, units: Sequence[Unit]) -> int:
        """Fold the units of a sum; returns where its bias begins behind weights and direction."""
        place = 2 * len(self.weights) + sum(map(len, self.biases))
        self.biases.append(torch.stack([self._folded(unit) for unit in units]).sum(0).float())
        return place

    def _folded(self, unit: Unit) -> Tensor:
        """The bias that a unit is left with, in float64."""
        layer, flat, channels = unit.convolution, self.layers.flat.double(), unit.convolution.outputs
        bias = torch.zeros(channels, dtype=torch.float64)
        if unit.bias is not None:
            bias += flat[unit.bias.place :][:channels]
        if unit.norm is None:
            return bias
        running, eps = self.layers.running.double(), self.layers.network.vectors.constants[unit.norm.number, 1]
        mean, variance = (running[place:][:channels] for place in (unit.norm.mean, unit.norm.variance))
        scale = flat[unit.norm.weight :][:channels] / (variance + eps).sqrt()
        where = slice(layer.weight, layer.weight + layer.size)
        scales = scale.repeat_interleave(layer.size // channels)
        self.scales[where], self.weights[where] = scales.float(), (flat[where] * scales).float()
        return (bias - mean) * scale + flat[unit.norm.bias :][:channels]
