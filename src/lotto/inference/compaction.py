"""A smaller network with the same outputs: units that pruning has cut off are removed.

A unit can go if nothing reads it, or if it is constant (no unpruned weight leads into it from anything that varies)
and what reads it can take the constant into its bias. Exact up to rounding; in evaluation mode only.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from lotto.core.check import checked
from lotto.inference.checks import check_equal_outputs, check_readable
from lotto.pruning.channels import Space, by_channel, channel_spaces, is_padded, traced


@checked
def compact(module: nn.Module, example: Tensor) -> fx.GraphModule:
    """A copy of a trained, pruned network without the units that are cut off.

    Understands linear and convolution layers, BatchNorm, ReLU, pooling, flattening, sums and means over positions;
    channels that anything else touches all stay.

    Args:
        module: its pruned weights are 0.
        example: a batch of inputs.

    Returns:
        A network in evaluation mode whose outputs equal those of ``module.eval()`` up to rounding; on the example they
        have been compared.

    Raises:
        UsageError: if the module's forward cannot be traced (`torch.fx`), or the outputs differ.

    >>> network = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2))
    >>> network[2].weight.data[:, :3] = 0  # of four units one is used
    >>> [tuple(p.shape) for p in compact(network, torch.ones(1, 8)).parameters()]
    [(1, 8), (1,), (2, 1), (2,)]
    """
    training = module.training
    try:
        check_readable(module.eval(), example)
        own = copy.deepcopy(traced(module.eval()))  # with tensors of its own
        with torch.no_grad():
            for space in channel_spaces(own, example.clone()):
                _shrink(own, space)
            check_equal_outputs(module, own, example, "compact")
    finally:
        module.train(training)
    return own


def _shrink(graph: fx.GraphModule, space: Space) -> None:
    """Remove the channels that all readers can do without."""
    layers = dict(graph.named_modules())
    keep = torch.zeros(space.size, dtype=torch.bool)
    for name, constant, positions in space.readers:
        layer = layers[name]
        read = (by_channel(layer, positions) != 0).any(2).any(0)
        needed = constant.isnan() | (constant != 0 if is_padded(layer) else torch.zeros_like(read))
        keep |= read & needed
    if bool(keep.all()):
        return
    if not bool(keep.any()):
        keep[0] = True  # a layer has at least one unit
    for name, constant, positions in space.readers:
        _narrow_reader(layers[name], keep, constant, positions)
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


def _narrow_reader(layer: Any, keep: Tensor, constant: Tensor, positions: int) -> None:
    weight = by_channel(layer, positions)
    removed = ~keep
    moved = (weight[:, removed] * constant.nan_to_num()[removed, None]).sum((1, 2))
    if bool((moved != 0).any()):
        bias = (
            moved.to(layer.weight.dtype) if layer.bias is None else (layer.bias.double() + moved).to(layer.bias.dtype)
        )
        layer.bias = nn.Parameter(bias)
    shape = layer.weight.shape
    if isinstance(layer, nn.Linear):
        kept = layer.weight.reshape(shape[0], -1, positions)[:, keep].flatten(1)
        layer.in_features = kept.shape[1]
    else:
        kept = layer.weight[:, keep]
        layer.in_channels = kept.shape[1]
    layer.weight = nn.Parameter(kept.clone())
