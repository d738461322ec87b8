"""ResNets of ours as layers over vectors: the proof that a module is one, and where its tensors stand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lotto.models.norm_relu import NormReLU
from lotto.models.plain import is_plain
from lotto.models.resnet import Block, ResNet
from lotto.models.resnet1d import Block1d, ResNet1d
from lotto.training.learners.batch_innermost import Pair, Shape

if TYPE_CHECKING:
    from lotto.training.learners import conv_layers, residual

CROSSOVER = 0.45
"""Share of the weights of a dense layer's blocks below which single weights are quicker: a sum over rows of memory
takes about twice as long as one in registers."""
_KINDS: dict[type[nn.Module], tuple[type[nn.Module], ...]] = {
    ResNet1d: (Block1d, nn.Conv1d, nn.BatchNorm1d),
    ResNet: (Block, nn.Conv2d, NormReLU, nn.BatchNorm2d),
}
"""Networks; their blocks, convolutions and kinds of BatchNorm."""


def has_kernels(module: nn.Module) -> bool:
    """Whether a module is computed by kernels of ours, and quicker: one of images by those of one thread.

    With more threads, or narrower registers, torch's dense layers of images may be quicker.
    """
    if not is_plain_resnet(module):
        return False
    if type(module) is ResNet1d:
        return True
    from lotto.training.learners.vector_blocks import WIDE

    return WIDE and torch.get_num_threads() == 1


def is_plain_resnet(module: nn.Module) -> bool:
    """Whether a module is a ResNet of ours that nobody has changed, in float32."""
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


def channels_and_size(shape: Sequence[int]) -> tuple[int, Pair]:
    """Of inputs (positions,), (channels, positions) or (channels, height, width): channels, and (height, width)."""
    channels, *size = shape if len(shape) > 1 else (1, *shape)
    return channels, ((size[0] if len(size) == 2 else 1), size[-1])


def last_size(module: Any, shape: Sequence[int]) -> Pair:
    """Height and width of the last activations for inputs of a shape."""
    _, size = channels_and_size(shape)
    for layer in (module.conv, *(part for block in module.blocks for part in (block.conv1, block.conv2))):
        size = _shape(layer).outputs(size)
    return size


class Layers:
    """A ResNet's parameters and running statistics as vectors, and its layers as places in them.

    Args:
        module: see `is_plain_resnet`; its tensors are copied.
        mask: of the parameters, by name.
        crossover: see `CROSSOVER`.

    Attributes:
        flat: all parameters, with their gradient.
        parameters: views of it, by name.
        statistics: views of all running statistics, by name.
        steps: of each BatchNorm, ``num_batches_tracked``.
        network: the layers.
        sparse, convolutions: how many there are.
    """

    def __init__(self, module: nn.Module, mask: Mapping[str, Tensor], crossover: float = CROSSOVER) -> None:
        named = dict(module.named_parameters())
        self.flat = torch.cat([parameter.detach().flatten() for parameter in named.values()])
        self.flat.grad = torch.zeros_like(self.flat)
        self.parameters = dict(zip(named, views(self.flat, named), strict=True))
        running = {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
        self.running = torch.cat([buffer.flatten() for buffer in running.values()])
        self.statistics = dict(zip(running, views(self.running, running), strict=True))
        steps = {name: buffer for name, buffer in module.named_buffers() if name not in running}
        self.steps = torch.stack([*steps.values()])
        self._counts = dict(zip(steps, self.steps.unbind(), strict=True))
        self._mask, self._crossover = mask, crossover
        self._places = {
            name: int(view.storage_offset()) for name, view in (*self.parameters.items(), *self.statistics.items())
        }
        self._constants: list[tuple[float, float]] = []
        self.sparse = self.convolutions = 0
        self.network = self._network(module)

    def tensors(self) -> dict[str, Tensor]:
        """Views of everything, by name."""
        return {**self.parameters, **self.statistics, **self._counts}

    def forget(self) -> None:
        """From now on running statistics are those of the last batch."""
        self.network.vectors.constants[:, 0] = 1.0
        self.running.zero_()

    def _network(self, module: nn.Module) -> residual.Network:
        from lotto.training.learners.residual import Block, Network, Vectors

        assert self.flat.grad is not None
        net: Any = module
        stem, blocks = self._unit("conv", net.conv, "bn", net.bn), []
        for i, block in enumerate(net.blocks):
            at, shortcut, other = f"blocks.{i}.", block.shortcut, None
            first = self._unit(at + "conv1", block.conv1, at + "bn1", block.bn1)
            second = self._unit(at + "conv2", block.conv2, at + "bn2", block.bn2)
            if isinstance(shortcut, nn.Sequential):
                other = self._unit(at + "shortcut.0", shortcut[0], at + "shortcut.1", shortcut[1])
            blocks.append(Block(first, second, other))
        constants = np.array(self._constants)
        vectors = Vectors(self.flat.numpy(), self.flat.grad.numpy(), self.running.numpy(), constants)
        return Network(stem, blocks, self._head("fc"), vectors)

    def _head(self, name: str) -> residual.Head:
        from lotto.training.learners.residual import Head

        assert self.flat.grad is not None
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        by_weight, by_bias = (
            self.flat.grad.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())
            for tensor in (weight, bias)
        )
        mask = self._mask.get(f"{name}.weight")
        return Head(weight, bias, by_weight, by_bias, None if mask is None else mask.to(torch.float32))

    def _unit(self, conv: str, layer: Any, bn: str, norm: Any) -> residual.Unit:
        from lotto.training.learners.residual import Unit

        return Unit(self._convolution(conv, layer), self._norm(bn, norm))

    def _convolution(self, name: str, layer: Any) -> conv_layers.Convolution:
        from lotto.training.learners.conv_layers import DENSE, SPARSE, Convolution

        shape, weight = _shape(layer), layer.weight
        mask = self._mask.get(f"{name}.weight", torch.ones_like(weight, dtype=torch.bool))
        rows = SPARSE if float(mask.float().mean()) < self._crossover else DENSE
        self.sparse += rows == SPARSE
        self.convolutions += 1
        kept = mask.reshape(*weight.shape[:2], *shape.kernel).numpy()
        return Convolution(shape, self._places[f"{name}.weight"], kept, rows)

    def _norm(self, name: str, layer: Any) -> conv_layers.Norm:
        from lotto.training.learners.conv_layers import Norm

        self._constants.append((layer.momentum, layer.eps))
        return Norm(
            layer.num_features,
            self._places[f"{name}.weight"],
            self._places[f"{name}.bias"],
            self._places[f"{name}.running_mean"],
            self._places[f"{name}.running_var"],
            len(self._constants) - 1,
        )


def _shape(layer: Any) -> Shape:
    return Shape(*(_pair(getattr(layer, what), fill) for what, fill in _SHAPE))


_SHAPE = (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1))


def _pair(sizes: Sequence[int], fill: int) -> Pair:
    """Height and width; what has one dimension has the height ``fill``."""
    return (sizes[-2] if len(sizes) == 2 else fill), sizes[-1]


def views(flat: Tensor, like: Mapping[str, Tensor]) -> list[Tensor]:
    """A vector in parts, in the shapes of some tensors."""
    parts = flat.detach().split([tensor.numel() for tensor in like.values()])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like.values(), strict=True)]
