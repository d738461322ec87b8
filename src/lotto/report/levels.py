"""What the figures of a result are drawn from, level by level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lotto.lottery.replicate import Level
from lotto.lottery.result import ImpResult
from lotto.pruning import masks


def histories(result: ImpResult) -> list[list[Sequence[Mapping[str, float]]]]:
    """For each level the histories of its trainings that came to their end."""
    return [[at.run.history for at in every if not at.run.diverged] for every in _by_level(result)]


def layers(result: ImpResult) -> dict[str, list[float]]:
    """The density of each layer by level, mean over the replicates."""
    found = [[masks.layer_densities(at.mask) for at in every] for every in _by_level(result)]
    return {
        layer: [sum(densities[layer] for densities in every) / len(every) for every in found] for layer in found[0][0]
    }


def _by_level(result: ImpResult) -> list[list[Level]]:
    return [
        [replicate[number] for replicate in result.replicates if number < len(replicate)]
        for number in range(max(map(len, result.replicates)))
    ]
