"""Initial weights from named random streams."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn

from lotto.core.check import checked
from lotto.core.rng import stream
from lotto.core.weights import clone
from lotto.pruning.masks import shared_names

INITS = ("kaiming-normal", "glorot-normal", "module")
NORM_INITS = ("ones", "uniform")
LAYERS = (nn.Linear, nn.modules.conv._ConvNd)
"""Layers whose weights an initialisation draws."""


@checked
def initial_weights(module: nn.Module, init: str, norm_init: str, seed: int) -> dict[str, Tensor]:
    """The state dict of a freshly built module, initialised as a recipe asks.

    Args:
        module: as its constructor left it.
        init: ``kaiming-normal`` (std sqrt(2 / fan-in)) or ``glorot-normal`` (std sqrt(2 / (fan-in +
            fan-out))), both with biases 0; ``module`` keeps what the constructor drew. Weights of other layers
            than linear and convolution ones stay as they are.
        norm_init: ``uniform`` draws the scale of normalisation layers from (0, 1); ``ones`` leaves it.
        seed: initialisation seed; each tensor has a stream of its own.

    Frozen parameters (``requires_grad=False``) keep what the constructor gave them: whoever freezes a layer has chosen
    its weights.
    """
    weights = clone(module.state_dict())
    frozen = {n for n, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
    if init != "module":
        drawn = _drawn_names(module)
        for name in drawn:
            weights[name] = _normal(weights[name], init, stream(seed, f"init:{name}"))
            bias = name.removesuffix("weight") + "bias"
            if bias in weights and bias not in frozen:
                weights[bias] = torch.zeros_like(weights[bias])
        for names in shared_names(module):
            drawn_name = next((n for n in names if n in drawn), names[0])
            weights |= dict.fromkeys(names, weights[drawn_name])
    if norm_init == "uniform":
        for layer, sub in module.named_modules():
            if isinstance(sub, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)) and sub.affine:
                name = f"{layer}.weight"
                if name in frozen:
                    continue
                scale = stream(seed, f"init:{name}").random(tuple(weights[name].shape), np.float32)
                weights[name] = torch.from_numpy(scale)
    return weights


def _drawn_names(module: nn.Module) -> list[str]:
    """Weights of linear and convolution layers that are trained, each once; all others keep what they have."""
    names: dict[int, str] = {}
    for layer, sub in module.named_modules():
        weight = sub._parameters.get("weight") if isinstance(sub, LAYERS) else None
        if weight is not None and weight.requires_grad:
            names.setdefault(id(weight), f"{layer}.weight" if layer else "weight")
    return list(names.values())


def _normal(weight: Tensor, init: str, generator: np.random.Generator) -> Tensor:
    receptive = math.prod(weight.shape[2:])
    fan_out, fan_in = weight.shape[0] * receptive, weight.shape[1] * receptive
    std = math.sqrt(2 / fan_in) if init == "kaiming-normal" else math.sqrt(2 / (fan_in + fan_out))
    drawn = generator.standard_normal(tuple(weight.shape), np.float32)
    return torch.from_numpy(drawn).mul_(std)
