"""Masks to and from `torch.nn.utils.prune`, which keeps a layer's weight as ``weight_orig`` and ``weight_mask``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.pruning import masks
from lotto.pruning.masks import Mask, MaskLike
from lotto.pruning.prunable import matrices_of

ORIGINAL, MASK = "_orig", "_mask"
"""What torch appends to the name of a pruned parameter: the unpruned values, and 1 where they are kept."""


def _pruned(module: nn.Module) -> Iterator[tuple[str, nn.Module, str]]:
    """The name of each pruned parameter, as it is without pruning, its layer, and its name there."""
    for layer, part in module.named_modules():
        for buffer, _ in part.named_buffers(recurse=False):
            own = buffer.removesuffix(MASK)
            if buffer.endswith(MASK) and own + ORIGINAL in part._parameters:
                yield f"{layer}.{own}".lstrip("."), part, own


@checked
def mask_from_torch(module: nn.Module) -> Mask:
    """The mask of a module that `torch.nn.utils.prune` has pruned, by the names that its weights have without it.

    Prunable layers that torch has not pruned are left whole; other pruned parameters, such as biases, are in the mask
    as well. A tied weight is in it once.

    Args:
        module: it is not changed.

    Raises:
        UsageError: if nothing of it is pruned.

    >>> layer = torch.nn.Sequential(torch.nn.Linear(4, 2))
    >>> _ = torch.nn.utils.prune.l1_unstructured(layer[0], "weight", amount=0.5)
    >>> mask_from_torch(layer)
    Mask(50 % of 8 weights in 1 layers)
    """
    found = {name: getattr(part, own + MASK).detach().cpu().bool() for name, part, own in _pruned(module)}
    if not found:
        raise UsageError(
            "Nothing in this module is pruned by torch.nn.utils.prune: it has no weight_mask beside a weight_orig."
        )
    for layer, part in module.named_modules():
        for own in matrices_of(part):
            if (parameter := part._parameters.get(own)) is not None and parameter.requires_grad:
                found.setdefault(f"{layer}.{own}".lstrip("."), torch.ones(parameter.shape, dtype=torch.bool))
    shared: dict[str, str] = {}
    for first, *others in _tied(_named(module)):
        known = [found.pop(name) for name in (first, *others) if name in found]
        if known:
            found[first] = torch.stack(known).all(0)  # what is cut under one name is cut
            shared |= dict.fromkeys(others, first)
    return Mask(found, shared)


def _named(module: nn.Module) -> dict[str, Tensor]:
    """All parameters by the names that they have without `torch.nn.utils.prune`, tied ones under each of theirs."""
    return {name.removesuffix(ORIGINAL): p for name, p in module.named_parameters(remove_duplicate=False)}


def _tied(named: Mapping[str, Tensor]) -> list[list[str]]:
    groups: dict[int, list[str]] = {}
    for name, parameter in named.items():
        groups.setdefault(id(parameter), []).append(name)
    return [names for names in groups.values() if len(names) > 1]


@checked
def weights_from_torch(module: nn.Module) -> dict[str, Tensor]:
    """The state dict that the module would have without `torch.nn.utils.prune`: pruned weights are 0.

    >>> layer = torch.nn.Sequential(torch.nn.Linear(4, 2))
    >>> _ = torch.nn.utils.prune.random_unstructured(layer[0], "weight", amount=3)
    >>> sorted(weights_from_torch(layer)), int((weights_from_torch(layer)["0.weight"] == 0).sum())
    (['0.bias', '0.weight'], 3)
    """
    state = dict(module.state_dict())
    for name, _, _ in _pruned(module):
        original, keep = state.pop(name + ORIGINAL), state.pop(name + MASK)
        # Not the attribute, which torch computes anew only in a forward; assigned, as infinity times 0 is NaN.
        state[name] = original.detach().masked_fill(~keep.bool(), 0)
    return state


@checked
def mask_to_torch(module: nn.Module, mask: MaskLike) -> nn.Module:
    """Prune a module by `torch.nn.utils.prune`, in place, so that its loops and tools see the mask.

    Layers that it has pruned already get the new mask on their unpruned values; layers of which nothing is cut are
    left as they are. A tied weight is pruned under all its names.

    Returns:
        The module.

    Raises:
        UsageError: if the mask does not fit.

    >>> layer = torch.nn.Sequential(torch.nn.Linear(4, 2))
    >>> mask = lotto.pruning.prune(layer.state_dict(), lotto.pruning.masks.ones(layer), 0.25)
    >>> int((mask_to_torch(layer, mask)[0].weight == 0).sum())
    2
    """
    before = {name: (part, own) for name, part, own in _pruned(module)}
    named = _named(module)
    masks.check_fits(mask, named)
    full = masks.under_all_names(mask)
    for names in _tied(named):
        if known := [full[name] for name in names if name in full]:
            full |= dict.fromkeys(names, torch.stack(known).all(0))
    for name, keep in full.items():
        layer, _, own = name.rpartition(".")
        if name in before:
            part, _ = before[name]
            original = getattr(part, own + ORIGINAL).detach().clone()
            prune.remove(part, own)
            with torch.no_grad():
                getattr(part, own).copy_(original)
        if not bool(keep.all()):
            prune.custom_from_mask(module.get_submodule(layer), own, keep.to(named[name].device))
    return module
