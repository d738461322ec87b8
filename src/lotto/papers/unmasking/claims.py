"""The claims of *Unmasking the Lottery Ticket Hypothesis*, decided from the rows of the experiments in `unmasking`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import pandas as pd

from lotto.experiments.claims import Claim, Finding, Verdict, decide, finding_of, gap, values
from lotto.experiments.results import Setting
from lotto.landscape.stability import STABLE

NO_BARRIER = 0.5
"""A barrier above the line between both ends below so many points, or the recipe's tolerance if that is larger, counts
as none: evaluation noise is about 0.1 on 10,000 examples."""
SPARSE = 0.6
"""Levels denser than this are left out, as the paper leaves out the first ones: there random masks match too."""
FACTOR = 2.0
"""The theory predicts a share when it is within this factor of what was measured."""


def _steps(setting: Setting, measure: str) -> list[int]:
    rows = setting.frame[setting.frame["measure"] == measure]
    return sorted(int(k) for k in rows["rewind_step"].unique())


def _tolerance(setting: Setting) -> float:
    return float(setting.recipe.get("tolerance", 0.2))


def _least_barrier(setting: Setting) -> float:
    return max(NO_BARRIER, _tolerance(setting))


def _agreement(where: str, points: Sequence[tuple[Verdict, Verdict]]) -> list[Finding]:
    """Whether two verdicts agree at all points where both are decided; both kinds of points are needed."""
    decided = [(a, b) for a, b in points if Verdict.UNDECIDED not in (a, b)]
    agree = [a == b for a, b in decided]
    note = f"{sum(agree)} of {len(agree)} decided points agree ({len(points)} points)"
    if not points:
        return []
    if not all(agree):
        return [Finding(where, (), Verdict.CONTRADICTED, note)]
    if len({a for a, _ in decided}) < 2:
        return [Finding(where, (), Verdict.UNDECIDED, f"{note}; points of both kinds are needed")]
    return [Finding(where, (), Verdict.SUPPORTED, note)]


def connected_where_matching(settings: Sequence[Setting]) -> list[Finding]:
    """Barrier to the next level below `NO_BARRIER`, and the next level's error within the tolerance."""
    found = []
    for setting in settings:
        points = []
        rows = setting.frame[(setting.frame["measure"] == "barrier") & (setting.frame["kind"] == "imp")]
        rows = rows[rows["density"] <= SPARSE] if "x" in rows else rows.iloc[:0]
        for (k, level), part in rows[rows.get("x", 0) == rows["level"] + 1].groupby(["rewind_step", "level"]):
            connected = decide(list(part["value"]), _least_barrier(setting), below=True)
            points.append((connected, decide(list(gap(setting, k, level + 1)), _tolerance(setting), below=True)))
        found += _agreement(setting.title, points)
    return found


def distant_levels_need_not_connect(settings: Sequence[Setting]) -> list[Finding]:
    """Among levels that are connected one by one: the barrier between the first and last minus the largest step's."""
    found = []
    for setting in settings:
        for k in _steps(setting, "error between"):
            rows = setting.frame
            rows = rows[(rows["measure"] == "barrier") & (rows["rewind_step"] == k) & (rows["kind"] == "imp")]
            steps = rows[rows["x"] == rows["level"] + 1].groupby("level")["value"].mean()
            last = 0
            while last in steps.index and steps[last] < _least_barrier(setting):
                last += 1
            if last < 2:
                continue
            far = values(setting, measure="barrier", rewind_step=k, level=0, x=last, kind="imp")
            near = rows[(rows["x"] == rows["level"] + 1) & (rows["level"] < last)].groupby("replicate")["value"].max()
            found += finding_of(f"{setting.title}, k = {k}, levels 0 and {last}", (far - near).dropna(), 0.0, False)
    return found


def robust_where_matching(settings: Sequence[Setting]) -> list[Finding]:
    """Barrier after a perturbation of the successive distance below `STABLE`, and the level within the tolerance."""
    found = []
    for setting in settings:
        points = []
        rows = setting.frame
        rows = rows[(rows["measure"] == "error after training") & (rows["kind"] == "perturbed")]
        for k, level in sorted(set(zip(rows["rewind_step"].astype(int), rows["level"].astype(int), strict=True))):
            barrier = values(setting, measure="barrier", kind="perturbed", rewind_step=k, level=level, x=1.0)
            points.append(
                (
                    decide(list(barrier), STABLE, below=True),
                    decide(list(gap(setting, k, level)), _tolerance(setting), below=True),
                )
            )
        found += _agreement(setting.title, points)
    return found


def _limits(settings: Sequence[Setting]) -> Iterator[tuple[Setting, int, int, str]]:
    for setting in settings:
        rows = setting.frame[setting.frame["measure"] == "largest share, theory"]
        for (k, level), part in rows.groupby(["rewind_step", "level"]):
            where = f"{setting.title}, {100 * part['density'].mean():.3g} % left, k = {k}"
            yield setting, int(k), int(level), where


def _share(setting: Setting, k: int, level: int, kind: str, how: str) -> pd.Series:
    return values(setting, measure=f"largest share, {how}", kind=kind, rewind_step=k, level=level)


def theory_predicts_random(settings: Sequence[Setting]) -> list[Finding]:
    """|log2| of the predicted over the measured share, for random pruning."""
    found = []
    for setting, k, level, where in _limits(settings):
        theory, measured = (_share(setting, k, level, "random", how) for how in ("theory", "subspace"))
        away = (theory.clip(lower=1e-3) / measured.clip(lower=1e-3)).map(math.log2).abs()
        found += finding_of(where, away.dropna(), math.log2(FACTOR), True)
    return found


def magnitude_allows_more(settings: Sequence[Setting]) -> list[Finding]:
    """Measured share of magnitude pruning minus that of random pruning."""
    found = []
    for setting, k, level, where in _limits(settings):
        magnitude, random = (_share(setting, k, level, kind, "subspace") for kind in ("magnitude", "random"))
        found += finding_of(where, (magnitude - random).dropna(), 0.0, False)
    return found


def flatter_allows_more(settings: Sequence[Setting]) -> list[Finding]:
    """Rank correlation over levels of the trace per weight with the measured share of random pruning."""
    found = []
    for setting in settings:
        for k in _steps(setting, "trace"):
            rows = setting.frame[setting.frame["rewind_step"] == k]
            sharp = rows[rows["measure"] == "trace"].assign(value=lambda r: r["value"] / r["density"])
            share = rows[(rows["measure"] == "largest share, subspace") & (rows["kind"] == "random")]
            both = [f.pivot_table(index="replicate", columns="level", values="value") for f in (sharp, share)]
            if both[0].shape[1] < 3:
                continue
            each = both[0].rank(axis=1).corrwith(both[1].rank(axis=1), axis=1).dropna()
            found += finding_of(f"{setting.title}, k = {k}", each, 0.0, True)
    return found


def retraining_restores_small_weights(settings: Sequence[Setting]) -> list[Finding]:
    """Length of the next projection with retraining over that without, mean over levels after the first."""
    found = []
    for setting in settings:
        rows = setting.frame[(setting.frame["measure"] == "projection length") & (setting.frame["level"] > 0)]
        for k, part in rows[rows["kind"] == "without retraining"].groupby("rewind_step"):
            index = ["replicate", "level"]
            retrained = rows[(rows["kind"] == "imp") & (rows["rewind_step"] == k)].groupby(index)["value"].mean()
            ratio = (retrained / part.groupby(index)["value"].mean()).dropna().groupby("replicate").mean()
            found += finding_of(f"{setting.title}, k = {k}", ratio, 1.0, True)
    return found


def one_shot_fails(settings: Sequence[Setting]) -> list[Finding]:
    """Error of one cut to the last level's density minus that of IMP there."""
    found = []
    for setting in settings:
        rows = setting.frame[(setting.frame["kind"] == "one-shot") & (setting.frame["measure"] == "error")]
        for (k, level), part in rows.groupby(["rewind_step", "level"]):
            difference = (gap(setting, k, level, "one-shot") - gap(setting, k, level)).dropna()
            where = f"{setting.title}, {100 * part['density'].mean():.3g} % left, k = {k}"
            found += finding_of(where, difference, 0.0, False)
    return found


def adaptive_needs_fewer_trainings(settings: Sequence[Setting]) -> list[Finding]:
    """Trainings with adaptive shares over those with the fixed share to the same density."""
    found = []
    for setting in settings:
        for k in _steps(setting, "trainings"):
            about = {"measure": "trainings", "rewind_step": k}
            ratio = values(setting, kind="adaptive", **about) / values(setting, kind="imp", **about)
            reached = values(setting, measure="density reached", rewind_step=k).mean()
            found += finding_of(f"{setting.title}, {100 * reached:.3g} % left, k = {k}", ratio.dropna(), 1.0, True)
    return found


_RUN = "lotto run unmasking."
_ROWS: tuple[tuple[str, str, str, str, str, Callable[[Sequence[Setting]], list[Finding]]], ...] = (
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
