"""The mask of a training whose mask changes, as a part of its states: beside what the optimizer remembers.

``NAME/mask`` says which weights are kept now, ``NAME/explored`` which ones have ever been kept. So a checkpoint, a
stored state and a fork have them as they have momentum.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from lotto.core.errors import UsageError, text
from lotto.core.rng import private_rng
from lotto.pruning import masks
from lotto.pruning.masks import Mask, shared_names
from lotto.recipe.optimizers import Optimizer
from lotto.recipe.recipe import Recipe
from lotto.training.dynamic_sparsity import DynamicSparsity

MASK, EXPLORED = "mask", "explored"
MASKS = (MASK, EXPLORED)
"""Quantities of a state that are of its mask."""


def of_mask(optimizer: Mapping[str, Tensor], what: str = MASK) -> dict[str, Tensor] | None:
    """What a state holds of its mask, by the names of the weights; None if it holds none."""
    found = {n.removesuffix(f"/{what}"): t for n, t in optimizer.items() if n.endswith(f"/{what}")}
    return found or None


def entries_of(optimizer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of the mask alone."""
    return {name: t for name, t in optimizer.items() if name.rpartition("/")[2] in MASKS}


def without_mask(optimizer: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """All other entries."""
    return {name: t for name, t in optimizer.items() if name.rpartition("/")[2] not in MASKS}


def mask_entries(mask: Mapping[str, Tensor], explored: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Entries of a mask; what has been kept before is what ``explored`` says, or nothing else."""
    mask = {name: keep.to("cpu", torch.bool) for name, keep in mask.items()}
    seen = {name: keep if explored is None else keep | explored[name] for name, keep in mask.items()}
    return {f"{n}/{what}": t for what, part in ((MASK, mask), (EXPLORED, seen)) for n, t in part.items()}


def masked(optimizer: Mapping[str, Tensor], mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries with those of pruned weights at 0, of all tensors that have the shape of the weight."""
    found = dict(optimizer)
    for name, tensor in optimizer.items():
        parameter = name.rpartition("/")[0]
        if parameter in mask and tensor.shape == mask[parameter].shape:
            found[name] = masks.apply({parameter: tensor}, {parameter: mask[parameter]})[parameter]
    return found


def shares(optimizer: Mapping[str, Tensor]) -> dict[str, float]:
    """For a record: the fraction of weights that are kept, and of those that have ever been; empty without a mask."""
    now, ever = of_mask(optimizer, MASK), of_mask(optimizer, EXPLORED)
    if now is None or ever is None:
        return {}
    return {"density": masks.density(now), EXPLORED: masks.density(ever)}


def first_mask(sparsity: DynamicSparsity, recipe: Recipe, mask: Mapping[str, Tensor] | None) -> Mask:
    """The mask with which a training begins: the given one, or for gradual pruning the whole network.

    Raises:
        UsageError: if this recipe's training cannot change its mask, or not this one.
    """
    _check_recipe(sparsity, recipe)
    if mask is None and sparsity.exchanges:
        raise UsageError(
            f"{sparsity.kind!r} changes a mask that keeps as many weights as it has: give it one, such as "
            "mask=lotto.pruning.prune(recipe.initial(0), lotto.pruning.masks.ones(recipe), density=0.1, "
            "allocation='erk')."
        )
    module = recipe.meta_model()
    found = masks.ones(recipe) if mask is None else Mask(mask)
    masks.check_fits(found, dict(module.named_parameters(remove_duplicate=False)))
    _check_names(found, module)
    sparsity.changing.check(found)
    if sparsity.exchanges and masks.count(found) == masks.size(found):
        raise UsageError(f"{sparsity.kind!r} has nothing to exchange: the mask keeps every weight.")
    return found


def _check_recipe(sparsity: DynamicSparsity, recipe: Recipe) -> None:
    if recipe.loop is not None:
        raise UsageError("In a loop of your own a mask cannot change: it holds still, as lotto.sparse has it.")
    if recipe.compile:
        raise UsageError("With compile=True each new mask would be compiled anew: train it without compile.")
    if recipe.reported == "best":
        raise UsageError(
            "weights='best' may be of a step at which the mask was another one: report the last weights, or their "
            "average (ema), where the mask changes."
        )
    sparsity.updates(recipe)
    check_moments(recipe.optimizer)


def _check_names(mask: Mapping[str, Tensor], module: nn.Module) -> None:
    frozen = {name for name, p in module.named_parameters(remove_duplicate=False) if not p.requires_grad}
    if found := [name for name in mask if name in frozen]:
        raise UsageError(f"{text(found[0])} is frozen: a mask that changes is one of weights that are trained.")
    for names in shared_names(module):
        if len(both := [name for name in names if name in mask]) > 1:
            raise UsageError(
                f"{text(both[0])} and {text(both[1])} are one tensor (tied weights): a mask that changes has it under "
                "one name, as lotto.pruning.masks.ones(recipe) has."
            )


def check_moments(optimizer: Optimizer) -> None:
    """Raise ``UsageError`` if what an optimizer remembers of single weights cannot be set to 0; it is tried."""
    for shape in ((3, 2), (2, 3, 2, 2)):
        parameter, state = torch.ones(shape, requires_grad=True), optimizer.init_state(torch.ones(shape))
        parameter.grad = torch.ones(shape)
        with private_rng(), torch.no_grad():
            optimizer.update([parameter], [parameter.grad], [state], optimizer.lr)
        for name, value in state.items():
            if value.numel() > 1 and value.shape != parameter.shape:
                raise UsageError(
                    f"{type(optimizer).__name__} remembers {name!r} of shape {tuple(value.shape)} for weights of shape "
                    f"{shape}: what it remembers of weights that are dropped cannot be set to 0. Take an optimizer "
                    "whose moments have the shape of the weights (SGD, Adam, AdamW, RMSprop)."
                )
