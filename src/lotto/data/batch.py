"""A batch: inputs and targets, each a tensor or a tree of tensors in tuples, lists and mappings.

Every tensor has the examples along its first axis; a number without axes, and what is no tensor, belongs to all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from lotto.core.errors import UsageError
from lotto.core.pytree import flatten, unflatten
from lotto.data.upload import uploaded


class Batch(NamedTuple):
    """What a network is given and what its outputs are compared with.

    Attributes:
        inputs: a tensor is given as ``module(x)``, a tuple or list as ``module(*x)``, a mapping as ``module(**x)``.
        targets: the loss's second argument, as it is.

    >>> batch = Batch({"x": torch.ones(4, 2), "scale": torch.ones(4)}, torch.zeros(4))
    >>> count(batch)
    4
    """

    inputs: Any
    targets: Any


class Labelled(NamedTuple):
    """Inputs of a network that computes its own loss.

    Attributes:
        inputs: as in a batch.
        labels: given beside them, as ``labels=``.
    """

    inputs: Any
    labels: Any


def labelled(batch: Batch) -> Batch:
    """A batch whose inputs carry the targets as labels; inputs by name that have ``labels`` stay as they are."""
    x, y = batch
    return batch if isinstance(x, Mapping) and "labels" in x else Batch(Labelled(x, y), y)


def call(module: Callable[..., Any], inputs: Any) -> Any:
    """Call a module with a batch's inputs.

    >>> call(lambda x, scale: x * scale, {"x": 2, "scale": 3})
    6
    """
    if isinstance(inputs, Tensor):
        return module(inputs)
    if isinstance(inputs, Labelled):
        return call(partial(module, labels=inputs.labels), inputs.inputs)
    if isinstance(inputs, Mapping):
        return module(**inputs)
    if isinstance(inputs, tuple | list):
        return module(*inputs)
    return module(inputs)


def count(tree: Any) -> int:
    """The number of examples: the length of the first tensor that has axes.

    Raises:
        UsageError: if there is none.
    """
    if isinstance(tree, Tensor) and tree.dim():
        return len(tree)
    for leaf in flatten(tree):
        if isinstance(leaf, Tensor) and leaf.dim():
            return len(leaf)
    raise UsageError("A batch has a tensor with the examples along its first axis; this one has none.")


def mapped(tree: Any, change: Callable[[Tensor], Any]) -> Any:
    """A tree of the same shape with its tensors changed; what is no tensor stays."""
    if isinstance(tree, Tensor):
        return change(tree)
    return unflatten(tree, [change(leaf) if isinstance(leaf, Tensor) else leaf for leaf in flatten(tree)])


def moved(tree: Any, device: torch.device) -> Any:
    """A tree whose tensors are on another device."""
    return mapped(tree, lambda leaf: uploaded(leaf, device))


def examples(tree: Any, first: int, last: int) -> Any:
    """Examples ``first`` to ``last - 1`` of a tree."""
    if isinstance(tree, Tensor):
        return tree[first:last] if tree.dim() else tree
    return mapped(tree, lambda leaf: leaf[first:last] if leaf.dim() else leaf)


def joined(parts: list[Any] | tuple[Any, ...]) -> Any:
    """Several batches, or outputs, as one; what is no tensor, or has no axes, is that of the first.

    Raises:
        UsageError: if their tensors differ in more than the number of examples.
    """
    leaves = zip(*map(flatten, parts), strict=True)
    try:
        whole = [
            torch.cat(each) if isinstance(each[0], Tensor) and each[0].dim() else each[0] for each in leaves
        ]  # fmt: skip
    except RuntimeError as error:
        raise UsageError(
            f"What belongs to several batches cannot be joined: {str(error).splitlines()[0]} Batches that differ in "
            "more than their number of examples need a loss and an error that add up, see lotto.recipe.totals.Ratio."
        ) from error
    return unflatten(parts[0], whole)


def as_batch(value: Any, name: str) -> Batch:
    """What a data source gave as a batch of plain dicts, lists and tuples, arrays as tensors.

    Raises:
        UsageError: if it is no pair of inputs and targets, or its tensors hold different numbers of examples.
    """
    if not isinstance(value, tuple | list) or len(value) != 2:
        what = f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, tuple | list) else "")
        raise UsageError(f"A batch is lotto.data.Batch(inputs, targets), or a pair of these; {name} gave {what}.")
    if all(isinstance(part, Tensor) and part.dim() for part in value) and len(value[0]) == len(value[1]):
        return Batch(*value)  # most are, and each is looked at more than once
    batch = Batch(*map(_plain, value))
    sizes = {len(leaf) for leaf in flatten(batch) if isinstance(leaf, Tensor) and leaf.dim()}
    if len(sizes) != 1:
        raise UsageError(
            f"Every tensor of a batch has the examples along its first axis; {name} gave "
            + (f"tensors of {', '.join(map(str, sorted(sizes)))} examples." if sizes else "no tensor with axes.")
        )
    return batch


def _plain(tree: Any) -> Any:
    if isinstance(tree, Mapping):
        return {name: _plain(part) for name, part in tree.items()}
    if isinstance(tree, tuple | list):
        parts = [_plain(part) for part in tree]
        return parts if isinstance(tree, list) else type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return torch.from_numpy(tree) if isinstance(tree, np.ndarray) else tree


def described(tree: Any) -> str:
    """Shapes, for sentences: ``(128, 3, 32, 32)``, or ``ids (8, 64), mask (8, 64)``."""
    if isinstance(tree, Tensor):
        return str(tuple(tree.shape))
    if isinstance(tree, Labelled):
        return described(tree.inputs)
    if isinstance(tree, Mapping):
        return ", ".join(f"{name} {described(part)}" for name, part in tree.items())
    if isinstance(tree, tuple | list):
        return ", ".join(described(part) for part in tree)
    return type(tree).__name__
