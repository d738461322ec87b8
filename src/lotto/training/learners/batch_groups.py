"""BatchNorm of a batch that is computed in pieces: over all processes at once, or by groups.

Whatever calls `torch.nn.functional.batch_norm` while a network trains, a layer of torch's, of ours or of anyone's, has
the statistics that the recipe says: those of the whole batch, of which every process has a slice, or those of a group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from lotto.core.ranks import Ranks


@dataclass
class Statistics:
    """What a call of BatchNorm found in its values, and what it would do with it.

    Attributes:
        running: mean and variance that are kept.
        momentum: how much of what is new they take.
        mean, variance: of the values by channel, in float64; the variance is the unbiased one.
    """

    running: tuple[Tensor, Tensor]
    momentum: float
    mean: Tensor
    variance: Tensor

    @torch.no_grad()
    def keep(self) -> None:
        """Move the running statistics."""
        for kept, new in zip(self.running, (self.mean, self.variance), strict=True):
            kept.lerp_(new.to(kept), self.momentum)


class Slices(NamedTuple):
    """A batch of which several processes have a slice each.

    Attributes:
        ranks: these.
        own: examples of this process's slice.
        whole: of the batch.
    """

    ranks: Ranks
    own: int
    whole: int


class NormsOf(TorchFunctionMode):
    """While it is active, BatchNorm normalises by the statistics of a whole batch or of a group.

    Args:
        slices: the processes that have the other slices of the batch, this one's share of its examples and how many it
            has; None = what a call is given is a group.

    Attributes:
        found: the statistics of each call, in their order.
    """

    def __init__(self, slices: Slices | None = None) -> None:
        super().__init__()
        self.slices, self.found = slices, list[Statistics]()

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        if func is F.batch_norm:
            given |= dict(zip(("input", "running_mean", "running_var", "weight", "bias"), args, strict=False))
            given |= dict(zip(("training", "momentum", "eps"), args[5:], strict=False))
            if given.get("training"):
                return self._normalised(**given)
        return func(*args, **(kwargs or {}))

    def _normalised(
        self, input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
        bias: Tensor | None = None, training: bool = True, momentum: float = 0.1, eps: float = 1e-5,
    ) -> Tensor:  # fmt: skip
        count, mean, variance = _moments(input.detach(), self.slices)
        if count <= 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {input.shape}")
        if running_mean is not None and running_var is not None:
            unbiased = variance * (count / (count - 1))
            self.found.append(Statistics((running_mean, running_var), momentum, mean, unbiased))
        ranks = None if self.slices is None else self.slices.ranks
        out: Tensor = _Normalise.apply(input, weight, bias, mean, (variance + eps).rsqrt(), count, ranks)
        return out


def keep_means(groups: Iterable[list[Statistics]], count: int, ranks: Ranks) -> None:
    """Move running statistics once for all groups of a batch, by the means over these.

    Args:
        groups: the calls of each of this process's groups, the same ones in each.
        count: groups of all processes.
        ranks: these.
    """
    calls = [[*same] for same in zip(*groups, strict=True)]
    if not calls:
        return
    sums = [sum_of([s.mean for s in c]) for c in calls] + [sum_of([s.variance for s in c]) for c in calls]
    flat = torch.cat(sums)
    ranks.sum_([flat])
    means = (flat / count).split([len(each) for each in sums])
    for i, (first, *_) in enumerate(calls):
        Statistics(first.running, first.momentum, means[i], means[len(calls) + i]).keep()


def sum_of(tensors: Sequence[Tensor]) -> Tensor:
    """The sum of tensors of one shape."""
    return torch.stack([*tensors]).sum(0)


def _moments(x: Tensor, slices: Slices | None) -> tuple[int, Tensor, Tensor]:
    """How many values a channel has, their mean and biased variance, in float64."""
    values = _by_channel(x)
    count, total = values.shape[1], values.sum(1, dtype=torch.float64)
    if slices is not None:  # whose examples have as many values each: nobody need be asked how many there are
        slices.ranks.sum_([total])
        count = count * slices.whole // slices.own
    mean = total / max(1, count)
    squares = (values - mean.to(values.dtype)[:, None]).square().sum(1, dtype=torch.float64)
    if slices is not None:
        slices.ranks.sum_([squares])
    return count, mean, squares / max(1, count)


def _by_channel(x: Tensor) -> Tensor:
    """Shape (channels, values), in float32 at least."""
    flat = x.transpose(0, 1).reshape(x.shape[1], -1)
    return flat if x.dtype == torch.float64 else flat.float()


class _Normalise(torch.autograd.Function):
    """``(x - mean) / deviation * weight + bias`` with statistics over slices that other processes have as well."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, scale: Tensor, count: int,
        ranks: Ranks | None,
    ) -> Tensor:  # fmt: skip
        wide = x if x.dtype == torch.float64 else x.float()
        mean, scale = (t.to(wide.dtype) for t in (mean, scale))
        ctx.save_for_backward(x, weight, mean, scale)
        ctx.count, ctx.ranks = count, ranks
        ctx.has_bias = bias is not None
        out = (wide - _wide(mean, x)) * _wide(scale, x)
        if weight is not None:
            out = out * _wide(weight, x)
        if bias is not None:
            out = out + _wide(bias, x)
        return out.to(x.dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, scale = ctx.saved_tensors
        wide = x if x.dtype == torch.float64 else x.float()
        gradient = gradient.to(wide.dtype)
        normal = (wide - _wide(mean, x)) * _wide(scale, x)
        total = _by_channel(gradient).sum(1, dtype=torch.float64)
        product = _by_channel(gradient * normal).sum(1, dtype=torch.float64)
        whole = torch.cat([total, product])  # what each has is its part of the gradients of weight and bias
        if ctx.ranks is not None:
            ctx.ranks.sum_([whole])
        a, b = (_wide((t / ctx.count).to(wide.dtype), x) for t in whole.chunk(2))
        slope = scale if weight is None else scale * weight.to(wide.dtype)
        inputs = (gradient - a - normal * b) * _wide(slope, x)
        by_weight = None if weight is None else product.to(weight.dtype)
        return inputs.to(x.dtype), by_weight, total.to(mean.dtype) if ctx.has_bias else None, None, None, None, None


def _wide(values: Tensor, like: Tensor) -> Tensor:
    """One number for each channel, shaped to be spread over ``like``."""
    return values.reshape(1, -1, *[1] * (like.dim() - 2))


def counters(module: torch.nn.Module | None) -> Callable[[int], None]:
    """Have the counts of batches of a module's BatchNorms grow as if so many forwards from now on were one."""
    parts = () if module is None else module.modules()
    found = [getattr(part, "num_batches_tracked", None) for part in parts]
    live = [tracked for tracked in found if isinstance(tracked, Tensor)]
    before = [tracked.clone() for tracked in live]

    @torch.no_grad()
    def settle(forwards: int) -> None:
        for tracked, count in zip(live, before, strict=True):
            tracked.copy_(count + torch.div(tracked - count, forwards, rounding_mode="floor"))

    return settle
