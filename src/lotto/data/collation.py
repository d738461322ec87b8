"""From what a collate function returns to inputs and targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import TensorDataset, default_collate

from lotto.core.errors import UsageError
from lotto.data.batch import Batch, mapped

Collate = Callable[[list[Any]], Any]
TARGETS = ("labels", "label", "targets", "target", "y")
"""What the targets are called in a batch that is a mapping."""


def collated(examples: list[Any]) -> Any:
    """Examples as one batch: torch's own function, with floating numbers of 64 bits as float32.

    Raises:
        UsageError: if their shapes differ, or they hold what is no number.

    >>> collated([(torch.ones(2), 1.5), (torch.zeros(2), 2.5)])[1]
    tensor([1.5000, 2.5000])
    """
    try:
        return mapped(default_collate(examples), _narrow)
    except (RuntimeError, TypeError) as error:
        why = str(error).splitlines()[0]
        raise UsageError(
            f"The examples of a batch cannot be put together: {why}. Give a function that does, collate=..., from a "
            "list of examples to lotto.data.Batch(inputs, targets): it pads them, or makes numbers of texts."
        ) from error


def whole_tensors(data: Any) -> tuple[Tensor, ...] | None:
    """The tensors of a data set of which `rows` gives what `collated` would, to the bit; None of any other set.

    >>> whole_tensors([1, 2, 3]) is None
    True
    """
    if type(data) is not TensorDataset or not all(
        type(t) is Tensor and t.layout == torch.strided and t.is_contiguous() and not t.requires_grad
        for t in data.tensors
    ):
        return None
    return data.tensors


def rows(tensors: Sequence[Tensor], indices: list[int]) -> list[Tensor]:
    """Examples of a `torch.utils.data.TensorDataset` as one batch, all at once: they need not be stacked one by one.

    >>> rows([torch.arange(4), torch.ones(4, 2, dtype=torch.float64)], [3, 1])
    [tensor([3, 1]), tensor([[1., 1.],
            [1., 1.]])]
    """
    return [_narrow(tensor[indices]) for tensor in tensors]


def _narrow(leaf: Tensor) -> Tensor:
    return leaf.float() if leaf.dtype == torch.float64 else leaf


def split(value: Any, target: str | None, name: str) -> Any:
    """Inputs and targets of a batch: a pair is one, of a mapping the targets are taken out by name.

    Args:
        value: what a collate function returned.
        target: the targets' name in a mapping; None = the one that is there of `TARGETS`.
        name: of the data, for sentences.

    Raises:
        UsageError: if it is a mapping without them.

    >>> split({"ids": [1, 2], "label": [0, 1]}, None, "mails")
    Batch(inputs={'ids': [1, 2]}, targets=[0, 1])
    """
    if not isinstance(value, Mapping):
        return value
    found = [key for key in ((target,) if target else TARGETS) if key in value]
    if len(found) != 1:
        raise UsageError(
            f"A batch of {name} is a mapping with {', '.join(map(str, value))}: say which of them are the targets, "
            "target='...'."
        )
    return Batch({key: part for key, part in value.items() if key != found[0]}, value[found[0]])
