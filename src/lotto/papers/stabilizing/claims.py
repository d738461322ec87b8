"""The claims of *Stabilizing the Lottery Ticket Hypothesis*, of *Linear Mode Connectivity* and of Renda et al.

Each is decided by a statistic with one value per replicate, from the rows of the experiments in `stabilizing`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from lotto.experiments.claims import Claim, Finding, Verdict, decide, finding_of, gap, values
from lotto.experiments.results import Setting
from lotto.landscape.stability import STABLE

TOLERANCE = 0.2
"""A subnetwork matches when its error is at most so many points above the dense one's (LMC section 3)."""
SMALL = 0.1
"""A rewind step is small up to this share of the training."""
LATE = 0.5
"""A rewind step is very late from this share of the training."""
NEAR = 1.6
"""A level stands for the paper's density when it is at most this factor away."""
LENET_DENSITY, RESNET_DENSITY = 0.107, 0.167
BARRIER = "test barrier, statistics interpolated"

Chosen = Callable[[Setting], bool]


def lenet(setting: Setting) -> bool:
    """LeNet on MNIST."""
    return str(setting.recipe["model"]).startswith("lenet")


def resnet(setting: Setting) -> bool:
    """A CIFAR ResNet."""
    return str(setting.recipe["model"]).startswith("resnet")


def standard(setting: Setting) -> bool:
    """A CIFAR ResNet at the standard rate: 0.1 or more from the first step."""
    return resnet(setting) and setting.facts["learning_rate"] >= 0.1 and not setting.facts["warmup"]


def gentle(setting: Setting) -> bool:
    """A CIFAR ResNet with a low rate or with warm-up."""
    return resnet(setting) and (setting.facts["learning_rate"] <= 0.03 or bool(setting.facts["warmup"]))


# --- rows to one value per replicate ------------------------------------------------------------------


def level_at(setting: Setting, density: float) -> int | None:
    """The level whose density is nearest to the paper's, if one is near."""
    levels = setting.frame[setting.frame["level"] > 0].groupby("level")["density"].mean()
    if levels.empty:
        return None
    away = (levels / density).map(math.log).abs()
    return int(away.idxmin()) if away.min() <= math.log(NEAR) else None


def rewind_steps(setting: Setting, level: int, kind: str = "imp") -> list[int]:
    """Rewind steps at which the error of a level is known."""
    rows = setting.frame
    rows = rows[(rows["measure"] == "error") & (rows["level"] == level) & (rows["kind"] == kind)]
    return sorted(int(k) for k in rows["rewind_step"].unique())


def _levels(settings: Sequence[Setting], chosen: Chosen, density: float) -> Iterator[tuple[Setting, int, str]]:
    for setting in settings:
        if chosen(setting) and (level := level_at(setting, density)) is not None:
            left = setting.frame[setting.frame["level"] == level]["density"].mean()
            yield setting, level, f"{setting.title}, {100 * left:.3g} % left"


# --- one function per claim ---------------------------------------------------------------------------


def wins_from_start(chosen: Chosen, density: float, below: bool) -> Callable[[Sequence[Setting]], list[Finding]]:
    """IMP rewound to 0: error above dense, below (or above) the tolerance."""

    def find(settings: Sequence[Setting]) -> list[Finding]:
        found = []
        for setting, level, where in _levels(settings, chosen, density):
            found += finding_of(where, gap(setting, 0, level), TOLERANCE, below)
        return found

    return find


def small_rewind_matches(settings: Sequence[Setting]) -> list[Finding]:
    """The best small rewind step after 0: error above dense."""
    found = []
    for setting, level, where in _levels(settings, standard, RESNET_DENSITY):
        steps = [k for k in rewind_steps(setting, level) if 0 < k <= SMALL * setting.facts["iterations"]]
        if steps:
            best = min(steps, key=lambda k: gap(setting, k, level).mean())
            found += finding_of(f"{where}, k = {best}", gap(setting, best, level), TOLERANCE, True)
    return found


def stability_improves(settings: Sequence[Setting]) -> list[Finding]:
    """L2 distances at the last small rewind step as a share of those at 0; the larger of both measures."""
    found = []
    for setting, level, where in _levels(settings, resnet, RESNET_DENSITY):
        ratios = {}
        for measure in ("data order", "pruning"):
            at = {
                k: values(setting, measure=measure, unit="L2", kind="imp", rewind_step=k, level=level)
                for k in rewind_steps(setting, level)
            }
            later = [k for k, v in at.items() if 0 < k <= SMALL * setting.facts["iterations"] and not v.empty]
            if later and 0 in at:
                ratios[measure] = (at[later[-1]] / at[0]).dropna()
        if len(ratios) == 2:
            worst = pd.concat(ratios, axis=1).dropna().max(axis=1)
            found += finding_of(f"{where}, k = {later[-1]} against 0", worst, 1.0, True)
    return found


def more_stable_than_random(settings: Sequence[Setting]) -> list[Finding]:
    """Wherever IMP matches: distance of random masks over that of IMP; the smaller of both measures."""
    found = []
    for setting in settings:
        frame = setting.frame
        rows = frame[frame["measure"].isin(("data order", "pruning")) & (frame["kind"] == "random")]
        for (k, level), part in rows.groupby(["rewind_step", "level"]):
            if gap(setting, k, level).mean() > TOLERANCE:
                continue
            ratios = {
                measure: values(setting, measure=measure, unit="L2", kind="random", rewind_step=k, level=level)
                / values(setting, measure=measure, unit="L2", kind="imp", rewind_step=k, level=level)
                for measure in ("data order", "pruning")
            }
            least = pd.concat(ratios, axis=1).dropna().min(axis=1)
            where = f"{setting.title}, {100 * part['density'].mean():.3g} % left, k = {k}"
            found += finding_of(where, least, 1.0, False)
    return found


def matching_exactly_when_stable(settings: Sequence[Setting]) -> list[Finding]:
    """Points (kind, rewind step, level) where error and barrier are both decided: do they agree?"""
    found = []
    for setting in settings:
        rows = setting.frame
        rows = rows[(rows["measure"] == BARRIER) & (rows["unit"] == "points") & (rows["level"] > 0)]
        agree: list[bool] = []
        kinds: set[bool] = set()
        points = 0
        for (kind, k, level), part in rows.groupby(["kind", "rewind_step", "level"]):
            points += 1
            stable = decide(list(part.groupby("replicate")["value"].mean()), STABLE, below=True)
            matching = decide(list(gap(setting, k, level, kind)), TOLERANCE, below=True)
            if Verdict.UNDECIDED not in (stable, matching):
                agree.append(stable == matching)
                kinds.add(stable == Verdict.SUPPORTED)
        if not points:
            continue
        note = f"{sum(agree)} of {len(agree)} decided points agree ({points} points)"
        verdict = Verdict.UNDECIDED
        if not all(agree):
            verdict = Verdict.CONTRADICTED
        elif len(kinds) == 2:
            verdict = Verdict.SUPPORTED
        else:
            note += "; stable and unstable ones are both needed"
        found.append(Finding(setting.title, (), verdict, note))
    return found


def late_rewinding_hurts(settings: Sequence[Setting]) -> list[Finding]:
    """At the sparsest level whose late rewinding is known: error at the last step above the best one before."""
    found = []
    for setting in settings:
        half, rows = LATE * setting.facts["iterations"], setting.frame
        imp = rows[(rows["kind"] == "imp") & (rows["measure"] == "error") & (rows["level"] > 0)]
        levels = set(imp[imp["rewind_step"] >= half]["level"]) & set(imp[imp["rewind_step"] < half]["level"])
        if not levels:
            continue
        level = int(max(levels))
        late = max(k for k in rewind_steps(setting, level))
        best = min((k for k in rewind_steps(setting, level) if k < half), key=lambda k: gap(setting, k, level).mean())
        difference = (gap(setting, late, level) - gap(setting, best, level)).dropna()
        left = imp[imp["level"] == level]["density"].mean()
        where = f"{setting.title}, {100 * left:.3g} % left, k = {late} against {best}"
        found += finding_of(where, difference, 0.0, False)
    return found


def _barriers(setting: Setting, k: int) -> pd.Series:
    return values(setting, measure=BARRIER, unit="points", kind="dense", rewind_step=k, level=0)


def _barrier_steps(setting: Setting) -> list[int]:
    rows = setting.frame
    return sorted(
        int(k) for k in rows[(rows["measure"] == BARRIER) & (rows["kind"] == "dense")]["rewind_step"].unique()
    )


def lenet_stable_from_start(settings: Sequence[Setting]) -> list[Finding]:
    """Barrier of dense LeNet at k = 0."""
    return [
        f
        for setting in settings
        if lenet(setting)
        for f in finding_of(setting.title, _barriers(setting, 0), STABLE, True)
    ]


def resnet_stable_later(settings: Sequence[Setting]) -> list[Finding]:
    """Barrier of the dense ResNet: unstable at 0, stable at some later step."""
    found = []
    for setting in settings:
        steps = _barrier_steps(setting) if standard(setting) else []
        if len(steps) < 2 or steps[0]:
            continue
        last = steps[-1]
        at, verdicts = {}, []
        for k, below in ((0, False), (last, True)):
            sample = [float(v) for v in _barriers(setting, k)]
            at[k] = sample
            verdicts.append(decide(sample, STABLE, below))
        both = Verdict.UNDECIDED
        if Verdict.CONTRADICTED in verdicts:
            both = Verdict.CONTRADICTED
        elif set(verdicts) == {Verdict.SUPPORTED}:
            both = Verdict.SUPPORTED
        figures = [Finding("", tuple(sample), Verdict.UNDECIDED).figure for sample in at.values()]
        found.append(Finding(setting.title, (), both, f"k = 0: {figures[0]}; k = {last}: {figures[1]}"))
    return found


def mask_and_weights_matter(settings: Sequence[Setting]) -> list[Finding]:
    """At the paper's density, rewound to 0: the better of both controls above IMP."""
    found = []
    for setting, level, where in _levels(settings, lenet, LENET_DENSITY):
        controls = [gap(setting, 0, level, kind) for kind in ("random", "reinit")]
        known = [c for c in controls if not c.empty]
        if known:
            least = pd.concat(known, axis=1).min(axis=1) - gap(setting, 0, level)
            found += finding_of(where, least.dropna(), 0.0, False)
    return found


def iteration_beats_one_shot(settings: Sequence[Setting]) -> list[Finding]:
    """At one density and rewind step: one-shot error above iterative error."""
    found = []
    for setting in settings:
        rows = setting.frame[setting.frame["kind"] == "one-shot"]
        for (k, level), part in rows.groupby(["rewind_step", "level"]):
            difference = gap(setting, k, level, "one-shot") - gap(setting, k, level, "iterative")
            where = f"{setting.title}, {100 * part['density'].mean():.3g} % left, k = {k}"
            found += finding_of(where, difference.dropna(), 0.0, False)
    return found


def rewinding_beats_finetuning(settings: Sequence[Setting]) -> list[Finding]:
    """At the sparsest level: fine-tuning's error above that of the worse of both kinds of rewinding."""
    found = []
    for setting in settings:
        rows = setting.frame[setting.frame["kind"] == "fine-tuning"]
        if rows.empty:
            continue
        level = int(rows["level"].max())
        part = rows[rows["level"] == level]
        for k in part["rewind_step"].unique():
            weights, rate, tuned = (
                gap(setting, k, level, kind) for kind in ("weight rewinding", "lr rewinding", "fine-tuning")
            )
            where = f"{setting.title}, {100 * part['density'].mean():.3g} % left, k = {k}"
            if rate.equals(tuned):
                note = "the learning rate never falls, so fine-tuning is learning-rate rewinding"
                found.append(Finding(where, (), Verdict.UNDECIDED, note))
                continue
            difference = tuned - pd.concat([weights, rate], axis=1).max(axis=1)
            found += finding_of(where, difference.dropna(), 0.0, False)
    return found


def imagenet_one_shot(settings: Sequence[Setting]) -> list[Finding]:
    """One-shot at a late rewind step on ImageNet: error above dense."""
    found = []
    for setting in settings:
        if "torchvision" not in str(setting.recipe["model"]):
            continue
        rows = setting.frame[setting.frame["kind"] == "one-shot"]
        for (k, level), part in rows.groupby(["rewind_step", "level"]):
            where = f"{setting.title}, {100 * part['density'].mean():.3g} % left, k = {k}"
            found += finding_of(where, gap(setting, k, level, "one-shot"), TOLERANCE, True)
    return found


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
