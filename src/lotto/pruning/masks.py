"""Masks: which of the prunable weights are left.

A mask is a dict of boolean tensors over the prunable names (weight matrices, see `prunable`; never biases or
normalisation parameters). *Density* is the fraction of prunable weights left, sparsity is 1 - density; the fraction of
all parameters left stands beside it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from functools import reduce
from pathlib import Path
from typing import Annotated, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor, nn

from lotto.core import files
from lotto.core.check import Kind, Unfit, checked, kind_of
from lotto.core.errors import UsageError, nearest, text
from lotto.core.rng import stream
from lotto.pruning.prunable import LeftOut, choose
from lotto.pruning.prunable import prunable_names as prunable_names

SHARED = "shared"
"""In a file's metadata: the other names of tied weights."""


def read_mask(value: object) -> Mapping[str, Tensor]:
    """A mask as booleans; raises `Unfit` for what holds anything but True and False, or 1 and 0."""
    kind = kind_of(Mapping[str, Tensor])
    assert kind is not None
    mask: MaskLike = kind.read(value)
    if all(t.dtype == torch.bool for t in mask.values()):
        return mask
    if any(t.is_meta or not bool(((t == 0) | (t == 1)).all()) for t in mask.values()):
        raise Unfit
    return {name: t.to(torch.bool) for name, t in mask.items()}


MaskLike = Annotated[
    Mapping[str, Tensor], Kind("a mask, a dict of boolean tensors by name", read_mask, "masks.ones(recipe)", "masks")
]
"""A mask as users have it: any dict of tensors or arrays that hold True and False, or 1 and 0."""


@runtime_checkable
class _Choosing(Protocol):
    @property
    def exclude(self) -> tuple[str, ...]: ...

    @property
    def include(self) -> tuple[str, ...]: ...


@runtime_checkable
class RecipeLike(Protocol):
    """What `ones` needs of a recipe: its network, what it prunes beside the usual and what it leaves dense."""

    @property
    def pruning(self) -> _Choosing: ...

    def meta_model(self) -> nn.Module: ...


@checked
class Mask(dict[str, Tensor]):
    """A plain dict of boolean tensors, True where the weight is kept, that can be saved and loaded.

    Attributes:
        shared: for each other name that a tied weight has in the model, the name under which it is in the mask. It
            counts once, and what is pruned of it is pruned under all its names.

    >>> mask = Mask({"fc1.weight": torch.tensor([[True, False], [True, True]])})
    >>> mask
    Mask(75 % of 4 weights in 1 layers)
    >>> mask.save("mask.safetensors")
    >>> Mask.load("mask.safetensors").density
    0.75
    """

    def __init__(self, tensors: MaskLike, shared: Mapping[str, str] | None = None) -> None:
        super().__init__({name: t.to(torch.bool) for name, t in tensors.items()})
        names = getattr(tensors, "shared", {}) if shared is None else shared
        self.shared: dict[str, str] = {other: name for other, name in names.items() if name in self}

    @property
    @checked
    def density(self) -> float:
        """Fraction of prunable weights left."""
        return density(self)

    def __repr__(self) -> str:
        return f"Mask({100 * density(self) if self else 0:.3g} % of {size(self):,} weights in {len(self)} layers)"

    @checked
    def save(self, path: str | Path) -> None:
        """Write the mask as safetensors, atomically."""
        files.save_tensors(Path(path), self, {"format": "lotto.mask", "version": "1", **shared_metadata(self)})

    @classmethod
    @checked
    def load(cls, path: str | Path) -> Mask:
        """Read a mask file; raises ``UsageError`` if it is not one."""
        tensors, metadata = files.load_tensors(Path(path), "lotto.mask")
        with files.reading(Path(path)):
            return cls(tensors, json.loads(metadata.get(SHARED, "{}")))


def shared_metadata(mask: Mapping[str, Tensor]) -> dict[str, str]:
    """What a file says of a mask's tied weights: nothing where there are none."""
    names = getattr(mask, "shared", None)
    return {SHARED: json.dumps(names, sort_keys=True)} if names else {}


@checked
def layer_of(name: str) -> str:
    """The layer a weight belongs to: ``fc1`` for ``fc1.weight``."""
    return name.removesuffix(".weight")


@checked
def ones(model: nn.Module | RecipeLike, exclude: Collection[str] = (), include: Collection[str] = ()) -> Mask:
    """The mask that keeps every prunable weight of a module or of a recipe's model; see `prunable_names`."""
    if isinstance(model, nn.Module):
        module = model
    else:
        module, rule = model.meta_model(), model.pruning
        exclude, include = (*rule.exclude, *exclude), (*rule.include, *include)
    parameters = dict(module.named_parameters(remove_duplicate=False))
    names = prunable_names(module, exclude, include)
    shared = {other: n for group in shared_names(module) for n in group if n in names for other in group}
    return Mask(
        {n: torch.ones(parameters[n].shape, dtype=torch.bool) for n in names},
        {o: n for o, n in shared.items() if o not in names},
    )


@checked
def shared_names(model: nn.Module) -> list[tuple[str, ...]]:
    """Groups of names that stand for one parameter (tied weights)."""
    groups: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        groups.setdefault(id(parameter), []).append(name)
    return [tuple(names) for names in groups.values() if len(names) > 1]


@checked
def cover_shared(mask: MaskLike, model: nn.Module) -> dict[str, Tensor]:
    """The mask under every name that a tied weight has: pruned under one name is pruned under all."""
    full = dict(mask)
    for names in shared_names(model):
        if found := [mask[n].to(torch.bool) for n in names if n in mask]:
            full |= dict.fromkeys(names, reduce(torch.logical_and, found))
    return full


def under_all_names(mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The same as far as the mask itself knows the other names, see `Mask`."""
    return {**{other: mask[name] for other, name in getattr(mask, "shared", {}).items()}, **mask}


@checked
def count(mask: MaskLike) -> int:
    """Number of weights left."""
    return sum(int(t.sum()) for t in mask.values())


@checked
def size(mask: MaskLike) -> int:
    """Number of prunable weights."""
    return sum(t.numel() for t in mask.values())


@checked
def density(mask: MaskLike) -> float:
    """Fraction of prunable weights left."""
    if not size(mask):
        raise UsageError("A mask of no weights has no density; masks.ones(recipe) has all that can be pruned.")
    return count(mask) / size(mask)


@checked
def parameter_count(model: nn.Module) -> int:
    """Number of all parameters, frozen ones too; a shared one counts once."""
    return sum(parameter.numel() for parameter in model.parameters())


def left_out(model: nn.Module | RecipeLike) -> list[LeftOut]:
    """The matrices of a module or of a recipe's model that are not prunable, and why."""
    if isinstance(model, nn.Module):
        return choose(model).left_out
    return choose(model.meta_model(), model.pruning.exclude, model.pruning.include).left_out


@checked
def parameter_fraction(mask: MaskLike, model: nn.Module) -> float:
    """Fraction of all parameters of a model that a mask leaves: those that are not prunable are all left."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    check_fits(mask, parameters)
    pruned: dict[int, Tensor] = {}  # by parameter: a shared one may be there under several names
    for name, keep in mask.items():
        key = id(parameters[name])
        pruned[key] = ~keep.to(torch.bool) | pruned.get(key, torch.zeros_like(keep, dtype=torch.bool))
    return 1 - sum(int(gone.sum()) for gone in pruned.values()) / parameter_count(model)


@checked
def layer_densities(mask: MaskLike) -> dict[str, float]:
    """Fraction left in each layer, by layer name."""
    return {layer_of(n): int(t.sum()) / t.numel() for n, t in mask.items()}


@checked
def empty_layers(mask: MaskLike) -> list[str]:
    """Layers that have been pruned to nothing."""
    return [layer_of(n) for n, t in mask.items() if not bool(t.any())]


@checked
def apply(weights: Mapping[str, Tensor], mask: MaskLike | None) -> dict[str, Tensor]:
    """Return ``m * w``: pruned weights are exactly +0, everything else is the same tensor.

    A tied weight is masked under all names that the mask knows (`Mask.shared`).
    """
    if mask is None:
        return dict(weights)
    check_fits(mask, weights)
    full = under_all_names(mask)
    # where, not a product: a product would turn a negative weight into -0 and keep a NaN.
    return {
        n: torch.where(full[n].to(t.device, torch.bool), t, torch.zeros((), dtype=t.dtype, device=t.device))
        if n in full
        else t
        for n, t in weights.items()
    }


@checked
def check_fits(mask: MaskLike, weights: Mapping[str, Tensor]) -> None:
    """Raise ``UsageError`` unless every tensor of the mask fits the weight of its name."""
    for name, keep in mask.items():
        if name not in weights:
            raise UsageError(f"The mask has {text(name)}, which the model has not. {nearest(name, weights)}")
        if keep.shape != weights[name].shape:
            raise UsageError(
                f"The mask of {text(name)} has shape {tuple(keep.shape)}, the model's weight has "
                f"{tuple(weights[name].shape)}."
            )


@checked
def random_like(mask: MaskLike, seed: int, within: MaskLike | None = None) -> Mask:
    """A random mask with exactly the same number of weights left in every layer (STAB's control).

    Args:
        mask: what has the number of weights.
        seed: of the draw.
        within: only weights that this one leaves are left, so that masks are nested; None = any.

    Raises:
        UsageError: if ``within`` leaves fewer than are needed in a layer.
    """
    result = {}
    for name, keep in mask.items():
        keep = keep.to("cpu", torch.bool)
        generator = stream(seed, f"random-mask:{name}")
        count = int(keep.sum())
        allowed = np.arange(keep.numel()) if within is None else np.flatnonzero(within[name].cpu().numpy())
        if count > len(allowed):
            raise UsageError(f"A random mask keeps {count} weights of {name}, but only {len(allowed)} are left in it.")
        chosen = allowed[generator.permutation(len(allowed))[:count]]
        flat = np.zeros(keep.numel(), dtype=bool)
        flat[chosen] = True
        result[name] = torch.from_numpy(flat).reshape(keep.shape)
    return Mask(result, getattr(mask, "shared", None))
