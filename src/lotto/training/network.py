"""A recipe's module on its device, with weights loaded: what training and evaluation share."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from lotto.core.errors import UsageError
from lotto.core.pytree import flatten, unflatten
from lotto.core.ranks import ALONE, Ranks
from lotto.core.weights import check_alike
from lotto.data.augment import Augment
from lotto.data.batch import call, mapped
from lotto.data.image_folder import ImageFolder
from lotto.data.in_memory import Arrays
from lotto.pruning.masks import shared_names
from lotto.recipe.names import PRECISIONS
from lotto.recipe.recipe import Recipe

NORMS = (nn.modules.batchnorm._BatchNorm,)
"""Layers whose running statistics are trained like weights."""


def constant_buffers(module: nn.Module) -> set[str]:
    """Names in the state dict of what is neither a parameter nor a running statistic: a mask, a table of positions."""
    statistics = {
        f"{layer}.{name}" if layer else name
        for layer, part in module.named_modules()
        if isinstance(part, NORMS)
        for name, _ in part.named_buffers(recurse=False)
    }
    return set(module.state_dict()) - {n for n, _ in module.named_parameters(remove_duplicate=False)} - statistics


def has_own_data(recipe: Recipe) -> bool:
    """Whether batches are made by code of ours alone, which draws from no global generator."""
    return type(recipe.arrays) in (Arrays, ImageFolder) and type(recipe.augment) in (type(None), Augment)


def is_ours(recipe: Recipe) -> bool:
    """The same for all that runs in a step; models of torchvision and timm may have dropout."""
    named = isinstance(recipe.model, str) and not recipe.model.startswith(("torchvision/", "timm/"))
    return named and isinstance(recipe.loss, str) and has_own_data(recipe)


def trainable_parameters(module: nn.Module) -> dict[str, Tensor]:
    """The parameters that training moves, by name: all but those with ``requires_grad=False``.

    Raises:
        UsageError: if there are none.
    """
    found: dict[str, Tensor] = {name: p for name, p in module.named_parameters() if p.requires_grad}
    if not found:
        raise UsageError(
            f"Nothing of {type(module).__name__} is trained: it has no parameter with requires_grad=True. "
            "Leave at least one layer trainable."
        )
    return found


def device_of(recipe: Recipe) -> torch.device:
    """The device a recipe runs on; ``auto`` is CUDA where there is one.

    Raises:
        UsageError: if the device does not exist here.
    """
    chosen = recipe.device if recipe.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # The device of a tensor has its index, as every other tensor's will have.
        device = torch.empty(0, device=chosen).device
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"The device {chosen!r} cannot be used: {reason}. Try 'auto' or 'cpu'.") from error
    return device


def load(module: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Give a module its weights; raises ``UsageError`` that names the first one that does not fit."""
    try:
        module.load_state_dict(dict(weights))
    except RuntimeError:
        check_alike(module.state_dict(), weights)
        raise


class Network:
    """A module with weights, its device, precision and layout.

    Args:
        recipe: architecture, precision and layout.
        weights: a whole state dict.
    """

    def __init__(self, recipe: Recipe, weights: Mapping[str, Tensor]) -> None:
        self.activations: tuple[int, int] | None = None  # bytes, once they are known; see `batch_size`
        self.described: Any = None  # once it is known; see `learners.conv_networks`
        self.passes: dict[tuple[int, bool], Any] = {}  # by size of batch and mode; see `outputs`
        self.caches_casts = True  # whether autocast keeps weights in bfloat16 for their next use in a pass
        self.ranks: Ranks = ALONE  # with whom it is evaluated; see `evaluation.share_of`
        self.device = device_of(recipe)
        self.dtype = PRECISIONS[recipe.precision]
        self.read = recipe.read
        self.layout = torch.channels_last if recipe.uses_channels_last else torch.contiguous_format
        self.module: nn.Module = recipe.build()
        if self.dtype == torch.float64:
            self.module.double()  # before loading, which would round to the module's type
        self.shared = shared_names(self.module)
        self.load(weights)
        self.module.to(self.device)
        if self.layout == torch.channels_last:
            self.module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def with_module(self, module: nn.Module, caches_casts: bool = True) -> Network:
        """Another module that takes the same inputs on the same device, in the same precision and layout."""
        other = copy.copy(self)
        other.module, other.described, other.passes = module, None, {}
        other.caches_casts = caches_casts
        return other

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Give the module other weights.

        Raises:
            UsageError: if a tied weight has different values under its names: one would silently win.
        """
        for first, *others in self.shared:
            for other in others:
                pair = [weights[n].nan_to_num() for n in (first, other) if n in weights]
                if len(pair) == 2 and not torch.equal(*pair):
                    raise UsageError(
                        f"{first!r} and {other!r} are one tensor of the model (tied weights), but the weights have "
                        "different values for them; lotto.pruning.masks.ones(recipe) knows all names."
                    )
        load(self.module, weights)

    def __call__(self, inputs: Any) -> Tensor:
        """Outputs in float32 (float64 for that precision); for inputs of several tensors see `Batch`."""
        given = self.cast(inputs) if isinstance(inputs, Tensor) else mapped(inputs, self.cast)
        if self.dtype != torch.bfloat16:
            return self.read(call(self.module, given))
        with torch.autocast(self.device.type, torch.bfloat16, cache_enabled=self.caches_casts):
            outputs = self.read(call(self.module, given))
        if isinstance(outputs, Tensor):
            return outputs.float()
        whole = [leaf.float() if isinstance(leaf, Tensor) else leaf for leaf in flatten(outputs)]
        return cast(Tensor, unflatten(outputs, whole))  # what a loss of someone's own reads

    def cast(self, x: Tensor) -> Tensor:
        """An input in the network's precision and layout."""
        if x.is_floating_point() and self.dtype == torch.float64:
            x = x.double()
        return x.contiguous(memory_format=self.layout) if x.dim() == 4 else x

    def like(self, tensor: Tensor, parameter: Tensor) -> Tensor:
        """A copy of ``tensor`` on the device and in the memory layout of ``parameter``."""
        return torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


def with_weights(recipe: Recipe, weights: Mapping[str, Tensor], network: Network | None) -> Network:
    """A network of a recipe with weights: the given one, or if there is none a new one."""
    if network is None:
        return Network(recipe, weights)
    network.load(weights)
    return network


@contextlib.contextmanager
def flushed_denormals() -> Iterator[None]:
    """Flush denormal numbers to zero, as weights decay towards it (they slow a CPU down many times)."""
    tiny = torch.tensor(1e-40)
    before = float(tiny * 1.0) == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
