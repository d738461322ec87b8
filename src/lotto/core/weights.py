"""Arithmetic on named tensors.

A network's weights are a plain ``dict[str, Tensor]`` in the names of its state dict, BatchNorm buffers
included. Sums are accumulated in float64.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Iterable, Mapping, Sequence

import torch
from torch import Tensor

from lotto.core.check import checked
from lotto.core.errors import UsageError, nearest, text

Weights = Mapping[str, Tensor]


@checked
def check_alike(a: Weights, b: Weights) -> None:
    """Raise ``UsageError`` unless ``a`` and ``b`` have the same names and shapes."""
    for name in [*a, *b]:
        if name not in a or name not in b:
            raise UsageError(f"The two weight dicts differ: {text(name)} is in only one of them.")
        if a[name].shape != b[name].shape:
            raise UsageError(
                f"The two weight dicts differ: {text(name)} has shape {tuple(a[name].shape)} in one "
                f"and {tuple(b[name].shape)} in the other."
            )


@checked
def first_non_finite(weights: Weights, leave: Collection[str] = ()) -> str | None:
    """Return the name of the first tensor that holds NaN or infinity, or None; those in ``leave`` may hold them."""
    for name, tensor in weights.items():
        if name not in leave and tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return name
    return None


@checked
def digest(weights: Weights) -> str:
    """Hash of names, types, shapes and content."""
    result = hashlib.blake2b(digest_size=16)
    for name in sorted(weights):
        tensor = weights[name]
        result.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}:".encode())
        result.update(raw_bytes(tensor))
    return result.hexdigest()


def raw_bytes(tensor: Tensor) -> memoryview:
    """The content of a tensor of any type as bytes, to be hashed."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data


@checked
def restrict(weights: Weights, names: Iterable[str]) -> dict[str, Tensor]:
    """Return only the named tensors (a mask's keys give the prunable part)."""
    names = list(names)
    if (missing := next((name for name in names if name not in weights), None)) is not None:
        raise UsageError(f"There are no weights {text(missing)}. {nearest(missing, weights)}")
    return {name: weights[name] for name in names}


@checked
def clone(weights: Weights) -> dict[str, Tensor]:
    """Return detached, contiguous copies on the CPU."""
    # Two steps, so that a tensor that is already on the CPU and contiguous is copied just once.
    return {n: t.detach().to("cpu", copy=True).contiguous() for n, t in weights.items()}


@checked
def lerp(a: Weights, b: Weights, t: float) -> dict[str, Tensor]:
    """Return ``(1 - t) * a + t * b``; exactly ``a`` at 0 and ``b`` at 1.

    Floating tensors are interpolated, BatchNorm statistics among them; integer ones (BatchNorm's batch
    counters) are taken from the nearer end, and what is equal at both ends (a buffer that may hold infinity, such as a
    causal mask) stays as it is.
    """
    check_alike(a, b)
    return {name: _between(a[name], b[name], t) for name in a}


def _between(a: Tensor, b: Tensor, t: float) -> Tensor:
    if torch.equal(a, b):
        return a.clone()
    return torch.lerp(a, b, t) if a.is_floating_point() else (a if t < 0.5 else b).clone()


@checked
def mean(networks: Sequence[Weights]) -> dict[str, Tensor]:
    """Return the mean of networks; integer tensors (BatchNorm's batch counters) are those of the first.

    Raises:
        UsageError: if there are none, or their names or shapes differ.
    """
    if not networks:
        raise UsageError("The mean of no networks is not defined.")
    for other in networks[1:]:
        check_alike(networks[0], other)
    return {
        name: torch.stack([w[name].detach().double() for w in networks]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in networks[0].items()
    }


def _pairs(a: Weights, b: Weights, mask: Weights | None) -> Iterable[tuple[Tensor, Tensor]]:
    check_alike(a, b)
    if mask is None:
        for name in a:
            if a[name].is_floating_point():
                yield _finite(a[name], b[name])
        return
    for name, keep in mask.items():
        if name not in a or keep.shape != a[name].shape:
            raise UsageError(f"The mask does not fit the weights at {text(name)}.")
        kept = keep.to(a[name].device, torch.bool)
        yield a[name].detach()[kept].double(), b[name].detach()[kept].double()


def _finite(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both flat and in float64, 0 where they hold the same infinity, which no distance or angle has a part in."""
    x, y = a.detach().double().flatten(), b.detach().double().flatten()
    same = torch.isinf(x) & (x == y)
    return x.masked_fill(same, 0.0), y.masked_fill(same, 0.0)


@checked
def norm(a: Weights, mask: Weights | None = None) -> float:
    """L2 norm over the unpruned prunable weights of ``mask``, or over all floating tensors."""
    return math.sqrt(sum(float(x.dot(x)) for x, _ in _pairs(a, a, mask)))


@checked
def distance(a: Weights, b: Weights, mask: Weights | None = None) -> float:
    """L2 distance ``||m*a - m*b||`` (STAB section 4), over all floating tensors when ``mask`` is None."""
    return math.sqrt(sum(float((x - y).square().sum()) for x, y in _pairs(a, b, mask)))


@checked
def angle(a: Weights, b: Weights, mask: Weights | None = None) -> float:
    """Angle in degrees between the masked weights (STAB appendix); raises if either is all zero."""
    dot = aa = bb = 0.0
    for x, y in _pairs(a, b, mask):
        dot, aa, bb = dot + float(x.dot(y)), aa + float(x.dot(x)), bb + float(y.dot(y))
    if aa == 0 or bb == 0:
        raise UsageError("The angle to a zero vector is not defined: one side has no non-zero weight.")
    return math.degrees(math.acos(max(-1.0, min(1.0, dot / math.sqrt(aa * bb)))))
