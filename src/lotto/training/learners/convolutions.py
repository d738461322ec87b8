"""Residual networks without autograd, with the batch innermost: each step costs what its unpruned weights cost.

Activations lie channel × height × width × batch. A dense layer's sums stay in registers for four outputs at a time; a
layer of which few enough weights are left multiplies each of them with contiguous rows and nothing else. All parameters
are views of one vector, which the optimizer moves as a whole; gradients of pruned weights are never written and stay 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lotto.core.jit import can_compile
from lotto.models.norm_relu import NormReLU
from lotto.models.plain import is_plain
from lotto.models.resnet import Block, ResNet
from lotto.models.resnet1d import Block1d, ResNet1d
from lotto.recipe.optimizers import OptimizerState
from lotto.training.job import Job, State
from lotto.training.learners.base import SingleLearner
from lotto.training.learners.batch_innermost import Pair, Shape
from lotto.training.learners.perceptron import loss_of
from lotto.training.network import Network, is_ours

if TYPE_CHECKING:
    from lotto.training.learners import conv_layers, residual

CROSSOVER = 0.45
"""Share of the weights of a dense layer's blocks below which single weights are quicker: a sum over rows of memory
takes about twice as long as one in registers."""
TWO_DIMENSIONS = False
"""Whether images' networks are trained here; their runs in store are autograd's."""
_KINDS: dict[type[nn.Module], tuple[type[nn.Module], ...]] = {
    ResNet1d: (Block1d, nn.Conv1d, nn.BatchNorm1d),
    ResNet: (Block, nn.Conv2d, NormReLU, nn.BatchNorm2d),
}
"""Networks; their blocks, convolutions and kinds of BatchNorm."""
_ALL = "parameters"
"""What the optimizer calls the vector of all parameters."""


class Convolutions(SingleLearner):
    """See `SingleLearner`.

    Args:
        jobs, network, states: see `Learner`; the network is not trained but evaluated.
        crossover: see `CROSSOVER`.
    """

    feature_major = True

    def __init__(
        self, jobs: Sequence[Job], network: Network, states: Sequence[State], crossover: float = CROSSOVER
    ) -> None:
        from lotto.training.learners.residual import NetworkPass

        (self.job,), (start,) = jobs, states
        self.network = network
        module = network.module
        named = dict(module.named_parameters())
        self.flat = torch.cat([parameter.detach().flatten() for parameter in named.values()])
        self.flat.grad = torch.zeros_like(self.flat)
        self.parameters = dict(zip(named, _views(self.flat, named), strict=True))
        running = {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
        self.running = torch.cat([buffer.flatten() for buffer in running.values()])
        self.buffers = dict(zip(running, _views(self.running, running), strict=True))
        steps = {name: buffer for name, buffer in module.named_buffers() if name not in running}
        self.steps = torch.stack([*steps.values()])
        self.counts = dict(zip(steps, self.steps.unbind(), strict=True))
        builder = _Builder(self.flat, self.parameters, self.running, self.buffers, self.job.mask or {}, crossover)
        self.layers = builder.network(module)
        self.sparse, self.convolutions = builder.sparse, builder.convolutions
        self.optimizer_state = OptimizerState(self.job.recipe.optimizer, {_ALL: self.flat})
        self.restore(start.optimizer)
        self.loss = loss_of(self.job, outputs=len(self.parameters["fc.bias"]))
        self.made = NetworkPass
        self.passes: dict[int, Any] = {}

    @classmethod
    def supports(cls, jobs: Sequence[Job], network: Network) -> bool:
        """One network, loss and data of ours: a residual network on a CPU in float32, all trained, weights masked."""
        recipe, module = jobs[0].recipe, network.module
        return (
            len(jobs) == 1
            and is_ours(recipe)
            and not recipe.compile
            and network.device.type == "cpu"
            and network.dtype == torch.float32
            and can_compile()
            and is_plain_resnet(module)
            and (TWO_DIMENSIONS or type(module) is ResNet1d)
            and recipe.batch_size * math.prod(_last_size(module, _size(recipe.arrays.shape))) > 1
            and all(mask.dim() > 1 for mask in (jobs[0].mask or {}).values())
        )

    def train_step(self, batch: tuple[Tensor, Tensor], step: int) -> Tensor:
        """See `Learner.train_step`; inputs have the shape (features, batch)."""
        loss = self._backward(*batch)
        self.optimizer_state.step(self.job.recipe.learning_rate(step))
        return loss

    @torch.no_grad()
    def _backward(self, x: Tensor, y: Tensor) -> Tensor:
        """Set the gradients and move the running statistics; returns the loss."""
        passes = self._passes(x.shape[1])
        loss, gradient = self.loss(passes.forward(x).t(), y)
        passes.backward(gradient.t())
        self.steps += 1
        return loss

    def _passes(self, batch: int) -> Any:
        """Memory for a size of batch; kept for the last one."""
        if batch not in self.passes:
            channels, size = self.layers.stem.convolution.inputs, _size(self.job.recipe.arrays.shape)
            self.passes = {batch: self.made(self.layers, channels, size, batch)}
        return self.passes[batch]

    def describe(self) -> str:
        return f"convolutions, {self.sparse} of {self.convolutions} layers sparse"

    def weights(self) -> dict[str, Tensor]:
        found = {**self.parameters, **self.buffers, **self.counts}
        return {name: found[name].detach().clone() for name in self.network.module.state_dict()}

    def eval_network(self, i: int = 0) -> Network:
        self.network.load(self.weights())
        return self.network

    def state(self, i: int = 0) -> State:
        optimizer = {
            f"{name}/{what}": part.clone()
            for what, value in self.optimizer_state.states[_ALL].items()
            for name, part in zip(self.parameters, self._parts(value), strict=True)
        }
        return State(self.weights(), optimizer)

    def restore(self, optimizer: Mapping[str, Tensor]) -> None:
        for what, value in self.optimizer_state.states[_ALL].items():
            for name, part in zip(self.parameters, self._parts(value), strict=True):
                if f"{name}/{what}" in optimizer:
                    part.copy_(optimizer[f"{name}/{what}"])

    def _parts(self, value: Tensor) -> list[Tensor]:
        """An optimizer's tensor of the whole vector, by parameter; what is one number is all parameters'."""
        return _views(value, self.parameters) if value.dim() else [value] * len(self.parameters)

    def to_dense(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.detach().clone()

    def from_dense(self, name: str, tensor: Tensor) -> Tensor:
        return tensor.clone()


def is_plain_resnet(module: nn.Module) -> bool:
    """Whether a module is a ResNet of ours that nobody has changed, all trained, in float32."""
    kinds = _KINDS.get(type(module))
    if kinds is None or not is_plain(module, {type(module), nn.Identity, nn.Sequential, nn.Linear, *kinds}):
        return False
    net: Any = module
    tensors = [*module.parameters(), *(b for b in module.buffers() if b.is_floating_point())]
    convolution, norms = kinds[1], kinds[2:]
    return (
        type(net.blocks) is nn.Sequential
        and all(type(block) is kinds[0] and _is_block(block, convolution, norms) for block in net.blocks)
        and _is_unit(net.conv, net.bn, convolution, norms)
        and type(net.fc) is nn.Linear
        and net.fc.bias is not None
        and all(parameter.requires_grad for parameter in module.parameters())
        and all(tensor.dtype == torch.float32 for tensor in tensors)
    )


def _is_block(block: Any, convolution: type[nn.Module], norms: Sequence[type[nn.Module]]) -> bool:
    """Whether the parts are what their names say; a shortcut that projects changes the shape."""
    pairs = [(block.conv1, block.bn1), (block.conv2, block.bn2)]
    if isinstance(block.shortcut, nn.Sequential):
        if len(block.shortcut) != 2:
            return False
        pairs.append((block.shortcut[0], block.shortcut[1]))
    elif type(block.shortcut) is not nn.Identity:
        return False
    return all(_is_unit(*pair, convolution, norms) for pair in pairs) and (
        len(pairs) == 2 or block.conv1.stride[-1] > 1 or block.conv1.in_channels != block.conv2.out_channels
    )


def _is_unit(layer: Any, norm: Any, convolution: type[nn.Module], norms: Sequence[type[nn.Module]]) -> bool:
    """Whether a convolution and a BatchNorm are of the kind that ours are made with."""
    if type(layer) is not convolution or type(norm) not in norms:
        return False
    zeros = layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
    plain = layer.groups == 1 and layer.bias is None and zeros
    return bool(plain and norm.affine and norm.track_running_stats and norm.momentum is not None)


def _size(shape: Sequence[int]) -> Pair:
    """Height and width of inputs (positions,), (channels, positions) or (channels, height, width)."""
    return (shape[-2] if len(shape) == 3 else 1), shape[-1]


def _last_size(module: Any, size: Pair) -> Pair:
    """Height and width of the last activations."""
    for layer in (module.conv, *(part for block in module.blocks for part in (block.conv1, block.conv2))):
        size = _shape(layer).outputs(size)
    return size


class _Builder:
    """Layers from a module's.

    Args:
        flat: the vector of all parameters, and its gradient.
        parameters: views of it, by name.
        running: the vector of all running statistics.
        buffers: views of it, by name.
        mask: of the parameters, by name.
        crossover: see `CROSSOVER`.
    """

    def __init__(
        self,
        flat: Tensor,
        parameters: Mapping[str, Tensor],
        running: Tensor,
        buffers: Mapping[str, Tensor],
        mask: Mapping[str, Tensor],
        crossover: float,
    ) -> None:
        self.flat, self.running, self.parameters, self.mask = flat, running, parameters, mask
        self.places = {name: int(view.storage_offset()) for name, view in (*parameters.items(), *buffers.items())}
        self.crossover = crossover
        self.constants: list[tuple[float, float]] = []
        self.sparse = self.convolutions = 0

    def network(self, module: Any) -> residual.Network:
        from lotto.training.learners.residual import Block, Network, Vectors

        assert self.flat.grad is not None
        stem, blocks = self.unit("conv", module.conv, "bn", module.bn), []
        for i, block in enumerate(module.blocks):
            at, shortcut, other = f"blocks.{i}.", block.shortcut, None
            first = self.unit(at + "conv1", block.conv1, at + "bn1", block.bn1)
            second = self.unit(at + "conv2", block.conv2, at + "bn2", block.bn2)
            if isinstance(shortcut, nn.Sequential):
                other = self.unit(at + "shortcut.0", shortcut[0], at + "shortcut.1", shortcut[1])
            blocks.append(Block(first, second, other))
        constants = np.array(self.constants)
        vectors = Vectors(self.flat.numpy(), self.flat.grad.numpy(), self.running.numpy(), constants)
        return Network(stem, blocks, self.head("fc"), vectors)

    def head(self, name: str) -> residual.Head:
        from lotto.training.learners.residual import Head

        assert self.flat.grad is not None
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        by_weight, by_bias = (
            self.flat.grad.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
            for tensor in (weight, bias)
        )
        mask = self.mask.get(f"{name}.weight")
        return Head(weight, bias, by_weight, by_bias, None if mask is None else mask.to(torch.float32))

    def unit(self, conv: str, layer: Any, bn: str, norm: Any) -> residual.Unit:
        from lotto.training.learners.residual import Unit

        return Unit(self.convolution(conv, layer), self.norm(bn, norm))

    def convolution(self, name: str, layer: Any) -> conv_layers.Convolution:
        from lotto.training.learners.conv_layers import DENSE, SPARSE, Convolution

        shape, weight = _shape(layer), layer.weight
        mask = self.mask.get(f"{name}.weight", torch.ones_like(weight, dtype=torch.bool))
        rows = SPARSE if float(mask.float().mean()) < self.crossover else DENSE
        self.sparse += rows == SPARSE
        self.convolutions += 1
        kept = mask.reshape(*weight.shape[:2], *shape.kernel).numpy()
        return Convolution(shape, self.places[f"{name}.weight"], kept, rows)

    def norm(self, name: str, layer: Any) -> conv_layers.Norm:
        from lotto.training.learners.conv_layers import Norm

        self.constants.append((layer.momentum, layer.eps))
        return Norm(
            layer.num_features,
            self.places[f"{name}.weight"],
            self.places[f"{name}.bias"],
            self.places[f"{name}.running_mean"],
            self.places[f"{name}.running_var"],
            len(self.constants) - 1,
        )


def _shape(layer: Any) -> Shape:
    return Shape(*(_pair(getattr(layer, what), fill) for what, fill in _SHAPE))


_SHAPE = (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1))


def _pair(sizes: Sequence[int], fill: int) -> Pair:
    """Height and width; what has one dimension has the height ``fill``."""
    return (sizes[-2] if len(sizes) == 2 else fill), sizes[-1]


def _views(flat: Tensor, like: Mapping[str, Tensor]) -> list[Tensor]:
    """A vector in parts, in the shapes of some tensors."""
    parts = flat.detach().split([tensor.numel() for tensor in like.values()])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like.values(), strict=True)]
