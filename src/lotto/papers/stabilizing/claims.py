"""The claims of *Stabilizing the Lottery Ticket Hypothesis*, of *Linear Mode Connectivity* and of Renda et al.

Each is decided by statistics with one value per replicate, from the rows of the experiments in `stabilizing`. Nothing
that decides is chosen by the error that it decides: the density is fixed by the data set (`DENSITIES`), a small rewind
step is the first one stored from `SMALL` of training on, a late one the last one stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pandas as pd

from lotto.experiments.claims import LATE, SMALL, Claim, Find, Found, Groups, gap, small_step
from lotto.experiments.conditions import (
    CONVERGED,
    STABLE_AT_0,
    STANDARD_UNSTABLE,
    UNSTABLE_AT_0,
    dense_barrier,
    is_gentle,
    is_standard,
    stable,
)
from lotto.experiments.evidence import Evidence, Point, above, all_of, below, exactly_when
from lotto.experiments.measures import (
    DENSE,
    ERROR,
    IMP,
    ONE_SHOT,
    RANDOM,
    RECOMPUTED_TEST_BARRIER,
    REINIT,
    TEST_BARRIER,
    Kind,
    Measure,
)
from lotto.experiments.results import REPLICATE, ResultGroup
from lotto.landscape.stability import STABLE
from lotto.papers.stabilizing import measures as m
from lotto.papers.stabilizing.places import density_of, level_at

# --- rows to one value per replicate ------------------------------------------------------------------


def ticket_step(group: ResultGroup, steps: Iterable[int]) -> int | None:
    """The rewind step at which tickets are looked for: 0 where the dense network is stable at 0, else a small one."""
    known = stable(group)
    return 0 if known is not None and known.decided else small_step(group, steps)


def _left(group: ResultGroup, level: int, *words: object) -> str:
    rows = group.rows(level=level)
    ours = rows[rows["kind"] == IMP]  # other papers' experiments may number other densities
    left = (ours if len(ours) else rows)["density"].mean()
    return ", ".join([f"{100 * left:.3g} % left", *map(str, words)])


def _errors(group: ResultGroup, kind: Kind = IMP) -> pd.DataFrame:
    return group.rows(ERROR, kind=kind)


def _place(group: ResultGroup, kind: Kind = IMP) -> tuple[int, list[int]] | None:
    """The level at which a network's claims are decided and the rewind steps whose errors are known there."""
    rows = _errors(group, kind)
    level = level_at(group, density_of(group), rows)
    return None if level is None else (level, sorted({int(k) for k in rows[rows["level"] == level]["rewind_step"]}))


# --- one function per claim: what one network's results say ---------------------------------------------


def wins_from_start(below_tolerance: bool) -> Find:
    """IMP rewound to 0: error above dense, below (or above) the tolerance."""

    def find(group: ResultGroup) -> Found | None:
        place = _place(group)
        if place is None or 0 not in place[1]:
            return None
        gaps = gap(group, 0, place[0])
        test = below if below_tolerance else above
        return Found(_left(group, place[0]), test(gaps, group.tolerance)) if len(gaps) else None

    return find


def rewinding_makes_match(group: ResultGroup) -> Found | None:
    """Rewinding to a small k makes a subnetwork match that rewound to 0 does not."""
    if (place := _place(group)) is None:
        return None
    level, steps = place
    k = small_step(group, steps)
    if k is None or 0 not in steps:
        return None
    at_0, at_k = (gap(group, step, level) for step in (0, k))
    lost = (at_0 - at_k).dropna()
    if lost.empty:
        return None
    parts = [
        above(lost, 0.0).named("gap(0) - gap(k):"),
        above(at_0, group.tolerance).named("gap(0):"),
        below(at_k, group.tolerance).named("gap(k):"),
    ]
    return Found(_left(group, level, f"k = {k} against 0"), all_of(parts))


def to_pruning(group: ResultGroup, kind: Kind, k: int, level: int) -> pd.Series:
    """Stability to pruning by seed, on data orders other than the one that made the mask (sample 0 of older rows)."""
    rows = group.rows(m.PRUNING, kind=kind, rewind_step=k, level=level)
    return rows[rows["sample"] > 0].groupby(REPLICATE)["value"].mean()


def to_order(group: ResultGroup, kind: Kind, k: int, level: int) -> pd.Series:
    """Stability to data order by seed."""
    return group.values(m.DATA_ORDER, kind=kind, rewind_step=k, level=level)


DISTANCES: tuple[tuple[Measure, Callable[[ResultGroup, Kind, int, int], pd.Series]], ...] = (
    (m.DATA_ORDER, to_order),
    (m.PRUNING, to_pruning),
)


def stability_improves(group: ResultGroup) -> Found | None:
    """L2 distances at a small rewind step over those at 0, both measures."""
    if (place := _place(group)) is None:
        return None
    level, steps = place
    if (k := small_step(group, steps)) is None:
        return None
    parts = []
    for measure, values in DISTANCES:
        ratio = (values(group, IMP, k, level) / values(group, IMP, 0, level)).dropna()
        if ratio.empty:
            return None
        parts.append(below(ratio, 1.0).named(f"{measure.name}:"))
    return Found(_left(group, level, f"k = {k} against 0"), all_of(parts))


def more_stable_than_random(group: ResultGroup) -> Found | None:
    """Wherever IMP is shown to match: distance of random masks over that of IMP, both measures."""
    rows = group.frame[group.frame["measure"].isin([m.DATA_ORDER.name]) & (group.frame["kind"] == RANDOM)]
    parts, places = [], []
    for k, level in rows.groupby(["rewind_step", "level"]).groups:
        if not below(gap(group, k, level), group.tolerance).decided:
            continue
        for measure, values in DISTANCES:
            ratio = (values(group, RANDOM, k, level) / values(group, IMP, k, level)).dropna()
            if len(ratio):
                parts.append(below(ratio, 1.0).named(f"k = {k}, {measure.name}:"))
                places.append(level)
    if not parts:
        return None
    return Found(", ".join(_left(group, level) for level in sorted(set(places))), all_of([~part for part in parts]))


def barrier_of(group: ResultGroup) -> Measure:
    """The barrier that decides: BatchNorm's statistics re-estimated, where there are any."""
    return RECOMPUTED_TEST_BARRIER if len(group.rows(RECOMPUTED_TEST_BARRIER)) else TEST_BARRIER


def matching_exactly_when_stable(group: ResultGroup) -> Found | None:
    """Points (kind, rewind step, level): is the subnetwork connected to its copy where it matches?"""
    rows = group.rows(measure := barrier_of(group))
    points: dict[tuple[str, int, int], Point] = {}
    for kind, k, level in rows[rows["level"] > 0].groupby(["kind", "rewind_step", "level"]).groups:
        at = {"kind": kind, "rewind_step": k, "level": level}
        gaps = gap(group, k, level, kind)
        if len(gaps):
            points[kind, k, level] = Point(
                _left(group, level, kind, f"k = {k}"),
                below(group.values(measure, **at), 2 * group.tolerance).named("barrier"),
                below(gaps, group.tolerance).named("gap"),
            )
    if not points:
        return None
    imp = rows[rows["kind"] == IMP]
    level = level_at(group, density_of(group), imp)
    k = small_step(group, imp[imp["level"] == level]["rewind_step"].unique())
    both = (points.get((IMP, step, level)) if step is not None and level is not None else None for step in (k, 0))
    beside = {
        k: found.mean()
        for k in sorted({k for kind, k, at in points if kind == IMP and at == level})
        if len(found := group.values(TEST_BARRIER, kind=IMP, rewind_step=k, level=level))
    }
    shown = ", ".join(f"{value:.3g} at k = {k}" for k, value in beside.items())
    note = f"(IMP's interpolated barriers, {STABLE:g} points in LMC: {shown})" if shown else ""
    return Found("" if level is None else _left(group, level), exactly_when(list(points.values()), *both), note)


def late_rewinding_hurts(group: ResultGroup) -> Found | None:
    """Error at the last rewind step above that at a small one."""
    if (place := _place(group)) is None:
        return None
    level, steps = place
    k, late = small_step(group, steps), max(steps)
    if k is None or late < LATE * group.facts["iterations"]:
        return None
    difference = (gap(group, late, level) - gap(group, k, level)).dropna()
    return Found(_left(group, level, f"k = {late} against {k}"), above(difference, 0.0)) if len(difference) else None


def stable_from_start(group: ResultGroup) -> Found | None:
    """Barrier of the dense network at k = 0."""
    barriers = dense_barrier(group, 0)
    return Found("", below(barriers, STABLE)) if len(barriers) else None


def stable_later(group: ResultGroup) -> Found | None:
    """Barrier of the dense network: unstable at 0, stable at the last step before half of training."""
    steps = [k for k in group.rewind_steps(TEST_BARRIER, kind=DENSE) if k < LATE * group.facts["iterations"]]
    if len(steps) < 2 or steps[0]:
        return None
    parts = [
        above(dense_barrier(group, 0), STABLE).named("at 0:"),
        below(dense_barrier(group, steps[-1]), STABLE).named(f"at {steps[-1]}:"),
    ]
    recomputed = [
        f"{group.values(RECOMPUTED_TEST_BARRIER, kind=DENSE, rewind_step=k).mean():.3g} at {k}"
        for k in (0, steps[-1])
        if len(group.rows(RECOMPUTED_TEST_BARRIER, kind=DENSE, rewind_step=k))
    ]
    note = f"(statistics re-estimated: {', '.join(recomputed)})" if recomputed else ""
    return Found("", all_of(parts), note)


def mask_and_weights_matter(group: ResultGroup) -> Found | None:
    """Both controls are worse than IMP, which matches; where it is shown to fail there is no ticket to speak of."""
    if (place := _place(group)) is None:
        return None
    level, steps = place
    if (k := ticket_step(group, steps)) is None:
        return None
    ours = gap(group, k, level)
    parts = [(matches := below(ours, group.tolerance)).named("gap of IMP:")]
    for kind, name in ((RANDOM, "random mask"), (REINIT, "new initialisation")):
        worse = (gap(group, k, level, kind) - ours).dropna()
        if worse.empty:
            return None
        parts.append(above(worse, 0.0).named(f"{name} worse by"))
    where = _left(group, level, f"k = {k}")
    if matches.decided is False:
        return Found(where, None, f"no ticket here: {parts[0].figure}")
    return Found(where, all_of(parts))


def iteration_beats_one_shot(group: ResultGroup) -> Found | None:
    """At one density and rewind step: one-shot error above iterative error."""
    if (place := _place(group, ONE_SHOT)) is None:
        return None
    level, steps = place
    if (k := ticket_step(group, steps)) is None:
        return None
    iterative = pd.concat([gap(group, k, level, m.ITERATIVE), gap(group, k, level)])
    difference = (gap(group, k, level, ONE_SHOT) - iterative[~iterative.index.duplicated()]).dropna()
    return Found(_left(group, level, f"k = {k}"), above(difference, 0.0)) if len(difference) else None


def rewinding_beats_finetuning(group: ResultGroup) -> Found | None:
    """At the sparsest level: fine-tuning's error above that of both kinds of rewinding."""
    rows = _errors(group, m.FINE_TUNING)
    rows = rows[rows["level"] > 0]
    if rows.empty:
        return None
    level, k = int(rows["level"].max()), int(rows["rewind_step"].min())
    tuned = gap(group, k, level, m.FINE_TUNING)
    parts = []
    for kind in (m.WEIGHT_REWINDING, m.LR_REWINDING):
        if gap(group, k, level, kind).equals(tuned):
            note = "the learning rate never falls, so fine-tuning is learning-rate rewinding"
            return Found(_left(group, level, f"k = {k}"), None, note)
        difference = (tuned - gap(group, k, level, kind)).dropna()
        if difference.empty:
            return None
        parts.append(above(difference, 0.0).named(f"against {kind}:"))
    return Found(_left(group, level, f"k = {k}"), all_of(parts))


def imagenet_one_shot(group: ResultGroup) -> Found | None:
    """One-shot at a late rewind step on ImageNet: error above dense."""
    rows = _errors(group, ONE_SHOT)
    parts: list[Evidence] = []
    for k, level in rows.groupby(["rewind_step", "level"]).groups:
        gaps = gap(group, k, level, ONE_SHOT)
        if len(gaps):
            parts.append(below(gaps, group.tolerance).named(f"{_left(group, level)}, k = {k}:"))
    return Found("", all_of(parts)) if parts else None


# --- scopes: rows of the papers by their recipes ---------------------------------------------------------


def _model(*beginnings: str) -> Callable[[ResultGroup, Groups], bool]:
    return lambda group, groups: str(group.recipe["model"]).startswith(beginnings)


def _standard_residual(group: ResultGroup, groups: Groups) -> bool:
    return _model("resnet")(group, groups) and is_standard(group, groups)


perceptron = _model("lenet", "mlp")
"""LeNet is a perceptron; so is anything that its claim to be stable from the start can be asked of."""
on_imagenet = _model("torchvision")

_RUN = "lotto run stabilizing."
_MAIN = " resnet20-mnist1d --levels 7"
_GAP = "error minus that of the dense network of the same seed"
CLAIMS = (
    Claim(
        1, "IMP from k = 0 finds winning tickets where the dense network is stable from the start (LeNet).",
        "STAB, figure 3", f"{_GAP} at k = 0, below the tolerance",
        "98.3 % against 98.0 ± 0.2 % accuracy at 10.7 %", _RUN + "distances lenet-mnist-sgd",
        wins_from_start(True), (STABLE_AT_0, CONVERGED),
    ),
    Claim(
        2, "IMP from k = 0 finds none at the standard rate (ResNet-20).", "STAB, figure 3",
        f"{_GAP} at k = 0, above the tolerance",
        "87.7 % against 90.5 % accuracy at 16.7 %", _RUN + "rewind" + _MAIN + " --rewind-to 0it,50it",
        wins_from_start(False), (UNSTABLE_AT_0, CONVERGED), is_standard,
    ),
    Claim(
        3, "At a low rate or with warm-up it does.", "STAB, figure 3", f"{_GAP} at k = 0, below the tolerance",
        "low 89.1 against 89.1 %, warm-up 90.3 against 89.6 %",
        _RUN + "rewind resnet20-mnist1d-low --levels 7 --rewind-to 0it",
        wins_from_start(True), (STANDARD_UNSTABLE, CONVERGED), is_gentle,
    ),
    Claim(
        4, "Rewinding to a small k > 0 makes subnetworks match that do not match at 0.", "STAB, figures 4 and 5",
        f"gap(0) - gap(k) above 0, gap(0) above and gap(k) below the tolerance; k the first from {SMALL:.0%} of it",
        "matches from iteration 500 of 30,000", _RUN + "rewind" + _MAIN + " --rewind-to 0it,50it",
        rewinding_makes_match, (UNSTABLE_AT_0, CONVERGED), is_standard,
    ),
    Claim(
        5, "Stability to pruning and to data order improves with k for IMP.", "STAB, figure 4",
        f"L2 distances at the first k from {SMALL:.0%} of training over those at 0, both measures below 1",
        "falls over the first 500 iterations", _RUN + "rewind" + _MAIN + " --rewind-to 0it,50it",
        stability_improves, (UNSTABLE_AT_0, CONVERGED), is_standard,
    ),
    Claim(
        6, "Where IMP subnetworks match they are more stable than random masks.", "STAB, figures 3 and 4",
        "L2 distance of random masks over that of IMP, both measures above 1 wherever IMP matches",
        "LeNet at 10.7 %: data order 2.8, pruning 1.6", _RUN + "rewind" + _MAIN + " --rewind-to 0it,50it",
        more_stable_than_random, (CONVERGED,),
    ),
    Claim(
        7, "Subnetworks match exactly when they are stable.", "LMC, figure 5",
        "barrier of two copies, statistics re-estimated, below twice the tolerance; gap below the tolerance: IMP at "
        f"the first k from {SMALL:.0%} of training both, at 0 neither, and no other point one without the other",
        "all but the densest ones", _RUN + "subnetworks" + _MAIN + " --rewind-to 0it,50it",
        matching_exactly_when_stable, (UNSTABLE_AT_0, CONVERGED),
    ),
    Claim(
        8, "Very late rewinding hurts.", "STAB, figure 4",
        f"error at the last k ≥ {LATE:.0%} of training minus that at the first from {SMALL:.0%}, above 0",
        "accuracy falls when too little training is left", _RUN + "rewind" + _MAIN + " --rewind-to 0it,50it,900it",
        late_rewinding_hurts, (CONVERGED,),
    ),
    Claim(
        9, "Dense LeNet is stable from initialisation.", "LMC, figure 3",
        f"test error barrier at k = 0, below {STABLE:g} points", "stable at 0",
        _RUN + "instability lenet-mnist-sgd --rewind-to 0it", stable_from_start, (CONVERGED,), perceptron,
    ),
    Claim(
        10, "Dense ResNet-20 is stable only after some steps.", "LMC, figure 3",
        f"test error barrier above {STABLE:g} points at 0, below at the last k before {LATE:.0%} of training",
        "stable from iteration 2000 (3 %)", _RUN + "instability resnet20-mnist1d", stable_later, (CONVERGED,),
        _standard_residual,
    ),
    Claim(
        11, "Winning tickets need their mask and their weights.", "STAB, figures 3 and 5; LTH",
        "where IMP is not shown to fail: it matches, and random mask and new initialisation err more; k = 0 where "
        f"the dense network is stable there, else the first k from {SMALL:.0%} of training",
        "LeNet at 10.7 %: random mask 97.5 against 98.3 %", _RUN + "sparsity" + _MAIN + " --rewind-to 0it,50it",
        mask_and_weights_matter, (CONVERGED,),
    ),
    Claim(
        12, "Iterative pruning finds better subnetworks than one-shot pruning.", "LTH; STAB, figures 6 and 7",
        "one-shot error minus iterative error at the same density and k (as of claim 11), above 0",
        "ResNet-50 matches at 30 % one-shot, at 20 % iteratively", _RUN + "oneshot" + _MAIN + " --rewind-to 0it,50it",
        iteration_beats_one_shot, (CONVERGED,),
    ),
    Claim(
        13, "Rewinding weights or learning rate beats fine-tuning.", "Renda et al., figure 1",
        "fine-tuning's error minus that of either rewinding, equally long, at the last level, both above 0",
        "both outperform fine-tuning", _RUN + "retraining" + _MAIN, rewinding_beats_finetuning, (CONVERGED,),
    ),
    Claim(
        14, "On ImageNet one-shot pruning with late rewinding matches.", "STAB, figures 6 and 7",
        f"one-shot {_GAP}, below the tolerance",
        "ResNet-50 30 % (epoch 4–6 of 90), Inception-v3 30 % (6 of 171), SqueezeNet 50 % (10 of 150)",
        _RUN + "oneshot resnet50-imagenet", imagenet_one_shot, (CONVERGED,), on_imagenet,
    ),
)  # fmt: skip
