"""The claims of *Unmasking the Lottery Ticket Hypothesis*, decided from the rows of the experiments in `unmasking`.

A path is *connected* where the one-sided 95 % upper bound of its barrier, BatchNorm's statistics re-estimated, is below
twice the tolerance; the interpolated barrier stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable

import pandas as pd

from lotto.experiments.claims import SMALL, Claim, Find, Found, gap, small_step
from lotto.experiments.conditions import CONVERGED, UNSTABLE_AT_0, Condition
from lotto.experiments.evidence import Evidence, Point, above, all_of, below, between, exactly_when
from lotto.experiments.measures import BARRIER, ERROR, IMP, ONE_SHOT, RANDOM, WITHOUT_RETRAINING, Kind, Measure
from lotto.experiments.results import REPLICATE, ResultGroup, of_one_setting
from lotto.landscape.stability import STABLE
from lotto.papers.unmasking import measures as m

SPARSE = 0.6
"""Levels denser than this are left out, as the paper leaves out the first ones: there random masks match too."""
CLOSE = 0.1
"""The theory predicts a fraction when it is no farther than this from what was measured."""
LEVELS = 8
"""So many levels at least for a relation over levels."""


def barriers(group: ResultGroup, kind: Kind = IMP) -> Measure:
    """The barrier that decides: statistics re-estimated, where the model has any."""
    return m.RECOMPUTED_BARRIER if len(group.rows(m.RECOMPUTED_BARRIER, kind=kind)) else BARRIER


def _successive(group: ResultGroup, measure: Measure) -> pd.DataFrame:
    """Rows of barriers from a level to the next."""
    rows = group.rows(measure, kind=IMP)
    return rows[rows["x"] == rows["level"] + 1] if "x" in rows else rows.iloc[:0]


def _by_seed(rows: pd.DataFrame) -> pd.Series:
    return of_one_setting(rows).groupby(REPLICATE)["value"].mean()


def _random_matches(group: ResultGroup, k: int, level: int) -> bool:
    """Whether random masks match at a level, as far as it is known."""
    random = gap(group, k, level, RANDOM)
    return len(random) > 0 and random.mean() < group.tolerance


def connected_where_matching(group: ResultGroup) -> Found | None:
    """At higher sparsities: is a level connected to the next exactly where the next matches?

    The two points that are fixed beforehand are the sparsest common level of the first rewind step from `SMALL` of
    training on, and of step 0, where random masks do not match; of those with the most replicates.
    """
    rows = _successive(group, barriers(group))
    beside = _successive(group, BARRIER)
    points: dict[tuple[int, int], Point] = {}
    for (k, level), part in rows[rows["density"] <= SPARSE].groupby(["rewind_step", "level"]):
        gaps = gap(group, k, level + 1)
        if gaps.empty or _random_matches(group, k, level + 1):
            continue
        interpolated = _by_seed(beside[(beside["rewind_step"] == k) & (beside["level"] == level)]).mean()
        points[k, level] = Point(
            f"k = {k}, levels {level}–{level + 1}",
            below(_by_seed(part), 2 * group.tolerance).named(f"barrier (interpolated {interpolated:.3g})"),
            below(gaps, group.tolerance).named("gap"),
        )
    if not points:
        return None
    k = small_step(group, sorted({step for step, _ in points}))
    common = [level for step, level in points if step == 0 and (k, level) in points] if k is not None else []
    counts = {level: min(points[step, level].one.n for step in (k, 0) if step is not None) for level in common}
    common = [level for level in common if counts[level] == max(counts.values())]
    both = (points.get((step, max(common))) if common and step is not None else None for step in (k, 0))
    return Found("", exactly_when(list(points.values()), *both))


def distant_levels_need_not_connect(group: ResultGroup) -> Found | None:
    """Of a chain whose neighbours are shown to be connected: are its ends not?

    The chain is followed from the dense network to the first pair that is not shown to be connected, which needs no
    correction (a fixed sequence). That something *need not* be is shown by one case and refuted by none.
    """
    measure, parts, places = barriers(group), [], []
    rows = group.rows(measure, kind=IMP)
    for k in sorted(rows["rewind_step"].unique()):
        here = rows[rows["rewind_step"] == k]
        last = 0
        while len(step := here[(here["level"] == last) & (here.get("x", 0) == last + 1)]):
            if not below(_by_seed(step), 2 * group.tolerance).decided:
                break
            last += 1
        ends = here[(here["level"] == 0) & (here.get("x", 0) == last)]
        if last >= 2 and len(ends):
            parts.append(above(_by_seed(ends), 2 * group.tolerance).named(f"k = {k}, levels 0 and {last}:"))
            places.append(k)
    if not parts:
        return None
    best = min(part.holds for part in parts) * len(parts)
    figure = "; ".join(part.figure for part in parts)
    return Found("", Evidence(min(1.0, best), 1.0, figure, min(part.n for part in parts)))


def robust_where_matching(group: ResultGroup) -> Found | None:
    """Wherever a level is shown to match: a move of the successive distance leads to the same connected region.

    Of a level that does not match nothing is claimed.
    """
    measure, parts = barriers(group, m.PERTURBED), []
    for k, level in group.rows(m.ERROR_AFTER_TRAINING, kind=m.PERTURBED).groupby(["rewind_step", "level"]).groups:
        at = {"kind": m.PERTURBED, "rewind_step": k, "level": level, "x": 1.0}
        barrier = group.values(measure, **at)
        if len(barrier) and below(gap(group, k, level), group.tolerance).decided:
            interpolated = group.values(BARRIER, **at).mean()
            name = f"k = {k}, level {level}: barrier (interpolated {interpolated:.3g})"
            parts.append(below(barrier, 2 * group.tolerance).named(name))
    if len(group.rows(measure, kind=m.PERTURBED)) and not parts:
        return Found("", None, "no level is shown to match")
    return Found("", all_of(parts)) if parts else None


# --- how much can be pruned at once -----------------------------------------------------------------------


def _at_all_levels(test: Callable[[ResultGroup, int, int], Evidence | None]) -> Find:
    """The statement at every level and rewind step whose largest fraction was measured."""

    def find(group: ResultGroup) -> Found | None:
        places = group.rows(m.LARGEST_FRACTION[m.SUBSPACE]).groupby(["rewind_step", "level"]).groups
        parts = [
            part.named(f"k = {k}, level {level}:")
            for k, level in places
            if (part := test(group, int(k), int(level))) is not None
        ]
        return Found("", all_of(parts)) if parts else None

    return find


def _largest(group: ResultGroup, k: int, level: int, kind: Kind, how: str = m.SUBSPACE) -> pd.Series:
    return group.values(m.LARGEST_FRACTION[how], kind=kind, rewind_step=k, level=level)


def theory_predicts(group: ResultGroup) -> Found | None:
    """The predicted minus the measured largest fraction of random pruning, within `CLOSE` of 0 at every level.

    By UNM's own reading of the formula; the corrected one stands beside it. A level whose spectrum has not converged
    predicts nothing, and then nothing is said about all levels.
    """
    parts, missing = [], []
    for k, level in group.rows(m.LARGEST_FRACTION[m.SUBSPACE], kind=RANDOM).groupby(["rewind_step", "level"]).groups:
        published, corrected = (
            (_largest(group, k, level, RANDOM, how) - _largest(group, k, level, RANDOM)).dropna()
            for how in m.THEORIES.values()
        )
        if published.empty:
            missing.append(f"k = {k}, level {level}")
            continue
        beside = f" (corrected {corrected.mean():.3g})" if len(corrected) else ""
        parts.append(between(published, -CLOSE, CLOSE).named(f"k = {k}, level {level}{beside}:"))
    if missing:
        return Found("", None, f"no converged prediction at {'; '.join(missing)}")
    return Found("", all_of(parts)) if parts else None


def magnitude_allows_more(group: ResultGroup, k: int, level: int) -> Evidence | None:
    """The measured fraction of magnitude pruning minus that of random pruning."""
    more = (_largest(group, k, level, m.MAGNITUDE) - _largest(group, k, level, RANDOM)).dropna()
    return above(more, 0.0) if len(more) else None


def flatter_allows_more(group: ResultGroup) -> Found | None:
    """Rank correlation over levels of ``trace(H) |w|^2 / D`` with the largest fraction of random pruning.

    The trace per weight, of the first results, says how sparse a level is, and so does the fraction.
    """
    parts = []
    for k in group.rewind_steps(m.SHARPNESS):
        tables = (group.rows(m.SHARPNESS, rewind_step=k), group.rows(m.HALVED_FRACTION, rewind_step=k, kind=RANDOM))
        both = [of_one_setting(f).pivot_table(index=REPLICATE, columns="level", values="value") for f in tables]
        if (count := len(both[0].columns.intersection(both[1].columns))) < LEVELS:
            return Found(f"k = {k}", None, f"{count} levels, of the {LEVELS} that a relation over levels needs")
        each = both[0].rank(axis=1).corrwith(both[1].rank(axis=1), axis=1).dropna()
        if len(each):
            parts.append(below(each, 0.0).named(f"k = {k}:"))
    return Found("", all_of(parts)) if parts else None


def magnitude_finds_flatter(group: ResultGroup) -> Found | None:
    """Curvature of what magnitude prunes over that of as many random weights, mean over levels.

    Both along the displacement and on average over the pruned weights.
    """
    parts = []
    for measure in (m.ALONG, m.BLOCK):
        for k in group.rewind_steps(measure, kind=m.MAGNITUDE):
            by_level = [
                group.rows(measure, rewind_step=k, kind=kind).groupby([*REPLICATE, "level"])["value"].mean()
                for kind in (m.MAGNITUDE, RANDOM)
            ]
            ratio = (by_level[0] / by_level[1].where(by_level[1] > 0)).dropna().groupby(REPLICATE).mean()
            if len(ratio):
                parts.append(below(ratio, 1.0).named(f"k = {k}, {measure.name}:"))
    return Found("", all_of(parts)) if parts else None


def member_where_matching(group: ResultGroup) -> Found | None:
    """At higher sparsities, wherever a level is shown to match: the line to its subspace does not rise.

    One direction: of levels that do not match it is only said how many of their subspaces are reached all the same,
    for a subspace that SGD does not find its way into helps nobody.
    """
    again = m.RECOMPUTED_ERROR_RISE_TO_SUBSPACE
    measure = again if len(group.rows(again, kind=IMP)) else m.ERROR_RISE_TO_SUBSPACE
    rows, parts, failing, reached = group.rows(measure, kind=IMP), [], 0, 0
    for k, level in rows[rows["density"] <= SPARSE].groupby(["rewind_step", "level"]).groups:
        rise = below(group.values(measure, kind=IMP, rewind_step=k, level=level), 2 * group.tolerance)
        matches = below(gap(group, k, level), group.tolerance).decided
        if matches and not _random_matches(group, k, level):
            parts.append(rise.named(f"k = {k}, level {level}: rise"))
        elif matches is False:
            failing, reached = failing + 1, reached + (rise.decided is True)
    note = f"of {failing} levels that fail {reached} are reached too" if failing else ""
    return Found("", all_of(parts), note) if parts else None


# --- retraining -------------------------------------------------------------------------------------------


def retraining_restores_small_weights(group: ResultGroup) -> Found | None:
    """Length of the next projection with retraining over that without, mean over levels after the first."""
    rows = group.rows(m.PROJECTION_LENGTH)
    rows, index, parts = rows[rows["level"] > 0], [*REPLICATE, "level"], []
    for k, part in rows[rows["kind"] == WITHOUT_RETRAINING].groupby("rewind_step"):
        retrained = rows[(rows["kind"] == IMP) & (rows["rewind_step"] == k)].groupby(index)["value"].mean()
        ratio = (retrained / part.groupby(index)["value"].mean()).dropna().groupby(REPLICATE).mean()
        if len(ratio):
            parts.append(below(ratio, 1.0).named(f"k = {k}:"))
    return Found("", all_of(parts)) if parts else None


def one_shot_fails(group: ResultGroup) -> Found | None:
    """Wherever IMP is shown to match at the last level: error of one cut to that density minus IMP's.

    Of a rewind step from which iteration does not succeed nothing is claimed.
    """
    parts, rows = [], group.rows(ERROR, kind=ONE_SHOT)
    for (k, level), part in rows[rows["level"] == rows["level"].max()].groupby(["rewind_step", "level"]):
        difference = (gap(group, k, level, ONE_SHOT) - gap(group, k, level)).dropna()
        if len(difference) and below(gap(group, k, level), group.tolerance).decided:
            left = f"{100 * part['density'].mean():.3g} % left"
            parts.append(above(difference, 0.0).named(f"k = {k}, {left}:"))
    if len(rows) and not parts:
        return Found("", None, "no last level is shown to match")
    return Found("", all_of(parts)) if parts else None


def adaptive_needs_fewer_trainings(group: ResultGroup) -> Found | None:
    """Trainings with adaptive fractions over those with the fixed fraction to the same density."""
    parts = []
    for k in group.rewind_steps(m.TRAININGS):
        counts = [group.values(m.TRAININGS, rewind_step=k, kind=kind) for kind in (m.ADAPTIVE, IMP)]
        reached = group.values(m.DENSITY_REACHED, rewind_step=k).mean()
        fewer = (counts[0] / counts[1]).dropna()
        if len(fewer):
            parts.append(below(fewer, 1.0).named(f"k = {k}, {100 * reached:.3g} % left:"))
    return Found("", all_of(parts)) if parts else None


_BOTH = (UNSTABLE_AT_0, CONVERGED)
_LIMIT = "pruning_limit"
_ROWS: tuple[tuple[str, str, str, str, str, Find, tuple[Condition, ...]], ...] = (
    (
        "At higher sparsities successive levels are linearly connected exactly where they match.",
        "UNM, section 3.1 and figure 2",
        f"below {SPARSE:.0%}, where random masks do not match: barrier to the next level, statistics re-estimated, "
        "below twice the tolerance; its gap below the tolerance: at the sparsest level of most replicates, the first k "
        f"from {SMALL:.0%} of training both, 0 neither, and no other pair one without the other",
        "no barrier where matching, rewound to 1000; 86–90 % error between levels rewound to 0", "connectivity",
        connected_where_matching, _BOTH,
    ),
    (
        "Neighbouring levels are connected though distant ones need not be.", "UNM, section 3.1 and figure 2",
        "of a chain whose neighbours' barriers are below twice the tolerance: barrier between its ends, above that",
        "piecewise linear", "connectivity", distant_levels_need_not_connect, (CONVERGED,),
    ),
    (
        "At rewind points that give matching tickets SGD is robust to moves as long as the step between levels.",
        "UNM, section 3.2 and figure 4",
        f"wherever a level matches: barrier after a move of that length, statistics re-estimated, below twice the "
        f"tolerance (interpolated and {STABLE:g} points beside it)",
        "any two networks so far apart train into one linearly connected mode", "robustness",
        robust_where_matching, _BOTH,
    ),
    (
        "Theory predicts how much random pruning leaves in the sublevel set.", "UNM, section 3.3 and figure 5",
        f"predicted (UNM's reading of R) minus measured largest share, within {CLOSE:g} of 0 at all levels",
        "quantitative agreement",
        _LIMIT, theory_predicts, (CONVERGED,),
    ),
    (
        "Magnitude pruning allows at least what random pruning does.", "UNM, section 3.3 and figure 5",
        "measured largest share by magnitude minus at random, above 0 at all levels", "slightly more", _LIMIT,
        _at_all_levels(magnitude_allows_more), (CONVERGED,),
    ),
    (
        "Flatter solutions allow a larger share.", "UNM, section 3.3",
        f"rank correlation over at least {LEVELS} levels of trace times squared norm per weight and the largest random "
        "share, below 0",
        "flatness limits the share", "flatness", flatter_allows_more, (CONVERGED,),
    ),
    (
        "Retraining makes new small weights.", "UNM, section 3.3 and figure 6",
        "length of the next projection with retraining over that without, below 1", "shorter", "retraining",
        retraining_restores_small_weights, (CONVERGED,),
    ),
    (
        "One cut to the final density fails where iteration succeeds.", "UNM, section 3.3, figures 5 and 6",
        "wherever IMP matches at the last level: one-shot error minus IMP error there, above 0", "one-shot fails",
        "retraining", one_shot_fails, (CONVERGED,),
    ),
    (
        "Adaptive shares reach the same density in fewer trainings.", "UNM's sibling on adaptive pruning",
        "trainings, failed ones counted, over those of the fixed share, below 1; kept levels match",
        "30 % less compute on CIFAR-100, another rule", "adaptive", adaptive_needs_fewer_trainings, (CONVERGED,),
    ),
    (
        "Magnitude pruning finds flatter directions than random pruning.", "UNM, section 3.3",
        "curvature along and mean curvature of what a level prunes, by magnitude over at random, mean over levels: "
        "both below 1",
        "magnitude does slightly better because it identifies flatter directions", "flat_directions",
        magnitude_finds_flatter, (CONVERGED,),
    ),
    (
        "Where a level matches, its subspace meets the connected sublevel set of the solution before.",
        "UNM, section 3.1",
        f"wherever a level below {SPARSE:.0%} matches and random masks do not: rise of the test error on the line to "
        "the best point found in its subspace, statistics re-estimated, below twice the tolerance",
        "the next axial subspace meets it where iterative pruning succeeds", "membership", member_where_matching, _BOTH,
    ),
)  # fmt: skip
CLAIMS = tuple(
    Claim(number, sentence, source, statistic, paper, f"lotto run unmasking.{experiment} resnet20-mnist1d", find, when)
    for number, (sentence, source, statistic, paper, experiment, find, when) in enumerate(_ROWS, start=1)
)
