"""Initial weights from named random streams."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from lotto.core.rng import stream
from lotto.core.weights import clone
from lotto.pruning.masks import prunable_names, shared_names

INITS = ("kaiming-normal", "glorot-normal", "module")
NORM_INITS = ("ones", "uniform")


def initial_weights(module: nn.Module, init: str, norm_init: str, seed: int) -> dict[str, Tensor]:
    """The state dict of a freshly built module, initialised as a recipe asks.

    Args:
        module: as its constructor left it.
        init: ``kaiming-normal`` (std sqrt(2 / fan-in)) or ``glorot-normal`` (std sqrt(2 / (fan-in +
            fan-out))), both with biases 0; ``module`` keeps what the constructor drew.
        norm_init: ``uniform`` draws the scale of normalisation layers from (0, 1); ``ones`` leaves it.
        seed: initialisation seed; each tensor has a stream of its own.

    Frozen parameters (``requires_grad=False``) keep what the constructor gave them: whoever freezes a layer has chosen
    its weights.
    """
    weights = clone(module.state_dict())
    frozen = {n for n, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
    if init != "module":
        names = prunable_names(module)
        for name in (n for n in names if n not in frozen):
            weights[name] = _normal(weights[name], init, stream(seed, f"init:{name}"))
            bias = name.removesuffix("weight") + "bias"
            if bias in weights and bias not in frozen:
                weights[bias] = torch.zeros_like(weights[bias])
        for shared in shared_names(module):
            drawn_name = next((n for n in shared if n in names), shared[0])
            weights |= dict.fromkeys(shared, weights[drawn_name])
    if norm_init == "uniform":
        for layer, sub in module.named_modules():
            if isinstance(sub, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) and sub.affine:
                if (name := f"{layer}.weight") in frozen:
                    continue
                scale = stream(seed, f"init:{name}").random(tuple(weights[name].shape), np.float32)
                weights[name] = torch.from_numpy(scale)
    return weights


def _normal(weight: Tensor, init: str, generator: np.random.Generator) -> Tensor:
    receptive = math.prod(weight.shape[2:])
    fan_out, fan_in = weight.shape[0] * receptive, weight.shape[1] * receptive
    std = math.sqrt(2 / fan_in) if init == "kaiming-normal" else math.sqrt(2 / (fan_in + fan_out))
    drawn = generator.standard_normal(tuple(weight.shape), np.float32)
    return torch.from_numpy(drawn).mul_(std)
