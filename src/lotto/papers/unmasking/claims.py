"""The claims of *Unmasking the Lottery Ticket Hypothesis*, decided from the rows of the experiments in `unmasking`."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pandas as pd

from lotto.core.statistics import decide
from lotto.experiments.claims import Claim, Find, Finding, agreement, finding_of, gap
from lotto.experiments.measures import BARRIER, ERROR, ERROR_BETWEEN, IMP, ONE_SHOT, RANDOM, WITHOUT_RETRAINING, Kind
from lotto.experiments.results import ResultGroup
from lotto.landscape.stability import STABLE
from lotto.papers.unmasking import measures as m

NO_BARRIER = 0.5
"""A barrier above the line between both ends below so many points, or the recipe's tolerance if that is larger, counts
as none: evaluation noise is about 0.1 on 10,000 examples."""
SPARSE = 0.6
"""Levels denser than this are left out, as the paper leaves out the first ones: there random masks match too."""
FACTOR = 2.0
"""The theory predicts a fraction when it is within this factor of what was measured."""


def _least_barrier(group: ResultGroup) -> float:
    return max(NO_BARRIER, group.tolerance)


def connected_where_matching(group: ResultGroup) -> Iterator[Finding]:
    """Barrier to the next level below `NO_BARRIER`, and the next level's error within the tolerance."""
    points = []
    rows = group.rows(BARRIER, kind=IMP)
    rows = rows[rows["density"] <= SPARSE] if "x" in rows else rows.iloc[:0]
    for (k, level), part in rows[rows.get("x", 0) == rows["level"] + 1].groupby(["rewind_step", "level"]):
        connected = decide(list(part["value"]), _least_barrier(group), below=True)
        points.append((connected, decide(list(gap(group, k, level + 1)), group.tolerance, below=True)))
    yield from agreement(group.title, points, "points of both kinds are needed")


def distant_levels_need_not_connect(group: ResultGroup) -> Iterator[Finding]:
    """Among levels that are connected one by one: the barrier between the first and last minus the largest step's."""
    for k in group.rewind_steps(ERROR_BETWEEN):
        rows = group.rows(BARRIER, rewind_step=k, kind=IMP)
        rows = rows[rows["x"] == rows["level"] + 1]
        steps = rows.groupby("level")["value"].mean()
        last = 0
        while last in steps.index and steps[last] < _least_barrier(group):
            last += 1
        if last < 2:
            continue
        far = group.values(BARRIER, rewind_step=k, level=0, x=last, kind=IMP)
        near = rows[rows["level"] < last].groupby("seed")["value"].max()
        yield from finding_of(f"{group.title}, k = {k}, levels 0 and {last}", (far - near).dropna(), 0.0, False)


def robust_where_matching(group: ResultGroup) -> Iterator[Finding]:
    """Barrier after a perturbation of the successive distance below `STABLE`, and the level within the tolerance."""
    points = []
    for k, level in group.rows(m.ERROR_AFTER_TRAINING, kind=m.PERTURBED).groupby(["rewind_step", "level"]).groups:
        barrier = group.values(BARRIER, kind=m.PERTURBED, rewind_step=k, level=level, x=1.0)
        matching = decide(list(gap(group, k, level)), group.tolerance, below=True)
        points.append((decide(list(barrier), STABLE, below=True), matching))
    yield from agreement(group.title, points, "points of both kinds are needed")


def _limits(group: ResultGroup) -> Iterator[tuple[int, int, str]]:
    for (k, level), part in group.rows(m.LARGEST_FRACTION[m.THEORY]).groupby(["rewind_step", "level"]):
        yield int(k), int(level), group.where(part, k)


def _largest(group: ResultGroup, k: int, level: int, kind: Kind, how: str = m.SUBSPACE) -> pd.Series:
    return group.values(m.LARGEST_FRACTION[how], kind=kind, rewind_step=k, level=level)


def theory_predicts_random(group: ResultGroup) -> Iterator[Finding]:
    """|log2| of the predicted over the measured fraction, for random pruning."""
    for k, level, where in _limits(group):
        theory, measured = (_largest(group, k, level, RANDOM, how) for how in (m.THEORY, m.SUBSPACE))
        away = (theory.clip(lower=1e-3) / measured.clip(lower=1e-3)).map(math.log2).abs()
        yield from finding_of(where, away.dropna(), math.log2(FACTOR), True)


def magnitude_allows_more(group: ResultGroup) -> Iterator[Finding]:
    """Measured fraction of magnitude pruning minus that of random pruning."""
    for k, level, where in _limits(group):
        magnitude, random = (_largest(group, k, level, kind) for kind in (m.MAGNITUDE, RANDOM))
        yield from finding_of(where, (magnitude - random).dropna(), 0.0, False)


def flatter_allows_more(group: ResultGroup) -> Iterator[Finding]:
    """Rank correlation over levels of the trace per weight with the measured fraction of random pruning."""
    for k in group.rewind_steps(m.TRACE):
        sharp = group.rows(m.TRACE, rewind_step=k).assign(value=lambda r: r["value"] / r["density"])
        fractions = group.rows(m.LARGEST_FRACTION[m.SUBSPACE], rewind_step=k, kind=RANDOM)
        both = [f.pivot_table(index="seed", columns="level", values="value") for f in (sharp, fractions)]
        if both[0].shape[1] >= 3:
            each = both[0].rank(axis=1).corrwith(both[1].rank(axis=1), axis=1).dropna()
            yield from finding_of(f"{group.title}, k = {k}", each, 0.0, True)


def retraining_restores_small_weights(group: ResultGroup) -> Iterator[Finding]:
    """Length of the next projection with retraining over that without, mean over levels after the first."""
    rows = group.rows(m.PROJECTION_LENGTH)
    rows = rows[rows["level"] > 0]
    for k, part in rows[rows["kind"] == WITHOUT_RETRAINING].groupby("rewind_step"):
        index = ["seed", "level"]
        retrained = rows[(rows["kind"] == IMP) & (rows["rewind_step"] == k)].groupby(index)["value"].mean()
        ratio = (retrained / part.groupby(index)["value"].mean()).dropna().groupby("seed").mean()
        yield from finding_of(f"{group.title}, k = {k}", ratio, 1.0, True)


def one_shot_fails(group: ResultGroup) -> Iterator[Finding]:
    """Error of one cut to the last level's density minus that of IMP there."""
    for (k, level), part in group.rows(ERROR, kind=ONE_SHOT).groupby(["rewind_step", "level"]):
        difference = (gap(group, k, level, ONE_SHOT) - gap(group, k, level)).dropna()
        yield from finding_of(group.where(part, k), difference, 0.0, False)


def adaptive_needs_fewer_trainings(group: ResultGroup) -> Iterator[Finding]:
    """Trainings with adaptive fractions over those with the fixed fraction to the same density."""
    for k in group.rewind_steps(m.TRAININGS):
        counts = [group.values(m.TRAININGS, rewind_step=k, kind=kind) for kind in (m.ADAPTIVE, IMP)]
        reached = group.values(m.DENSITY_REACHED, rewind_step=k).mean()
        where = f"{group.title}, {100 * reached:.3g} % left, k = {k}"
        yield from finding_of(where, (counts[0] / counts[1]).dropna(), 1.0, True)


_RUN = "lotto run unmasking."
_ROWS: tuple[tuple[str, str, str, str, str, Find], ...] = (
    (
        "At higher sparsities successive levels are linearly connected exactly where they match.", "UNM, figure 2",
        f"below {SPARSE:.0%}: barrier to the next level below {NO_BARRIER} points, its error within the tolerance",
        "no barrier where matching, rewound to 1000; 86–90 % error between levels rewound to 0", "connectivity",
        connected_where_matching,
    ),
    (
        "Neighbouring levels are connected though distant ones need not be.", "UNM, figure 2",
        "barrier between the first and the last of a connected chain minus its largest step, above 0",
        "piecewise linear", "connectivity", distant_levels_need_not_connect,
    ),
    (
        "Rewind points that give matching tickets survive moves as long as the step between levels.", "UNM, figure 4",
        f"barrier after a move of that length below {STABLE:g} points, error within the tolerance: do they agree?",
        "they do; earlier rewind points do not", "robustness", robust_where_matching,
    ),
    (
        "Theory predicts how much random pruning leaves in the sublevel set.", "UNM, figure 5",
        f"|log2 of predicted over measured share|, below 1 (a factor of {FACTOR:g})", "quantitative agreement",
        "pruning_limit", theory_predicts_random,
    ),
    (
        "Magnitude pruning allows at least what random pruning does.", "UNM, figure 5",
        "measured largest share by magnitude minus at random, above 0", "slightly more", "pruning_limit",
        magnitude_allows_more,
    ),
    (
        "Flatter solutions allow a larger share.", "UNM, section 5",
        "rank correlation over levels of the trace per weight and the largest random share, below 0",
        "flatness limits the share", "pruning_limit", flatter_allows_more,
    ),
    (
        "Retraining makes new small weights.", "UNM, figure 6",
        "length of the next projection with retraining over that without, below 1", "shorter", "retraining",
        retraining_restores_small_weights,
    ),
    (
        "One cut to the final density fails where iteration succeeds.", "UNM, figures 5 and 6",
        "one-shot error minus IMP error at the last level, above 0", "one-shot fails", "retraining", one_shot_fails,
    ),
    (
        "Adaptive shares reach the same density in fewer trainings.", "UNM's sibling on adaptive pruning",
        "trainings, failed ones counted, over those of the fixed share, below 1; kept levels match",
        "30 % less compute on CIFAR-100, another rule", "adaptive", adaptive_needs_fewer_trainings,
    ),
)  # fmt: skip
CLAIMS = tuple(
    Claim(number, sentence, source, statistic, paper, f"{_RUN}{experiment} lenet-mnist-sgd", find)
    for number, (sentence, source, statistic, paper, experiment, find) in enumerate(_ROWS, start=1)
)
