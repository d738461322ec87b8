"""Whether another form of a network gives the network's outputs: asked before it is handed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from lotto.core.errors import UsageError, text
from lotto.core.pytree import flatten
from lotto.core.text import shortened
from lotto.data.batch import call, count, mapped


def check_readable(module: nn.Module, example: Any) -> None:
    """Raise ``UsageError`` unless a network can read an example."""
    try:
        if not count(example):
            raise ValueError("it holds no example")
        with torch.no_grad():
            call(module, mapped(example, Tensor.clone))
    except Exception as error:  # whatever a forward may raise
        raise UsageError(
            f"{type(module).__name__} cannot read the example, {text(example)}: {first_line(error)}. "
            "Give a batch of its inputs."
        ) from error


def check_equal_outputs(module: nn.Module, other: Callable[..., Any], example: Any, how: str) -> None:
    """Raise ``UsageError`` unless two networks in evaluation mode give equal outputs up to rounding."""
    outputs = (call(network, mapped(example, Tensor.clone)) for network in (module, other))
    expected, found = ([leaf for leaf in flatten(it) if isinstance(leaf, Tensor)] for it in outputs)
    if [one.shape for one in expected] != [two.shape for two in found]:
        shapes = ["; ".join(str(tuple(it.shape)) for it in tensors) for tensors in (expected, found)]
        raise UsageError(
            f"{type(module).__name__} cannot be made {how}: on the example its outputs have the shapes {shapes[0]}, "
            f"the other's {shapes[1]}. Use it as it is."
        )
    for one, two in zip(expected, found, strict=True):
        scale = float(one.abs().max()) if one.numel() else 0.0
        if not torch.allclose(one, two, rtol=1e-3, atol=1e-4 * max(scale, 1e-6), equal_nan=True):
            raise UsageError(
                f"{type(module).__name__} cannot be made {how}: on the example the outputs differ by up to "
                f"{float((one - two).abs().max()):.3g}. Its forward does what is not understood; use it as it is."
            )


def check_batches(
    module: nn.Module, other: Callable[..., Any], example: Any, how: str, sizes: Sequence[int] = ()
) -> None:
    """The same for batches of several sizes, made of an example; default 1, 2 and its own.

    Raises:
        UsageError: also if the other network cannot compute one of them.
    """
    for size in sizes or sorted({1, 2, count(example)}):
        batch = resized(example, size)
        try:
            call(other, mapped(batch, Tensor.clone))
        except Exception as error:  # whatever another runtime may raise
            raise UsageError(
                f"{type(module).__name__} cannot be made {how}: what was made refuses batches of {size} "
                f"({first_line(error)}). Use it as it is."
            ) from error
        check_equal_outputs(module, other, batch, how)


def resized(inputs: Any, size: int) -> Any:
    """A batch of so many examples: the first ones, or all and the first ones again.

    >>> resized(torch.tensor([1, 2]), 3)
    tensor([1, 2, 1])
    """
    places = torch.arange(size) % count(inputs)
    return mapped(inputs, lambda leaf: leaf[places] if leaf.dim() else leaf)


def first_line(error: Exception) -> str:
    """What an error of others says first, without a point at its end."""
    return shortened(next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)).rstrip(".")
