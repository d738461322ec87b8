"""Claims: the rule that decides, each claim's statistic on rows made by hand, the command."""

from __future__ import annotations

import json
import math

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from scipy import stats

from lotto import papers
from lotto.cli.main import main
from lotto.core.errors import UsageError
from lotto.core.statistics import Verdict, decide, interval
from lotto.experiments import conditions
from lotto.experiments.claims import as_frame, check_claims
from lotto.experiments.measures import LAST_QUARTER, RECOMPUTED_TEST_BARRIER, TEST_BARRIER
from lotto.experiments.results import ResultGroup, grouped, read_below
from lotto.papers.stabilizing.claims import CLAIMS, density_of, level_at
from lotto.report.claims import console_claims

BARRIER, RECOMPUTED = TEST_BARRIER.name, RECOMPUTED_TEST_BARRIER.name
S, C, U = Verdict.SUPPORTED, Verdict.CONTRADICTED, Verdict.UNDECIDED


def test_interval_is_students():
    # Student's t of 2 degrees of freedom at 97.5 % is 4.302652729911275.
    values = [1.0, 2.0, 4.0]
    half = 4.302652729911275 * np.std(values, ddof=1) / math.sqrt(3)
    assert interval(values) == pytest.approx((7 / 3 - half, 7 / 3 + half), rel=1e-9)
    assert interval([1.0]) == (-math.inf, math.inf)


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=6), st.floats(-5, 5))
def test_decide_is_antisymmetric_and_needs_replicates(values, threshold):
    below, above = decide(values, threshold, True), decide(values, threshold, False)
    assert {below, above} in ({U}, {S, C})
    if len(values) == 1:
        assert below is U


def test_decide():
    assert decide([0.1, 0.11, 0.09], 0.2, below=True) is S
    assert decide([0.3, 0.31, 0.29], 0.2, below=True) is C
    assert decide([0.1, 0.3, 0.2], 0.2, below=True) is U


COLUMNS = ["replicate", "seed", "rewind_step", "level", "density", "kind", "measure", "unit", "sample", "value"]
NOISE = (0.0, 0.02, -0.02, 0.01, -0.01)
"""Deviations of five replicates."""


def rows(kind, k, level, density, values, measure="error", unit="points", sample=0):
    return [(r, r, k, level, density, kind, measure, unit, sample, v) for r, v in enumerate(values)]


def around(value, spread=1.0):
    return [value + spread * d for d in NOISE]


def setting(lines, model="resnet-20-w8", lr=0.2, warmup=0, iterations=1000, data="mnist1d-50k", **recipe):
    described = {
        "name": "some", "model": model, "data": data, "tolerance": 0.2, "optimizer": f"SGD(lr={lr}, momentum=0.9)",
        "schedule": f"MultiStep(warmup={warmup}, gamma=0.1)", **recipe,
    }  # fmt: skip
    facts = {"iterations": iterations, "per_epoch": 100, "learning_rate": lr, "warmup": warmup}
    frame = pd.DataFrame([row for part in lines for row in part], columns=COLUMNS)
    return ResultGroup(described, facts, frame.assign(copy=0))


def finding(number, given, *others, claims=CLAIMS):
    """The finding about the network ``given`` beside others, of one claim alone."""
    (decision,) = check_claims([c for c in claims if c.number == number], [given, *others])
    (found,) = [f for f in decision.findings if f.where.startswith(given.title)]
    return found


def verdict(number, *given):
    (decision,) = check_claims([c for c in CLAIMS if c.number == number], given)
    return decision.verdict


DENSE = rows("dense", 0, 0, 1.0, around(1.3, 5))
CONVERGED = rows("dense", 0, 0, 1.0, around(0.02), LAST_QUARTER.name)
UNSTABLE, STABLE = (rows("dense", 0, 0, 1.0, around(v), BARRIER) for v in (80.0, 0.3))
REGIME = [DENSE, CONVERGED, UNSTABLE]
"""A dense network that is trained to convergence and unstable at 0."""
GOOD, BAD = (around(1.3 + gap, 5) for gap in (-0.3, 0.6))


# --- networks are chosen by conditions --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "lines", "errors", "expected"),
    [
        (2, REGIME, BAD, S),
        (2, REGIME, GOOD, C),
        (2, [DENSE, CONVERGED, STABLE], GOOD, Verdict.DIFFERS),
        (2, [DENSE, CONVERGED], BAD, Verdict.AGREES),
        (2, [DENSE, UNSTABLE], BAD, Verdict.AGREES),
        (2, [DENSE, UNSTABLE, rows("dense", 0, 0, 1.0, around(3.0), LAST_QUARTER.name)], GOOD, Verdict.DIFFERS),
        (1, [DENSE, CONVERGED, STABLE], GOOD, S),
        (1, [DENSE, CONVERGED, STABLE], BAD, C),
        (1, REGIME, GOOD, Verdict.AGREES),
    ],
)
def test_conditions_decide_whether_a_network_is_what_a_claim_is_about(number, lines, errors, expected):
    given = setting([*lines, rows("imp", 0, 7, 0.082, errors)])
    assert finding(number, given).verdict is expected
    assert verdict(number, given) is expected
    assert verdict(number, setting([*lines, rows("imp", 0, 3, 0.34, errors)])) is U, "another density"


def test_no_name_of_a_network_decides():
    for model in ("lenet-300-100", "resnet-20-w8", "my.module.Network"):
        assert verdict(2, setting([*REGIME, rows("imp", 0, 7, 0.082, BAD)], model=model)) is S
        stable = setting([DENSE, CONVERGED, STABLE, rows("imp", 0, 7, 0.082, GOOD)], model=model)
        assert verdict(1, stable) is S


def test_conditions_are_shown_with_their_figures():
    shown = [str(c) for c in finding(2, setting([*REGIME, rows("imp", 0, 7, 0.082, BAD)])).conditions]
    assert shown == [
        "dense network unstable at 0: holds, 80 (≥ 80, n = 5)",
        "trained to convergence: holds, 0.02 (≤ 0.0351, n = 5)",
    ]
    bound = 0.02 + 2.131846786326649 * np.std(NOISE, ddof=1) / math.sqrt(5)  # Student's t of 4 degrees at 95 %
    assert f"{bound:.3g}" == "0.0351"
    (stability, convergence) = finding(2, setting([DENSE, rows("imp", 0, 7, 0.082, BAD)])).conditions
    assert str(stability) == "dense network unstable at 0: cannot be checked"
    assert (stability.holds, convergence.holds) == (None, None)


def test_a_condition_is_read_from_results_that_prune_the_same_dense_network_otherwise():
    one = setting([DENSE, rows("imp", 0, 7, 0.082, BAD)], pruning="Pruning(rate=0.3)")
    other = setting(REGIME, pruning="Pruning(rate=0.5)")
    assert finding(2, one, other).verdict is S
    assert finding(2, one, setting(REGIME, init="zeros")).verdict is Verdict.AGREES


def test_low_rates_and_warm_ups_are_known_by_their_recipes():
    standard = setting(REGIME)
    imp = [DENSE, CONVERGED, rows("imp", 0, 7, 0.082, GOOD)]
    for gentle in (setting(imp, lr=0.02), setting(imp, warmup=200), setting(imp, lr=0.06)):
        assert finding(3, gentle, standard).verdict is S
        assert verdict(2, gentle, standard) is U, "it is no standard row"
        if gentle.facts["learning_rate"] != 0.06:  # alone it looks like neither
            assert finding(3, gentle).verdict is Verdict.AGREES, "whether the standard row is unstable is not known"
    assert verdict(3, setting(imp, lr=0.1), standard) is U, "half of the rate is not low"
    stable = setting([DENSE, CONVERGED, STABLE])
    assert finding(3, setting(imp, lr=0.02), stable).verdict is Verdict.AGREES
    assert verdict(3, setting(imp, lr=0.02, optimizer="Adam(lr=0.02)"), standard) is U


# --- statistics -------------------------------------------------------------------------------------------


def test_p_values_are_corrected_over_the_claims_of_a_network():
    lines = [*REGIME, rows("imp", 0, 7, 0.082, around(1.3 + 0.237, 5)), rows("imp", 50, 7, 0.082, GOOD)]
    lines[3] = rows(
        "imp", 0, 7, 0.082, [v + e for v, e in zip(around(1.3, 5), (0.3, 0.22, 0.27, 0.21, 0.29), strict=True)]
    )
    given = setting(lines)
    alone = finding(2, given)
    values = np.array([0.3, 0.22, 0.27, 0.21, 0.29])
    t = (values.mean() - 0.2) / (values.std(ddof=1) / math.sqrt(5))
    assert alone.p == pytest.approx(stats.t.sf(t, 4), rel=1e-6)
    assert alone.verdict is S
    decisions = check_claims(CLAIMS, [given])
    tested = [f for d in decisions for f in d.findings if all(c.holds for c in f.conditions)]
    assert len(tested) == 2, "claims 2 and 4"
    assert decisions[1].findings[0].p == pytest.approx(2 * alone.p, rel=1e-6)


def test_rewinding_makes_match_needs_its_counterfactual():
    bad, good = rows("imp", 0, 7, 0.082, BAD), rows("imp", 0, 7, 0.082, GOOD)
    at_50 = rows("imp", 50, 7, 0.082, GOOD)
    assert verdict(4, setting([*REGIME, bad, at_50])) is S
    assert verdict(4, setting([*REGIME, good, at_50])) is C, "at 0 it matches as well"
    assert verdict(4, setting([*REGIME, bad, rows("imp", 50, 7, 0.082, BAD)])) is C
    assert verdict(4, setting([*REGIME, at_50])) is U, "without k = 0"
    assert verdict(4, setting([*REGIME, bad, rows("imp", 500, 7, 0.082, GOOD)])) is U, "half the training is not small"
    figure = finding(4, setting([*REGIME, bad, at_50])).figure
    assert figure.startswith("gap(0) - gap(k): 0.9 (≥ 0.9, n = 5); gap(0): 0.6 (≥ 0.6, n = 5); gap(k): -0.3")


def test_the_rewind_step_is_fixed_and_not_the_best_by_its_own_error():
    worse = around(1.3 + 0.35, 5)
    lines = [*REGIME, rows("imp", 0, 7, 0.082, BAD), rows("imp", 50, 7, 0.082, worse), rows("imp", 100, 7, 0.082, GOOD)]
    found = finding(4, setting([*lines, rows("imp", 25, 7, 0.082, GOOD)]))
    assert found.where.endswith("k = 50 against 0")
    assert found.verdict is C, "100 and 25 are better, and not asked"


def test_gaps_are_paired_by_data_order():
    # Another data order's error (sample 1) is no part of the gap.
    lines = [*REGIME, rows("imp", 0, 7, 0.082, BAD), rows("imp", 0, 7, 0.082, around(9.0), sample=1)]
    assert finding(2, setting(lines)).figure == "0.6 (≥ 0.6, n = 5)"


def distances(k, level, values, kind="imp"):
    both = [rows(kind, k, level, 0.082, values, "data order", "L2")]
    both += [rows(kind, k, level, 0.082, values, "pruning", "L2", sample=1)]
    return [row for part in both for row in part]


def test_distances():
    errors = [rows("imp", 0, 7, 0.082, BAD), rows("imp", 50, 7, 0.082, GOOD)]
    closer = [distances(0, 7, around(20)), distances(50, 7, around(10))]
    random = [distances(0, 7, around(20), "random"), distances(50, 7, around(20), "random")]
    assert verdict(5, setting([*REGIME, *errors, *closer])) is S
    assert verdict(5, setting([*REGIME, *errors, *closer[:1]])) is U
    given = setting([*REGIME, *errors, *closer, *random])
    assert verdict(6, given) is S, "where it does not match, at k = 0, the ratio of 1 does not count"
    assert "k = 0" not in finding(6, given).figure
    own = rows("imp", 50, 7, 0.082, around(90), "pruning", "L2", sample=0)
    assert verdict(5, setting([*REGIME, *errors, *closer, own])) is S, "the order that made the mask does not count"


def test_matching_exactly_when_stable():
    def point(k, errors, barrier, kind="imp"):
        return [rows(kind, k, 7, 0.082, errors), rows(kind, k, 7, 0.082, around(barrier), RECOMPUTED)]

    both = [*point(0, BAD, 20.0), *point(50, GOOD, 0.1)]
    assert verdict(7, setting([*REGIME, *both])) is S
    assert verdict(7, setting([*REGIME, *point(50, GOOD, 0.1), *point(50, BAD, 9.0, "random")])) is U, (
        "IMP itself on both sides"
    )
    assert verdict(7, setting([*REGIME, *both, *point(100, GOOD, 9.0)])) is C
    assert verdict(7, setting([*REGIME, *both, *point(100, BAD, 0.1)])) is C
    assert verdict(7, setting([*REGIME, *point(0, GOOD, 0.1), *point(50, GOOD, 0.1)])) is U
    assert verdict(7, setting([*REGIME, *point(0, BAD, 20.0), *point(50, GOOD, 0.45)])) is C, (
        "twice the tolerance is 0.4"
    )
    figure = finding(7, setting([*REGIME, *both, rows("imp", 0, 7, 0.082, around(52), BARRIER)])).figure
    assert "2 of 2 decided points agree, 2 points" in figure
    assert "IMP's interpolated barriers, 2 points in LMC: 52 at k = 0" in figure
    # Stable and failing, shown at this point alone (p = 0.02) and not among seven: it is named and decides nothing.
    unsure = [
        *point(500, [1.3 + gap for gap in (1.2, 0.4, 1.1, 0.4, 1.0)], 0.1),
        *(row for k in (60, 70, 80, 90) for row in point(k, GOOD, 0.1)),
    ]
    found = finding(7, setting([*REGIME, *both, *unsure]))
    assert (
        "6 of 7 decided points agree, 7 points; differing by themselves, not after Holm's correction: 8.2 % left, imp, k = 500"
        in found.figure
    )
    assert verdict(7, setting([*REGIME, *both, *unsure])) is S
    refuted = finding(7, setting([*REGIME, *both, *point(100, BAD, 0.1)])).figure
    assert "differing by themselves: 8.2 % left, imp, k = 100" in refuted


def test_late_rewinding():
    lines = [*REGIME, *(rows("imp", k, 7, 0.082, e) for k, e in ((0, BAD), (50, GOOD), (500, GOOD), (900, BAD)))]
    assert finding(8, setting(lines)).where.endswith("k = 900 against 50")
    assert verdict(8, setting(lines)) is S
    assert verdict(8, setting(lines[:-2])) is U


def test_dense_instability():
    later = rows("dense", 200, 0, 1.0, around(0.3), BARRIER)
    assert verdict(10, setting([*REGIME, later])) is S
    assert verdict(10, setting([DENSE, CONVERGED, STABLE, later])) is C
    assert verdict(10, setting(REGIME)) is U
    assert verdict(10, setting([*REGIME, later], lr=0.02), setting(REGIME)) is U, "a low rate"
    assert verdict(10, setting([*REGIME, later], model="lenet-300-100")) is U
    assert verdict(9, setting(REGIME, "lenet-300-100")) is C
    assert verdict(9, setting([DENSE, CONVERGED, STABLE], "lenet-300-100")) is S
    assert verdict(9, setting([DENSE, STABLE], "lenet-300-100")) is Verdict.AGREES


def test_controls_one_shot_and_finetuning():
    def controls(k, random, reinit, lines=REGIME):
        at = [rows(kind, k, 7, 0.082, e) for kind, e in (("imp", GOOD), ("random", random), ("reinit", reinit))]
        return setting([*lines, *at])

    assert verdict(11, controls(50, BAD, BAD)) is S
    assert verdict(11, controls(50, BAD, GOOD)) is U, "it ties with one"
    assert verdict(11, controls(50, BAD, around(0.6, 5))) is C
    assert verdict(11, controls(0, BAD, BAD)) is U, "unstable at 0, where there are no tickets"
    assert verdict(11, controls(0, BAD, BAD, [DENSE, CONVERGED, STABLE])) is S
    fails = setting([*REGIME, *(rows(kind, 50, 7, 0.082, BAD) for kind in ("imp", "random", "reinit"))], lr=0.1)
    assert finding(11, fails).verdict is U, "where IMP fails there is no ticket that would need anything"
    assert "no ticket here: gap of IMP: 0.6" in finding(11, fails).figure
    assert verdict(11, controls(50, BAD, BAD), fails) is S
    once = [rows("one-shot", 50, 7, 0.082, BAD), rows("iterative", 50, 7, 0.082, GOOD)]
    assert verdict(12, setting([*REGIME, *once])) is S
    ways = [rows(k, 100, 7, 0.082, GOOD) for k in ("weight rewinding", "lr rewinding")]
    same = rows("fine-tuning", 100, 7, 0.082, GOOD)
    assert verdict(13, setting([*REGIME, *ways, same])) is U, "with a constant rate they are one thing"
    assert verdict(13, setting([*REGIME, *ways, rows("fine-tuning", 100, 7, 0.082, BAD)])) is S
    assert verdict(13, setting([*REGIME, *ways, rows("fine-tuning", 100, 7, 0.082, around(0.6, 5))])) is C


def test_nothing_stored_decides_nothing():
    frame = as_frame(check_claims(CLAIMS, []))
    assert set(frame["finding"]) == {U.value}
    assert frame["ours"].str.contains("lotto run stabilizing.").all()
    assert list(frame["claim"]) == list(range(1, len(CLAIMS) + 1))


def test_networks_that_disagree_decide_nothing_and_another_scale_counts_only_alone():
    imp = [setting([DENSE, CONVERGED, STABLE, rows("imp", 0, 7, 0.082, e)]) for e in (GOOD, BAD)]
    assert verdict(1, *imp) is U
    small = setting([DENSE, rows("imp", 0, 7, 0.082, BAD)], model="other")
    assert verdict(1, imp[0], small) is S
    assert verdict(1, small) is Verdict.DIFFERS


def test_one_replicate_decides_nothing():
    lines = [part[:1] for part in [*REGIME, rows("imp", 0, 7, 0.082, BAD)]]
    assert finding(2, setting(lines)).verdict is U
    assert finding(2, setting(lines)).figure == "0.6 (n = 1, no bound)"


def test_level_near_a_density():
    lines = [rows("imp", 0, 4, 0.41, GOOD), rows("imp", 0, 8, 0.168, GOOD), rows("imp", 0, 12, 0.069, GOOD)]
    assert level_at(setting(lines), 0.167) == 8
    assert level_at(setting(lines), 0.9) is None
    assert level_at(setting([DENSE]), 0.167) is None
    assert [density_of(setting([DENSE], data=d)) for d in ("mnist1d-50k", "mnist", "cifar10", "own")] == [
        0.058, 0.107, 0.167, 0.167,
    ]  # fmt: skip


def un(number, lines, regime=REGIME, **about):
    """The finding of the second paper's claim on rows with the column x."""
    frame = pd.DataFrame([row for part in lines for row in part], columns=[*COLUMNS, "x"]).assign(copy=0)
    made = setting(regime, **about)
    given = ResultGroup(made.recipe, made.facts, pd.concat([made.frame, frame], ignore_index=True))
    (decision,) = check_claims([c for c in papers.claims_of("unmasking") if c.number == number], [given])
    return decision.verdict


def at_x(x, lines):
    return [(*row, x) for row in lines]


NAN = float("nan")
SMALL, LARGE = around(0.1), around(20.0)


def test_connected_exactly_where_matching():
    def level(k, number, density, errors, barrier, measure="barrier, statistics recomputed"):
        return [
            at_x(NAN, rows("imp", k, number + 1, density, errors)),
            at_x(number + 1, rows("imp", k, number, density, barrier, measure)),
        ]

    both = [*level(100, 6, 0.12, GOOD, SMALL), *level(0, 6, 0.12, BAD, LARGE)]
    assert un(1, both) is S
    assert un(1, both[:2]) is U, "both sides are needed"
    assert un(1, [*both, *level(100, 5, 0.2, GOOD, LARGE)]) is C
    assert un(1, [*both, *level(100, 5, 0.2, BAD, SMALL)]) is C
    assert un(1, [*both, *level(0, 0, 1.0, GOOD, LARGE)]) is S, "the first levels do not count"
    random = at_x(NAN, rows("random", 0, 6, 0.2, GOOD))
    assert un(1, [*both, *level(0, 5, 0.2, GOOD, LARGE), random]) is S, "nor those where random masks match"
    assert un(1, [*both, at_x(9, rows("imp", 0, 5, 0.3, LARGE, "barrier, statistics recomputed"))]) is S, "nor far ones"
    assert un(1, [*both, at_x(7, rows("imp", 100, 6, 0.12, LARGE, "barrier"))]) is S, "re-estimated ones decide"
    plain = [*level(100, 6, 0.12, GOOD, SMALL, "barrier"), *level(0, 6, 0.12, BAD, LARGE, "barrier")]
    assert un(1, plain) is S, "without BatchNorm there is one barrier"
    assert un(1, both, [DENSE, CONVERGED, STABLE]) is Verdict.AGREES


def test_distant_levels():
    chain = [at_x(i + 1, rows("imp", 0, i, 1.0, SMALL, "barrier")) for i in range(3)]
    assert un(2, [*chain, at_x(3, rows("imp", 0, 0, 1.0, LARGE, "barrier"))]) is S
    assert un(2, [*chain, at_x(3, rows("imp", 0, 0, 1.0, SMALL, "barrier"))]) is U, "one case refutes no *need not*"
    assert un(2, [*chain[:1], at_x(3, rows("imp", 0, 0, 1.0, LARGE, "barrier"))]) is U, "a chain has several steps"
    broken = [chain[0], at_x(2, rows("imp", 0, 1, 1.0, LARGE, "barrier")), chain[2]]
    assert un(2, [*broken, at_x(3, rows("imp", 0, 0, 1.0, LARGE, "barrier"))]) is U


def test_matching_levels_are_robust_and_of_others_nothing_is_claimed():
    def point(k, errors, barrier, level=7):
        return [
            at_x(NAN, rows("imp", k, level, 0.082, errors)),
            at_x(1.0, rows("perturbed", k, level, 0.082, errors, "error after training")),
            at_x(1.0, rows("perturbed", k, level, 0.082, barrier, "barrier")),
        ]

    assert un(3, point(100, GOOD, SMALL)) is S
    assert un(3, [*point(0, BAD, SMALL), *point(100, GOOD, SMALL)]) is S, "robust and not matching contradicts nothing"
    assert un(3, point(0, BAD, LARGE)) is U
    assert un(3, [*point(50, GOOD, LARGE), *point(100, GOOD, SMALL)]) is C
    assert un(3, point(100, GOOD, around(0.5))) is C, "below 2 points, but not below twice the tolerance"


def share(kind, how, found, level=4):
    return at_x(NAN, rows(kind, 0, level, 0.4, found, f"largest share, {how}", "share"))


def test_theory_is_compared_by_the_fractions_themselves():
    published, corrected = "theory, published", "theory, corrected"
    random = [share("random", published, around(0.3, 0.2)), share("random", "subspace", around(0.26, 0.2))]
    assert un(4, random) is S
    assert un(4, [*random, share("random", corrected, around(0.9))]) is S, "shown beside it, and decides nothing"
    # 0.58 and 0.88 are a factor of 1.5 in what goes, which a factor of two lets pass, and of 3.5 in what stays.
    assert un(4, [share("random", published, around(0.88)), share("random", "subspace", around(0.58))]) is C
    other = [share("random", published, around(0.5), 8), share("random", "subspace", around(0.3), 8)]
    assert un(4, [*random, *other]) is C, "every level counts"
    assert un(4, [*random, other[1]]) is U, "where the theory has not converged nothing is said of all levels"
    old = [share("random", "theory", around(0.3, 0.2)), random[1]]
    assert un(4, old) is U, "32 steps are too few"
    assert un(5, [*random, share("magnitude", "subspace", around(0.5))]) is S
    assert un(5, [*random, share("magnitude", "subspace", around(0.1))]) is C


def test_flatness_needs_eight_levels():
    sharpness, halved = "trace times squared norm per weight", "subspace, by halving"

    def curves(levels, sign):
        found = [share("random", halved, around(0.9 - 0.1 * i, 0.1), i) for i in range(levels)]
        sharp = [around(1 + sign * 0.1 * i) for i in range(levels)]
        return found + [at_x(NAN, rows("imp", 0, i, 0.4, v, sharpness, "nats")) for i, v in enumerate(sharp)]

    assert un(6, curves(3, 1)) is U
    assert un(6, curves(8, 1)) is S
    assert un(6, curves(8, -1)) is C


def test_magnitude_finds_flatter_directions():
    def level(number, magnitude, random, measure="curvature along the pruned weights"):
        values = (("magnitude", magnitude), ("random", random))
        return [at_x(NAN, rows(kind, 0, number, 0.4, around(v, 0.05), measure, "nats")) for kind, v in values]

    block = "mean curvature of the pruned weights"
    flat = [*level(1, 0.5, 1.5), *level(2, 0.7, 1.4), *level(1, 0.5, 1.5, block), *level(2, 0.5, 1.5, block)]
    assert un(10, flat) is S
    assert un(10, [*flat[:4], *level(1, 2.5, 1.5, block), *level(2, 1.5, 1.4, block)]) is C, "both have to be flatter"
    assert un(10, level(1, 1.0, 1.0)) is U


def test_subspaces_of_matching_levels_meet_the_connected_set():
    def point(k, errors, rise, level=7, density=0.082, suffix=", recomputed"):
        measure = f"rise of the error on the way to the subspace{suffix}"
        return [
            at_x(NAN, rows("imp", k, level, density, errors)),
            at_x(NAN, rows("imp", k, level, density, rise, measure)),
        ]

    assert un(11, point(100, GOOD, SMALL)) is S
    assert un(11, point(100, GOOD, LARGE)) is C
    assert un(11, [*point(100, GOOD, SMALL), *point(0, BAD, SMALL)]) is S, "of levels that fail nothing is claimed"
    assert un(11, [*point(100, GOOD, SMALL), *point(100, GOOD, LARGE, 1, 0.7)]) is S, "the first levels do not count"
    assert un(11, [*point(100, GOOD, SMALL), *point(100, GOOD, LARGE, suffix="")[1:]]) is S, "re-estimated ones decide"
    assert un(11, point(100, GOOD, SMALL, suffix="")) is S, "without BatchNorm there is one rise"
    random = at_x(NAN, rows("random", 100, 6, 0.2, GOOD))
    assert un(11, [*point(100, GOOD, SMALL), *point(100, GOOD, LARGE, 6, 0.2), random]) is S, "random masks match"


def test_retraining_and_one_shot():
    def length(kind, found):
        return at_x(NAN, rows(kind, 0, 3, 0.5, found, "projection length", "L2"))

    assert un(7, [length("imp", around(1.0)), length("without retraining", around(2.0))]) is S
    assert un(7, [length("imp", around(3.0)), length("without retraining", around(2.0))]) is C
    imp = at_x(NAN, rows("imp", 0, 8, 0.1, GOOD))
    assert un(8, [imp, at_x(NAN, rows("one-shot", 0, 8, 0.1, BAD))]) is S
    assert un(8, [imp, at_x(NAN, rows("one-shot", 0, 8, 0.1, around(-0.6, 5)))]) is C
    late = [at_x(NAN, rows("imp", 100, 8, 0.1, BAD)), at_x(NAN, rows("one-shot", 100, 8, 0.1, BAD))]
    assert un(8, [imp, at_x(NAN, rows("one-shot", 0, 8, 0.1, BAD)), *late]) is S, "nothing where iteration fails"
    assert un(8, late) is U


def test_claims_fit_into_eighty_columns():
    given = setting([*REGIME, rows("imp", 0, 7, 0.082, BAD), rows("imp", 50, 7, 0.082, GOOD)])
    console = Console(width=80, record=True, force_terminal=False)
    for part in console_claims(check_claims(CLAIMS, [given])):
        console.print(part, highlight=False)
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    for shown in (
        "if dense network unstable at 0: holds, 80 (≥ 80, n = 5)",
        "gap(0): 0.6 (≥ 0.6, n = 5)",
        "supported (p =",
    ):
        assert shown in text


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Two real experiments of one recipe and one of another."""
    folder = tmp_path_factory.mktemp("results")
    small = ["mlp-mnist1d", "--steps", "30it", "--levels", "2", "--replicates", "2", "--points", "3", "--jobs", "1"]
    for name, where, more in (
        ("distances", "a", ["--rewind-to", "0it,5it"]),
        ("oneshot", "b", ["--rewind-to", "0it"]),
        ("retraining", "c", ["--set", "optimizer.lr=0.2"]),
    ):
        main(["run", f"stabilizing.{name}", *small, *more, "--out", str(folder / where)])
    return folder


def test_equal_settings_come_together(results):
    stored = read_below(results)
    assert {s.about["name"] for s in stored} == {"distances", "oneshot", "retraining"}
    found = grouped(stored)
    assert sorted(len(s.frame["kind"].unique()) for s in found) == [4, 5]
    both = max(found, key=lambda s: len(s.frame["kind"].unique()))
    errors = both.frame[(both.frame["kind"] == "dense") & (both.frame["measure"] == "error")]
    assert not errors.duplicated([c for c in errors.columns if c != "value"]).any()
    assert both.facts == {"iterations": 30, "per_epoch": 40, "learning_rate": 0.1, "warmup": 0}


def test_command(results, capsys):
    main(["claims", "stabilizing", str(results)])
    shown = capsys.readouterr().out
    assert "Iterative pruning finds better subnetworks" in shown
    assert f"{len(CLAIMS)} not decided" in shown or "supported" in shown
    frame = pd.read_csv(results / "claims.csv")
    assert set(frame["claim"]) == {c.number for c in CLAIMS}
    assert frame[frame["claim"] == 13]["where"].str.contains("mlp-mnist1d").all()


def test_bad_input(results, tmp_path, capsys):
    with pytest.raises(UsageError, match="Unknown paper"):
        papers.claims_of("stabilising")
    with pytest.raises(SystemExit) as caught:
        main(["claims", "stabilizing", str(tmp_path / "absent")])
    assert caught.value.code == 2
    assert "There is no folder" in capsys.readouterr().err.replace("\n", " ")
    (tmp_path / "x.json").write_text(json.dumps({"format": "lotto.experiment"}))
    with pytest.raises(UsageError, match="cannot be read"):
        read_below(tmp_path)


def test_rows_of_a_network_meet_whatever_fields_their_files_know():
    """A file that was written before a recipe had a field says nothing of it, and means its default."""
    older = {"model": "resnet-20-w8", "optimizer": "SGD(lr=0.2)", "schedule": "MultiStep(warmup=0)"}
    newer = {**older, "schedule": "MultiStep(warmup=200)", "output": "None", "arithmetic": "auto"}
    other = {**newer, "output": "logits"}
    made = [ResultGroup(about, {"learning_rate": 0.2}, pd.DataFrame(), False) for about in (older, newer, other)]
    assert conditions.siblings(made[0], made) == [made[1]]
    assert conditions.siblings(made[1], made) == [made[0]]
    assert conditions.siblings(made[2], made) == []
