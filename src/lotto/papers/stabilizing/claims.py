"""The claims of *Stabilizing the Lottery Ticket Hypothesis*, of *Linear Mode Connectivity* and of Renda et al.

Each is decided by a statistic with one value per replicate, from the rows of the experiments in `stabilizing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import pandas as pd

from lotto.core.statistics import Verdict, decide
from lotto.experiments.claims import Claim, Find, Finding, agreement, finding_of, gap
from lotto.experiments.measures import DENSE, ERROR, IMP, ONE_SHOT, RANDOM, REINIT, Kind
from lotto.experiments.results import ResultGroup
from lotto.landscape.stability import STABLE
from lotto.papers.stabilizing import measures as m

TOLERANCE = 0.2
"""A subnetwork matches when its error is at most so many points above the dense one's (LMC section 3)."""
SMALL = 0.1
"""A rewind step is small up to this fraction of the training."""
LATE = 0.5
"""A rewind step is very late from this fraction of the training."""
NEAR = 1.6
"""A level stands for the paper's density when it is at most this factor away."""
LENET_DENSITY, RESNET_DENSITY = 0.107, 0.167

Chosen = Callable[[ResultGroup], bool]


def lenet(group: ResultGroup) -> bool:
    """LeNet on MNIST."""
    return str(group.recipe["model"]).startswith("lenet")


def resnet(group: ResultGroup) -> bool:
    """A CIFAR ResNet."""
    return str(group.recipe["model"]).startswith("resnet")


def standard(group: ResultGroup) -> bool:
    """A CIFAR ResNet at the standard rate: 0.1 or more from the first step."""
    return resnet(group) and group.facts["learning_rate"] >= 0.1 and not group.facts["warmup"]


def gentle(group: ResultGroup) -> bool:
    """A CIFAR ResNet with a low rate or with warm-up."""
    return resnet(group) and (group.facts["learning_rate"] <= 0.03 or bool(group.facts["warmup"]))


# --- rows to one value per replicate ------------------------------------------------------------------


def level_at(group: ResultGroup, density: float) -> int | None:
    """The level whose density is nearest to the paper's, if one is near."""
    levels = group.frame[group.frame["level"] > 0].groupby("level")["density"].mean()
    if levels.empty:
        return None
    away = (levels / density).map(math.log).abs()
    return int(away.idxmin()) if away.min() <= math.log(NEAR) else None


def rewind_steps(group: ResultGroup, level: int, kind: Kind = IMP) -> list[int]:
    """Rewind steps at which the error of a level is known."""
    return group.rewind_steps(ERROR, level=level, kind=kind)


def _small(group: ResultGroup, k: int) -> bool:
    return 0 < k <= SMALL * group.facts["iterations"]


def _best(group: ResultGroup, steps: list[int], level: int) -> int:
    return min(steps, key=lambda k: gap(group, k, level).mean())


def _level(group: ResultGroup, chosen: Chosen, density: float) -> Iterator[tuple[int, str]]:
    """The level at a density and what findings call it; nothing for other networks and densities."""
    if chosen(group) and (level := level_at(group, density)) is not None:
        left = group.rows(level=level)["density"].mean()
        yield level, f"{group.title}, {100 * left:.3g} % left"


# --- one function per claim: what one group of results says --------------------------------------------


def wins_from_start(chosen: Chosen, density: float, below: bool) -> Find:
    """IMP rewound to 0: error above dense, below (or above) the tolerance."""

    def find(group: ResultGroup) -> Iterator[Finding]:
        for level, where in _level(group, chosen, density):
            yield from finding_of(where, gap(group, 0, level), TOLERANCE, below)

    return find


def small_rewind_matches(group: ResultGroup) -> Iterator[Finding]:
    """The best small rewind step after 0: error above dense."""
    for level, where in _level(group, standard, RESNET_DENSITY):
        if steps := [k for k in rewind_steps(group, level) if _small(group, k)]:
            best = _best(group, steps, level)
            yield from finding_of(f"{where}, k = {best}", gap(group, best, level), TOLERANCE, True)


def stability_improves(group: ResultGroup) -> Iterator[Finding]:
    """L2 distances at the last small rewind step as a fraction of those at 0; the larger of both measures."""
    for level, where in _level(group, resnet, RESNET_DENSITY):
        ratios = {}
        for measure in (m.DATA_ORDER, m.PRUNING):
            steps = rewind_steps(group, level)
            at = {k: group.values(measure, kind=IMP, rewind_step=k, level=level) for k in steps}
            later = [k for k, v in at.items() if _small(group, k) and not v.empty]
            if later and 0 in at:
                ratios[measure.name] = (at[later[-1]] / at[0]).dropna()
        if len(ratios) == 2:
            worst = pd.concat(ratios, axis=1).dropna().max(axis=1)
            yield from finding_of(f"{where}, k = {later[-1]} against 0", worst, 1.0, True)


def more_stable_than_random(group: ResultGroup) -> Iterator[Finding]:
    """Wherever IMP matches: distance of random masks over that of IMP; the smaller of both measures."""
    names = (m.DATA_ORDER.name, m.PRUNING.name)
    rows = group.frame[group.frame["measure"].isin(names) & (group.frame["kind"] == RANDOM)]
    for (k, level), part in rows.groupby(["rewind_step", "level"]):
        if gap(group, k, level).mean() > TOLERANCE:
            continue
        at = {"rewind_step": k, "level": level}
        ratios = {
            measure.name: group.values(measure, kind=RANDOM, **at) / group.values(measure, kind=IMP, **at)
            for measure in (m.DATA_ORDER, m.PRUNING)
        }
        yield from finding_of(group.where(part, k), pd.concat(ratios, axis=1).dropna().min(axis=1), 1.0, False)


def matching_exactly_when_stable(group: ResultGroup) -> Iterator[Finding]:
    """Points (kind, rewind step, level) where error and barrier are both decided: do they agree?"""
    rows = group.rows(m.TEST_BARRIER)
    points = [
        (
            decide(list(part.groupby("seed")["value"].mean()), STABLE, below=True),
            decide(list(gap(group, k, level, kind)), TOLERANCE, below=True),
        )
        for (kind, k, level), part in rows[rows["level"] > 0].groupby(["kind", "rewind_step", "level"])
    ]
    yield from agreement(group.title, points, "stable and unstable ones are both needed")


def late_rewinding_hurts(group: ResultGroup) -> Iterator[Finding]:
    """At the sparsest level whose late rewinding is known: error at the last step above the best one before."""
    half, imp = LATE * group.facts["iterations"], group.rows(ERROR, kind=IMP)
    levels = [
        set(part[part["level"] > 0]["level"])
        for part in (imp[imp["rewind_step"] >= half], imp[imp["rewind_step"] < half])
    ]
    if both := levels[0] & levels[1]:
        level = int(max(both))
        steps = rewind_steps(group, level)
        late, best = max(steps), _best(group, [k for k in steps if k < half], level)
        difference = (gap(group, late, level) - gap(group, best, level)).dropna()
        where = group.where(imp[imp["level"] == level], f"{late} against {best}")
        yield from finding_of(where, difference, 0.0, False)


def _barriers(group: ResultGroup, k: int) -> pd.Series:
    return group.values(m.TEST_BARRIER, kind=DENSE, rewind_step=k, level=0)


def lenet_stable_from_start(group: ResultGroup) -> Iterator[Finding]:
    """Barrier of dense LeNet at k = 0."""
    if lenet(group):
        yield from finding_of(group.title, _barriers(group, 0), STABLE, True)


def resnet_stable_later(group: ResultGroup) -> Iterator[Finding]:
    """Barrier of the dense ResNet: unstable at 0, stable at some later step."""
    steps = group.rewind_steps(m.TEST_BARRIER, kind=DENSE) if standard(group) else []
    if len(steps) < 2 or steps[0]:
        return
    samples = {k: tuple(float(v) for v in _barriers(group, k)) for k in (0, steps[-1])}
    verdicts = {decide(sample, STABLE, below=k > 0) for k, sample in samples.items()}
    both = Verdict.UNDECIDED
    if Verdict.CONTRADICTED in verdicts:
        both = Verdict.CONTRADICTED
    elif verdicts == {Verdict.SUPPORTED}:
        both = Verdict.SUPPORTED
    figures = [f"k = {k}: {Finding('', sample, both).figure}" for k, sample in samples.items()]
    yield Finding(group.title, (), both, "; ".join(figures))


def mask_and_weights_matter(group: ResultGroup) -> Iterator[Finding]:
    """At the paper's density, rewound to 0: the better of both controls above IMP."""
    for level, where in _level(group, lenet, LENET_DENSITY):
        controls = [gap(group, 0, level, kind) for kind in (RANDOM, REINIT)]
        if known := [c for c in controls if not c.empty]:
            least = pd.concat(known, axis=1).min(axis=1) - gap(group, 0, level)
            yield from finding_of(where, least.dropna(), 0.0, False)


def iteration_beats_one_shot(group: ResultGroup) -> Iterator[Finding]:
    """At one density and rewind step: one-shot error above iterative error."""
    for (k, level), part in group.rows(kind=ONE_SHOT).groupby(["rewind_step", "level"]):
        difference = gap(group, k, level, ONE_SHOT) - gap(group, k, level, m.ITERATIVE)
        yield from finding_of(group.where(part, k), difference.dropna(), 0.0, False)


def rewinding_beats_finetuning(group: ResultGroup) -> Iterator[Finding]:
    """At the sparsest level: fine-tuning's error above that of the worse of both kinds of rewinding."""
    rows = group.rows(kind=m.FINE_TUNING)
    part = rows[rows["level"] == rows["level"].max()]
    for k, level in part[["rewind_step", "level"]].drop_duplicates().itertuples(index=False):
        weights, rate, tuned = (
            gap(group, k, level, kind) for kind in (m.WEIGHT_REWINDING, m.LR_REWINDING, m.FINE_TUNING)
        )
        if rate.equals(tuned):
            note = "the learning rate never falls, so fine-tuning is learning-rate rewinding"
            yield Finding(group.where(part, k), (), Verdict.UNDECIDED, note)
            continue
        difference = tuned - pd.concat([weights, rate], axis=1).max(axis=1)
        yield from finding_of(group.where(part, k), difference.dropna(), 0.0, False)


def imagenet_one_shot(group: ResultGroup) -> Iterator[Finding]:
    """One-shot at a late rewind step on ImageNet: error above dense."""
    if "torchvision" in str(group.recipe["model"]):
        for (k, level), part in group.rows(kind=ONE_SHOT).groupby(["rewind_step", "level"]):
            yield from finding_of(group.where(part, k), gap(group, k, level, ONE_SHOT), TOLERANCE, True)


_RUN = "lotto run stabilizing."
CLAIMS = (
    Claim(
        1, "IMP from k = 0 finds winning tickets for LeNet.", "STAB, figure 3",
        f"error of IMP at k = 0 minus dense error, below {TOLERANCE} points",
        "98.3 % against 98.0 ± 0.2 % accuracy at 10.7 %", _RUN + "distances lenet-mnist-sgd",
        wins_from_start(lenet, LENET_DENSITY, True),
    ),
    Claim(
        2, "IMP from k = 0 finds none for ResNet-20 at the standard rate.", "STAB, figure 3",
        f"error of IMP at k = 0 minus dense error, above {TOLERANCE} points",
        "87.7 % against 90.5 % accuracy at 16.7 %", _RUN + "rewind resnet20-cifar10 --levels 8",
        wins_from_start(standard, RESNET_DENSITY, False),
    ),
    Claim(
        3, "At a low rate or with warm-up it does.", "STAB, figure 3",
        f"error of IMP at k = 0 minus dense error, below {TOLERANCE} points",
        "low 89.1 against 89.1 %, warm-up 90.3 against 89.6 %", _RUN + "rewind resnet20-cifar10-low --levels 8",
        wins_from_start(gentle, RESNET_DENSITY, True),
    ),
    Claim(
        4, "Rewinding to a small k > 0 makes ResNet-20 subnetworks match.", "STAB, figures 4 and 5",
        f"error of IMP at the best 0 < k ≤ {SMALL:.0%} of training minus dense error, below {TOLERANCE} points",
        "matches from iteration 500 of 30,000", _RUN + "rewind resnet20-cifar10 --levels 8", small_rewind_matches,
    ),
    Claim(
        5, "Stability to pruning and to data order improves with k for IMP.", "STAB, figure 4",
        "L2 distances at the last small k over those at 0, the larger of both measures, below 1",
        "falls over the first 500 iterations", _RUN + "rewind resnet20-cifar10 --levels 8", stability_improves,
    ),
    Claim(
        6, "Where IMP subnetworks match they are more stable than random masks.", "STAB, figures 3 and 4",
        "L2 distance of random masks over that of IMP, the smaller of both measures, above 1",
        "LeNet at 10.7 %: data order 2.8, pruning 1.6", _RUN + "distances lenet-mnist-sgd", more_stable_than_random,
    ),
    Claim(
        7, "Subnetworks match exactly when they are stable.", "LMC, figure 5",
        "points where barrier (2 points) and error (0.2 points) are both decided: do they agree?",
        "all but the densest ones", _RUN + "subnetworks resnet20-cifar10 --levels 8", matching_exactly_when_stable,
    ),
    Claim(
        8, "Very late rewinding hurts.", "STAB, figure 4",
        f"error of IMP at the last k ≥ {LATE:.0%} of training minus that at the best earlier k, above 0",
        "accuracy falls when too little training is left", _RUN + "rewind lenet-mnist-sgd --rewind-to 0it,2ep,30ep",
        late_rewinding_hurts,
    ),
    Claim(
        9, "Dense LeNet is stable from initialisation.", "LMC, figure 3",
        f"test error barrier at k = 0, below {STABLE:g} points", "stable at 0",
        _RUN + "instability lenet-mnist-sgd --rewind-to 0it", lenet_stable_from_start,
    ),
    Claim(
        10, "Dense ResNet-20 is stable only after some steps.", "LMC, figure 3",
        f"test error barrier: above {STABLE:g} points at 0, below at the last k", "stable from iteration 2000 (3 %)",
        _RUN + "instability resnet20-cifar10", resnet_stable_later,
    ),
    Claim(
        11, "Winning tickets need their mask and their weights.", "STAB, figures 3 and 5; LTH",
        "error of the better of random mask and new initialisation minus that of IMP at k = 0, above 0",
        "LeNet at 10.7 %: random mask 97.5 against 98.3 %", _RUN + "sparsity lenet-mnist-sgd", mask_and_weights_matter,
    ),
    Claim(
        12, "Iterative pruning finds better subnetworks than one-shot pruning.", "LTH; STAB, figures 6 and 7",
        "one-shot error minus iterative error at the same density and k, above 0",
        "ResNet-50 matches at 30 % one-shot, at 20 % iteratively", _RUN + "oneshot lenet-mnist-sgd",
        iteration_beats_one_shot,
    ),
    Claim(
        13, "Rewinding weights or learning rate beats fine-tuning.", "Renda et al., figure 1",
        "fine-tuning's error minus that of the worse of both rewindings, equally long, above 0",
        "both outperform fine-tuning", _RUN + "retraining lenet-mnist-fast", rewinding_beats_finetuning,
    ),
    Claim(
        14, "On ImageNet one-shot pruning with late rewinding matches.", "STAB, figures 6 and 7",
        f"one-shot error minus dense error, below {TOLERANCE} points",
        "ResNet-50 30 % (epoch 4–6 of 90), Inception-v3 30 % (6 of 171), SqueezeNet 50 % (10 of 150)",
        _RUN + "oneshot resnet50-imagenet", imagenet_one_shot,
    ),
)  # fmt: skip
