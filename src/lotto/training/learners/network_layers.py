"""Convolutional networks as layers over vectors: where the tensors of their modules stand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from lotto.training.learners.descriptions import Convolve, Description, Normalise, of_images, shape_of
from lotto.training.learners.linear_head import DenseLinear, Head, Linear, SparseLinear
from lotto.training.learners.sparse_linear import SMALL, SPARSE, is_faster_sparse

if TYPE_CHECKING:
    from lotto.training.learners import after_layers, conv_layers, network_pass, steps

CROSSOVER = 0.45
"""Share of the weights of a dense layer's blocks below which single weights are quicker: a sum over rows of memory
takes about twice as long as one in registers."""


def are_quicker(module: nn.Module, half: bool = False) -> bool:
    """Whether kernels of ours are quicker than torch's layers where nothing is measured.

    With narrower registers, torch's dense layers of images may be quicker; in bfloat16 (``half``) they are, as long as
    few weights are pruned.
    """
    if not of_images(module):
        return True
    from lotto.training.learners.vector_blocks import WIDE

    return WIDE and not half


class Layers:
    """A network's parameters and running statistics as vectors, and its layers as places in them.

    Args:
        module: its tensors are copied.
        found: what it computes.
        mask: of the parameters, by name.
        crossovers: by name of layer, of those that have another one than `CROSSOVER`, or that of linear layers.

    Attributes:
        flat: all parameters, with their gradient.
        parameters: views of it, by name.
        statistics: views of all running statistics, by name.
        steps: of each BatchNorm, ``num_batches_tracked``.
        network: the layers.
        sparse, count: of convolutions and linear layers, how many are lists of single weights, and how many there are.
    """

    def __init__(
        self,
        module: nn.Module,
        found: Description,
        mask: Mapping[str, Tensor],
        crossovers: Mapping[str, float] | None = None,
    ) -> None:
        named = dict(module.named_parameters())
        self.flat = torch.cat([parameter.detach().flatten() for parameter in named.values()])
        self.flat.grad = torch.zeros_like(self.flat)
        self.parameters = dict(zip(named, views(self.flat, named), strict=True))
        running = {name: buffer for name, buffer in module.named_buffers() if buffer.is_floating_point()}
        self.running = torch.cat([torch.zeros(0), *(buffer.flatten() for buffer in running.values())])
        self.statistics = dict(zip(running, views(self.running, running), strict=True))
        steps = {name: buffer for name, buffer in module.named_buffers() if name not in running}
        self.steps = torch.stack([*steps.values()]) if steps else torch.zeros(0, dtype=torch.int64)
        self._counts = dict(zip(steps, self.steps.unbind(), strict=True))
        self._mask, self._crossovers = mask, crossovers or {}
        self._places = {
            name: int(view.storage_offset()) for name, view in (*self.parameters.items(), *self.statistics.items())
        }
        self._constants: list[tuple[float, float]] = []
        self.sparse = self.count = 0
        self.network = self._network(module, found)

    def tensors(self) -> dict[str, Tensor]:
        """Views of everything, by name."""
        return {**self.parameters, **self.statistics, **self._counts}

    def load(self, module: nn.Module) -> None:
        """Take other tensors of the same network."""
        given = dict((*module.named_parameters(), *module.named_buffers()))
        for name, tensor in self.tensors().items():
            tensor.copy_(given[name].detach())

    def gradients(self) -> dict[str, Tensor]:
        """Views of all parameters' gradients, by name."""
        assert self.flat.grad is not None
        return dict(zip(self.parameters, views(self.flat.grad, self.parameters), strict=True))

    def forget(self) -> None:
        """From now on running statistics are those of the last batch."""
        self.network.vectors.constants[:, 0] = 1.0
        self.running.zero_()

    def _network(self, module: nn.Module, found: Description) -> network_pass.Network:
        from lotto.training.learners.network_pass import Network, Vectors
        from lotto.training.learners.steps import steps_of

        assert self.flat.grad is not None
        steps = steps_of(found.nodes, self._layers(module, found))
        head = Head([self._linear(name) for name in found.linear], found.before)
        constants = np.array(self._constants).reshape(-1, 2)
        vectors = Vectors(self.flat.numpy(), self.flat.grad.numpy(), self.running.numpy(), constants)
        return Network(steps, found.trained, found.flat, head, vectors)

    def _layers(self, module: nn.Module, found: Description) -> steps.NamedLayers:
        """Convolutions, their biases and BatchNorms by name."""
        from lotto.training.learners.after_layers import Bias
        from lotto.training.learners.steps import NamedLayers

        made = NamedLayers({}, {}, {})
        for node in found.nodes:
            if not isinstance(node, Convolve | Normalise):
                continue
            layer: Any = module.get_submodule(node.name)
            if isinstance(node, Normalise):
                made.norms[node.name] = self._norm(node.name, layer)
                continue
            made.convolutions[node.name] = self._convolution(node.name, layer)
            if layer.bias is not None:
                made.biases[node.name] = Bias(layer.out_channels, self._places[f"{node.name}.bias"])
        return made

    def _linear(self, name: str) -> DenseLinear | SparseLinear:
        weight, bias = self.parameters[f"{name}.weight"], self.parameters.get(f"{name}.bias")
        gradients = self.gradients()
        by_weight, by_bias = gradients[f"{name}.weight"], gradients.get(f"{name}.bias")
        mask = self._mask.get(f"{name}.weight", torch.ones_like(weight, dtype=torch.bool))
        layer = Linear(weight, bias, by_weight, by_bias, mask)
        sparse = is_faster_sparse(mask, self._crossovers.get(name, SPARSE))
        self.sparse += sparse
        self.count += 1
        # With a few thousand weights, torch's operators are busy with being called.
        return SparseLinear(layer) if sparse or weight.numel() <= SMALL else DenseLinear(layer)

    def _convolution(self, name: str, layer: Any) -> conv_layers.Convolution:
        from lotto.training.learners.conv_layers import DENSE, Convolution
        from lotto.training.learners.conv_layers import SPARSE as SINGLE

        shape, weight = shape_of(layer), layer.weight
        mask = self._mask.get(f"{name}.weight", torch.ones_like(weight, dtype=torch.bool))
        rows = SINGLE if float(mask.float().mean()) < self._crossovers.get(name, CROSSOVER) else DENSE
        self.sparse += rows == SINGLE
        self.count += 1
        kept = mask.reshape(*weight.shape[:2], *shape.kernel).numpy()
        return Convolution(shape, self._places[f"{name}.weight"], kept, rows, layer.groups)

    def _norm(self, name: str, layer: Any) -> after_layers.Norm:
        from lotto.training.learners.after_layers import Norm

        self._constants.append((layer.momentum, layer.eps))
        return Norm(
            layer.num_features,
            self._places[f"{name}.weight"],
            self._places[f"{name}.bias"],
            self._places[f"{name}.running_mean"],
            self._places[f"{name}.running_var"],
            len(self._constants) - 1,
        )


def views(flat: Tensor, like: Mapping[str, Tensor]) -> list[Tensor]:
    """A vector in parts, in the shapes of some tensors."""
    parts = flat.detach().split([tensor.numel() for tensor in like.values()])
    return [part.view(tensor.shape) for part, tensor in zip(parts, like.values(), strict=True)]
