"""Which parameters can be pruned: the matrices of layers that we know, what is included and what is excluded."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from itertools import accumulate
from typing import NamedTuple

from torch import nn

from lotto.core.check import checked
from lotto.core.errors import UsageError, text
from lotto.core.text import LONGEST

MATRICES: Mapping[tuple[type[nn.Module], ...], tuple[str, ...]] = {
    (nn.Linear, nn.modules.conv._ConvNd, nn.Bilinear): ("weight",),
    (nn.RNNCellBase,): ("weight_ih", "weight_hh"),
    (nn.MultiheadAttention,): ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
}
"""The weight matrices of layers, by type; `nn.RNNBase` knows its own."""
EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
NAMED = 3
"""So many names of one kind are listed."""


class LeftOut(NamedTuple):
    """A matrix that is not prunable: its name, its number of weights, and why."""

    name: str
    size: int
    reason: str


class Choice(NamedTuple):
    """What of a module is prunable, by the names of its parameters, and which matrices are left out."""

    names: list[str]
    left_out: list[LeftOut]


def matches(name: str, pattern: str) -> bool:
    """Whether a pattern (`fnmatch`) is that of a parameter, or of a layer or module that the parameter is in."""
    paths = accumulate(name.split("."), lambda path, part: f"{path}.{part}")
    return any(path == pattern or fnmatchcase(path, pattern) for path in paths)


@checked
def prunable_names(model: nn.Module, exclude: Collection[str] = (), include: Collection[str] = ()) -> list[str]:
    """Names of the prunable weights in the order of the model.

    These are the trained weight matrices of linear, convolution, bilinear and recurrent layers and of attention, and
    whatever matrices are included: an embedding, a parameter of someone's own module, a frozen weight.

    Args:
        model: any module; a tied weight is listed once, under its first prunable name.
        exclude: patterns (`fnmatch`) of layers and modules (``fc``, ``encoder``, ``*.out_proj``) or parameters
            (``fc.weight``) that stay dense and are not examined; they come before ``include``.
        include: patterns of what is pruned as well.

    Raises:
        UsageError: if a pattern fits nothing, a weight is computed from others, or nothing is left to prune.
    """
    names, left_out = choose(model, [*exclude], [*include])
    if not names:
        others = ", ".join(f"{it.name} ({it.reason})" for it in left_out[:NAMED])
        raise UsageError(
            "The model has no prunable weights: it needs at least one linear, convolution, recurrent or attention "
            "layer that is neither excluded nor frozen"
            + (f"; left out: {others}. include=(name,) prunes them all the same." if others else ".")
        )
    return names


def choose(model: nn.Module, exclude: Collection[str] = (), include: Collection[str] = ()) -> Choice:
    """What is prunable and what is left out; see `prunable_names`."""
    aliases: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        aliases.setdefault(id(parameter), []).append(name)
    computed = [_joined(*at) for at in _computed(model)]
    _check_patterns(model, computed, exclude, include)
    for layer, own in _computed(model):
        if not _fits([_joined(layer, own)], exclude):
            raise UsageError(
                f"The {own} of {layer!r} is computed from other parameters (a parametrization such as weight_norm), "
                f"so it cannot be pruned; leave the layer dense with exclude=({layer!r},)."
            )
    chosen: dict[int, str] = {}
    others: dict[int, LeftOut] = {}
    for layer, module in model.named_modules():
        known = matrices_of(module)
        for own, parameter in module._parameters.items():
            if parameter is None or id(parameter) in chosen:
                continue
            names, trained = aliases[id(parameter)], parameter.requires_grad
            excluded, included = _fits(names, exclude), _fits(names, include) and parameter.dim() > 1
            if (included or (own in known and trained)) and not excluded:
                chosen[id(parameter)] = _joined(layer, own)
            elif own in known or (sum(size > 1 for size in parameter.shape) > 1 and not _is_norm(module)):
                reason = "excluded" if excluded else _kind(module) if trained else "frozen"
                others.setdefault(id(parameter), LeftOut(_joined(layer, own), parameter.numel(), reason))
    return Choice(list(chosen.values()), [it for key, it in others.items() if key not in chosen])


def summary(left_out: Sequence[LeftOut], parameters: int) -> str:
    """What is left out and its share of all ``parameters``, in one sentence; empty for nothing."""
    parts = []
    for reason in dict.fromkeys(it.reason for it in left_out):
        found = [it for it in left_out if it.reason == reason]
        names = ", ".join(it.name for it in found[:NAMED])
        more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
        share = 100 * sum(it.size for it in found) / parameters
        parts.append(f"{names}{more} ({reason}, {share:.3g} % of all parameters)")
    return f"Not pruned: {'; '.join(parts)}." if parts else ""


def frozen_summary(model: nn.Module) -> str:
    """Which parameters are frozen and how many numbers these are, in one sentence; empty for none."""
    found = {name: parameter.numel() for name, parameter in model.named_parameters() if not parameter.requires_grad}
    more = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    total = sum(parameter.numel() for parameter in model.parameters())
    names = ", ".join(list(found)[:NAMED]) + more
    return f"Frozen: {names}, {sum(found.values()):,} of {total:,} parameters." if found else ""


def matrices_of(module: nn.Module) -> tuple[str, ...]:
    """The names of a layer's weight matrices; empty for a layer that we do not know."""
    if isinstance(module, nn.RNNBase):
        return tuple(name for name in module._flat_weights_names if name.startswith("weight"))
    return tuple(name for kinds, names in MATRICES.items() if isinstance(module, kinds) for name in names)


def _computed(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Layers and names of weight matrices that are no parameters, but made of others."""
    for layer, module in model.named_modules():
        for own in matrices_of(module):
            if own not in module._parameters and getattr(module, own, None) is not None:
                yield layer, own


def _check_patterns(
    model: nn.Module, computed: Sequence[str], exclude: Collection[str], include: Collection[str]
) -> None:
    """Every pattern fits something, so that a slip is noticed."""
    axes = {name: parameter.dim() for name, parameter in model.named_parameters(remove_duplicate=False)}
    modules = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    known = (*modules, *axes)
    for pattern in exclude:
        if not any(matches(name, pattern) for name in (*known, *computed)):
            raise UsageError(
                f"Cannot exclude {text(pattern)}: no such prunable layer. {near(pattern, (*modules, *axes))}"
            )
    for pattern in include:
        found = [name for name in axes if matches(name, pattern)]
        if not found:
            raise UsageError(f"Cannot include {text(pattern)}: no such parameter. {near(pattern, known)}")
        if all(axes[name] < 2 for name in found):
            raise UsageError(f"Cannot include {text(pattern)}: only matrices are pruned, and {found[0]!r} is a vector.")


def near(pattern: str, names: Sequence[str]) -> str:
    """The names that a pattern may have meant, or the first ones."""
    found = difflib.get_close_matches(pattern[:LONGEST], names, n=NAMED, cutoff=0.5)
    if found:
        return f"Did you mean {' or '.join(map(repr, found))}?"
    return f"Names are {', '.join(names[:NAMED])}{', ...' if len(names) > NAMED else ''}"


def _fits(names: Sequence[str], patterns: Collection[str]) -> bool:
    return any(matches(name, pattern) for name in names for pattern in patterns)


def _joined(layer: str, own: str) -> str:
    return f"{layer}.{own}" if layer else own


def _is_norm(module: nn.Module) -> bool:
    return "Norm" in type(module).__name__


def _kind(module: nn.Module) -> str:
    return "embedding" if isinstance(module, EMBEDDINGS) else f"parameter of {type(module).__name__}"
