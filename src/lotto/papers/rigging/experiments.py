"""Masks that change along one training, beside masks that hold still and IMP's, at the same numbers of weights.

Rows have the columns of `stabilizing`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from lotto.execution.procedures import Procedure
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import ERROR, IMP, Kind
from lotto.lottery.replicate import Level
from lotto.papers.rigging import measures as m
from lotto.papers.rigging import plots
from lotto.pruning import masks
from lotto.pruning.allocation import random_erk
from lotto.recipe.recipe import Recipe
from lotto.training.dynamic_sparsity import DynamicSparsity, spaced
from lotto.training.job import Job
from lotto.training.passes import job_fraction, levels_fraction, multiplications


def empty_channels(mask: Mapping[str, Tensor]) -> float:
    """The fraction of the layers' output channels of which no weight is left.

    >>> empty_channels({"a": torch.tensor([[True, False], [False, False]])})
    0.5
    """
    empty = [~keep.flatten(1).any(1) for keep in mask.values() if keep.dim() > 1]
    return sum(int(e.sum()) for e in empty) / max(1, sum(len(e) for e in empty))


@experiment(
    "dynamic", title="Masks that change along a training, against random ones that hold still and those of IMP",
    source="RigL, figure 2; SET; Zhu and Gupta; ITOP", plot=plots.dynamic,
)  # fmt: skip
def dynamic(
    case: Case,
    *,
    eval_levels: Sequence[int] = (),
    updates: int = 10,
    exploring: int = 20,
    stop: float = 0.5,
    fraction: float = 0.3,
    fewer: float = 0.1,
) -> Procedure[list[Row]]:
    """RigL figure 2: error at equal numbers of weights and of steps, at ``eval_levels`` of IMP; empty = at all.

    SET and RigL begin with the random mask that is trained as it is, gradual pruning with the dense network. Their
    masks change about ``updates`` times until the part ``stop`` of the training, and where they are to explore more
    about ``exploring`` times by a fraction that does not fall. ``fewer`` is the fraction where fewer weights change at
    once.
    """
    settings = (updates, exploring, stop, fraction, fewer)
    Job(case.recipe, sparsity=_kinds(case.recipe, 0.5, *settings)[m.GRADUAL])  # what cannot work is said now
    levels = yield from case.levels()
    evaluated = [levels[i] for i in eval_levels] if eval_levels else levels[1:]
    kinds = {at.level: _kinds(case.recipe, masks.density(at.mask), *settings) for at in evaluated}
    jobs = {
        at.level: {kind: _job(case, at, kind, sparsity) for kind, sparsity in kinds[at.level].items()}
        for at in evaluated
    }
    runs = yield jobs
    each, total, masks_of = multiplications(case.recipe), case.recipe.total, [at.mask for at in levels]
    rows = case.dense_rows(levels[0].run)
    for at in evaluated:
        place = At.of(at)
        rows += [
            case.row(place, IMP, ERROR, at.run.test_error),
            case.row(place, IMP, m.EXPLORED, 1.0),
            case.row(place, IMP, m.EMPTY, empty_channels(at.mask)),
            case.row(place, IMP, m.ARITHMETIC, levels_fraction(masks_of[: at.level + 1], case.k, total, each)),
        ]
        for kind, job in jobs[at.level].items():
            run = runs[at.level][kind]
            rows += [
                case.row(place, kind, ERROR, run.test_error),
                case.row(place, kind, m.EXPLORED, run.history[-1].get("explored", place.density)),
                case.row(place, kind, m.EMPTY, empty_channels(run.mask or job.mask or {})),
                case.row(place, kind, m.ARITHMETIC, job_fraction(job, run, each)),
            ]
    return rows


def _kinds(
    recipe: Recipe, density: float, updates: int, exploring: int, stop: float, fraction: float, fewer: float
) -> dict[Kind, DynamicSparsity | None]:
    """The kinds of training at a density, with how their masks change."""
    (few, last), (many, _) = (spaced(recipe, number, stop) for number in (updates, exploring))
    return {
        m.STATIC: None,
        m.SET: DynamicSparsity("set", every=few, stop=last, fraction=fraction),
        m.RIGL: DynamicSparsity("rigl", every=few, stop=last, fraction=fraction),
        m.SET_FEWER: DynamicSparsity("set", every=few, stop=last, fraction=fewer),
        m.RIGL_FEWER: DynamicSparsity("rigl", every=few, stop=last, fraction=fewer),
        m.GRADUAL: DynamicSparsity("gradual", every=many, stop=last, density=density),
        m.SET_EXPLORING: DynamicSparsity("set", every=many, stop=last, fraction=fraction, decay="constant"),
        m.RIGL_EXPLORING: DynamicSparsity("rigl", every=many, stop=last, fraction=fraction, decay="constant"),
    }


def _job(case: Case, at: Level, kind: Kind, sparsity: DynamicSparsity | None) -> Job:
    gradual = sparsity is not None and not sparsity.exchanges
    mask = None if gradual else random_erk(masks.ones(case.recipe), masks.count(at.mask), case.seed)
    # The masks of gradual pruning are known where they have changed.
    keep = [step + 1 for step in sparsity.updates(case.recipe).steps] if gradual and sparsity is not None else []
    label = f"{case.label} · level {at.level} · {kind}"
    return Job(case.recipe, case.seed, case.seed, mask=mask, keep=tuple(keep), label=label, sparsity=sparsity)


EXPERIMENTS = (dynamic,)
