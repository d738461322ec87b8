"""How far the masks of IMP agree: with another initialisation, another data order, another way of retraining."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lotto.core.rng import derived_seed
from lotto.execution.procedures import Procedure, gather
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import Kind, Measure
from lotto.lottery.options import Retraining
from lotto.lottery.procedure import level_procedure
from lotto.lottery.replicate import Level
from lotto.lottery.scoring import pruned
from lotto.papers.signs import measures as m
from lotto.papers.signs import plots
from lotto.papers.signs.chains import on_another_order, reached_end
from lotto.pruning import masks
from lotto.pruning.agreement import overlap as overlap_of
from lotto.pruning.density import to_density
from lotto.pruning.masks import Mask


@experiment(
    "overlap", title="How far masks agree, above chance", source="after Zhou et al. and STAB", plot=plots.overlap,
)  # fmt: skip
def overlap(case: Case, *, eval_levels: Sequence[int] = ()) -> Procedure[list[Row]]:
    """IMP's masks against those of another initialisation, of another data order from the same rewind point, more.

    The other initialisation belongs to this replicate alone, so that no mask is in two replicates' values. One cut is
    the dense network pruned at once to the level's density, without retraining. Layer by layer at ``eval_levels``;
    empty = half of the levels and all.
    """
    last = case.options.levels
    numbers = tuple(eval_levels) or tuple(sorted({last, last // 2} - {0}))
    other = derived_seed(case.seed, "another-initialisation")
    levels = yield from case.levels()
    found = yield from gather(
        {
            m.OTHER_INITIALISATION: level_procedure(case.plan_of(seed=other), 0, lambda event: None),
            m.OTHER_ORDER: on_another_order(
                case.plan_of(seed=case.order_seeds(2)[1]), levels[0], case.order_seeds(2)[1], f"{case.label} · order"
            ),
            m.OTHER_REWINDING: case.levels(after=Retraining.LR),
        }
    )
    compared = {kind: [at.mask for at in reached_end(chain, case.plan_of())] for kind, chain in found.items()}
    compared[m.ONE_CUT] = yield from _cut_at_once(case, levels)
    compared[m.LEVEL_BEFORE] = [levels[0].mask, *(at.mask for at in levels[:-1])]
    rows = case.dense_rows(levels[0].run)
    for kind, found_masks in compared.items():
        for at, mask in zip(levels[1:], found_masks[1:], strict=True):
            rows += _rows(case, At.of(at), kind, at.mask, mask, at.level in numbers)
    return rows


def _cut_at_once(case: Case, levels: Sequence[Level]) -> Procedure[list[Mask]]:
    """The masks of a single cut of the dense network to the density of each level."""
    dense, rule, found = levels[0], case.plan_of().pruning, [levels[0].mask]
    for at in levels[1:]:
        cut = to_density(rule, dense.mask, masks.density(at.mask))
        seed = derived_seed(case.seed, "pruning", 1)
        label = f"{case.label} · one cut, as level {at.level}"
        found.append(
            (
                yield from pruned(
                    case.recipe, cut, dense.run.weights, dense.mask, start=dense.run.at(case.k), seed=seed, label=label
                )
            )
        )
    return found


def _rows(case: Case, at: At, kind: Kind, mask: Mask, other: Mask, by_layer: bool) -> list[Row]:
    found = overlap_of(mask, other)
    rows = [
        case.row(at, kind, m.OVERLAP, found.jaccard),
        case.row(at, kind, m.EXPECTED, found.expected),
        *_above_chance(case, at, kind, m.AGREEMENT, mask, other),
    ]
    if by_layer:
        for number, name in enumerate(mask):
            one, two = ({name: whole[name]} for whole in (mask, other))
            rows += _above_chance(case, at, kind, m.LAYER_AGREEMENT, one, two, x=number)
    return rows


def _above_chance(
    case: Case,
    at: At,
    kind: Kind,
    measure: Measure,
    mask: masks.MaskLike,
    other: masks.MaskLike,
    x: float | None = None,
) -> list[Row]:
    """One row, or none of masks that can only be equal: full or empty ones."""
    found = overlap_of(mask, other)
    if math.isnan(found.expected) or found.expected >= 1:
        return []
    return [case.row(at, kind, measure, (found.jaccard - found.expected) / (1 - found.expected), x=x)]
