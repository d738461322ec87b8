"""Statistics: against SciPy's own tests, slow sums in float64, and by simulation of what they promise."""

from __future__ import annotations

import math
from itertools import combinations, product
from statistics import fmean, stdev, variance

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from lotto.core.errors import UsageError
from lotto.core.statistics import (
    Match,
    Verdict,
    bound,
    confidence_per_look,
    decide,
    discordant,
    holm,
    interval,
    leading_matches,
    match,
    mcnemar,
    p_value,
    power_of,
    replicates_needed,
    sampling_variance,
)
from lotto.core.statistics.matching import _error_of_two_looks

VALUES = [0.31, 0.12, 0.05, 0.22, 0.17]
M, F, B, N = Match.MATCHING, Match.FAILING, Match.BORDERLINE, Match.UNDECIDED


def test_intervals_and_bounds_are_students():
    t = scipy.stats.t(len(VALUES) - 1, fmean(VALUES), stdev(VALUES) / math.sqrt(len(VALUES)))
    assert interval(VALUES) == pytest.approx(t.interval(0.95), rel=1e-9)
    assert interval(VALUES, 0.8) == pytest.approx(t.interval(0.8), rel=1e-9)
    assert bound(VALUES, "upper") == pytest.approx(t.ppf(0.95), rel=1e-9)
    assert bound(VALUES, "lower", 0.99) == pytest.approx(t.ppf(0.01), rel=1e-9)


def test_fewer_than_two_values_bound_nothing():
    for values in ([], [1.0]):
        assert interval(values) == (-math.inf, math.inf)
        assert (bound(values, "lower"), bound(values, "upper")) == (-math.inf, math.inf)
        assert p_value(values, 5.0, below=True) == 1.0
        assert decide(values, 5.0, below=True) is Verdict.UNDECIDED


@pytest.mark.parametrize("below", [True, False])
def test_p_values_are_those_of_scipys_one_sided_test(below):
    expected = scipy.stats.ttest_1samp(VALUES, 0.2, alternative="less" if below else "greater").pvalue
    assert p_value(VALUES, 0.2, below) == pytest.approx(expected, rel=1e-9)


def test_equal_values_leave_no_doubt():
    assert [p_value([0.1, 0.1], at, below=True) for at in (0.2, 0.1, 0.0)] == [0.0, 0.5, 1.0]
    assert match([0.1, 0.1], 0.2) is M
    assert match([0.3, 0.3], 0.2) is F


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6), st.floats(-3, 3), st.booleans())
def test_decisions_are_those_of_the_p_values_of_both_directions(values, threshold, below):
    one, other = p_value(values, threshold, below), p_value(values, threshold, not below)
    if min(abs(one - 0.05), abs(other - 0.05)) < 1e-9:  # a bound on the threshold, but for rounding
        return
    expected = Verdict.SUPPORTED if one < 0.05 else Verdict.CONTRADICTED if other < 0.05 else Verdict.UNDECIDED
    if np.std(values) > 1e-9:
        assert decide(values, threshold, below) is expected


def test_gaps_match_fail_or_are_borderline_by_their_one_sided_bounds():
    half = 2.131846786326649 * stdev(VALUES) / math.sqrt(5)  # Student's t of 4 degrees of freedom at 95 %
    mean = fmean(VALUES)
    assert match(VALUES, mean + half + 1e-9) is M
    assert match(VALUES, mean + half - 1e-9) is B
    assert match(VALUES, mean - half + 1e-9) is B
    assert match(VALUES, mean - half - 1e-9) is F
    assert match(VALUES[:1], 100.0) is N
    assert N.value == "not decided (n = 1)"


def test_the_sparsest_match_is_the_last_before_the_first_that_does_not():
    assert leading_matches([M, M, B, M]) == 2
    assert leading_matches([M, N, M]) == 1
    assert leading_matches([F, M]) == 0
    assert leading_matches([M, M]) == 2
    assert leading_matches([]) == 0


def test_holm_rejects_what_its_steps_reject():
    rng = np.random.default_rng(0)
    for _ in range(200):
        p = list(rng.uniform(0, 0.1, rng.integers(1, 7)))
        rejected, left = set(), sorted(p)
        while left and left[0] * len(left) < 0.05:  # the procedure as it is written down
            rejected.add(left.pop(0))
        assert {v for v, corrected in zip(p, holm(p), strict=True) if corrected < 0.05} == rejected
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_holms_values_are_those_of_all_intersections():
    # The closed test with Bonferroni for each intersection, of which Holm's is the short cut.
    p = [0.011, 0.04, 0.02, 0.3]
    subsets = [s for size in range(1, 5) for s in combinations(range(4), size)]
    slow = [max(min(1.0, len(s) * min(p[j] for j in s)) for s in subsets if i in s) for i in range(4)]
    assert holm(p) == pytest.approx(slow)


def gaps_at_the_tolerance(trials, most, rng):
    """Gaps whose true mean is the tolerance, 0: every verdict but borderline is an error."""
    return rng.normal(size=(trials, most))


def bounds_of(gaps, confidence):
    """Lower and upper bounds of each row."""
    n = gaps.shape[1]
    half = scipy.stats.t.ppf(confidence, n - 1) * gaps.std(1, ddof=1) / math.sqrt(n)
    return gaps.mean(1) - half, gaps.mean(1) + half


@pytest.mark.parametrize("n", [3, 5, 8])
def test_error_rates_of_one_and_of_two_looks_are_five_percent(n):
    trials = 200_000
    gaps = gaps_at_the_tolerance(trials, 2 * n, np.random.default_rng(n))
    noise = 3 * math.sqrt(0.05 * 0.95 / trials)
    low, high = bounds_of(gaps[:, :n], 0.95)
    assert np.mean(high < 0) == pytest.approx(0.05, abs=noise)
    assert np.mean(low > 0) == pytest.approx(0.05, abs=noise)
    per_look = confidence_per_look(n)
    first, second = bounds_of(gaps[:, :n], per_look), bounds_of(gaps, per_look)
    matching = np.mean((first[1] < 0) | (second[1] < 0))
    failing = np.mean((first[0] > 0) | (second[0] > 0))
    assert matching == pytest.approx(0.05, abs=noise)
    assert failing == pytest.approx(0.05, abs=noise)
    uncorrected = np.mean((high < 0) | (bounds_of(gaps, 0.95)[1] < 0))
    assert uncorrected > 0.075, "two looks at the bounds of one err more often"
    # `match` draws the same lines as the arrays here.
    for row in gaps[:200]:
        low_, high_ = (b[0] for b in bounds_of(row[None, :n], per_look))
        assert match(row[:n], 0.0, per_look) is Match.of(low_, high_, 0.0)


def test_adding_replicates_one_by_one_until_something_shows_errs_in_eleven_percent():
    gaps = gaps_at_the_tolerance(100_000, 10, np.random.default_rng(1))
    wrong = np.zeros(len(gaps), bool)
    for n in range(5, 11):
        wrong |= bounds_of(gaps[:, :n], 0.95)[1] < 0
    assert 0.10 < wrong.mean() < 0.12


def test_a_fixed_sequence_errs_in_five_percent_over_all_its_levels():
    # Levels 0 and 1 truly match, all others lie on the tolerance: claiming any of these is one error.
    rng, wrong, trials = np.random.default_rng(2), 0, 1000
    for _ in range(trials):
        shared = rng.normal(size=5)  # levels of a replicate resemble each other
        levels = [0.05 * (shared + rng.normal(size=5)) - (1.0 if level < 2 else 0.0) for level in range(6)]
        wrong += leading_matches([match(gaps, 0.0) for gaps in levels]) > 2
    assert wrong / trials < 0.05 + 3 * math.sqrt(0.05 * 0.95 / trials)


@pytest.mark.parametrize("n", [2, 5])
def test_the_level_of_two_looks_is_between_those_of_one_and_of_unrelated_looks(n):
    per_look = 1 - confidence_per_look(n)
    assert 0.025 < per_look < 0.05
    assert _error_of_two_looks(n, per_look) == pytest.approx(0.05, abs=1e-6)
    assert confidence_per_look(1) == 0.95, "one replicate decides nothing"


def test_mcnemar_is_a_fair_coins_binomial_test():
    for b, c in product(range(7), repeat=2):
        expected = scipy.stats.binomtest(b, b + c).pvalue if b + c else 1.0
        assert mcnemar(b, c) == pytest.approx(expected)
    # All ways in which five differing examples can fall, counted: 2 of 32 are as one-sided as 0 and 5.
    assert mcnemar(0, 5) == pytest.approx(2 / 32)


def test_discordant_examples_are_counted_one_by_one():
    rng = np.random.default_rng(3)
    one, two = rng.random(50) < 0.3, rng.random(50) < 0.3
    slow = [(bool(a), bool(b)) for a, b in zip(one, two, strict=True)]
    assert discordant(one, two) == (slow.count((True, False)), slow.count((False, True)))
    with pytest.raises(UsageError, match="same test examples"):
        discordant(one, two[:-1])


def test_the_test_sets_part_of_the_variance_is_that_of_a_mean_of_differences():
    rng = np.random.default_rng(4)
    one, two = rng.random((3, 200)) < 0.1, rng.random((3, 200)) < 0.12
    slow = [
        variance(float(a) - float(b) for a, b in zip(x, y, strict=True)) / 200 for x, y in zip(one, two, strict=True)
    ]
    assert sampling_variance(one, two) == pytest.approx(slow, rel=1e-12)
    assert float(sampling_variance(one[0], two[0])) == pytest.approx(slow[0], rel=1e-12)
    with pytest.raises(UsageError, match="two or more"):
        sampling_variance([True], [False])


def test_the_variance_is_what_new_test_sets_show():
    rng = np.random.default_rng(5)
    sets = rng.random((4000, 500)) < np.array([0.03]), rng.random((4000, 500)) < np.array([0.04])
    gaps = sets[0].mean(1) - sets[1].mean(1)
    assert sampling_variance(*sets).mean() == pytest.approx(gaps.var(ddof=1), rel=0.08)


@pytest.mark.parametrize(
    ("std", "tolerance", "gap"), [(0.115, 0.2, 0.0), (0.115, 0.2, 0.1), (0.3, 0.2, 0.0), (0.1, 0.2, 0.3)]
)
def test_replicates_needed_decide_as_often_as_they_should(std, tolerance, gap):
    n = replicates_needed(std, tolerance, gap)
    gaps = np.random.default_rng(6).normal(gap, std, (40_000, n))
    low, high = bounds_of(gaps, 0.95)
    decided = np.mean(high < tolerance) if gap < tolerance else np.mean(low > tolerance)
    assert decided > 0.8 - 0.01
    assert decided == pytest.approx(power_of(n, std, tolerance - gap), abs=0.01)
    if n > 2:
        assert power_of(n - 1, std, tolerance - gap) < 0.8


def test_replicates_needed_at_the_ends():
    assert replicates_needed(0.0, 0.2) == 2, "one decides nothing, whatever the spread"
    assert math.isinf(replicates_needed(0.1, 0.2, gap=0.2))
    assert power_of(1, 0.1, 0.2) == 0.0
    assert power_of(50, 0.001, 0.2) == 1.0
    with pytest.raises(UsageError, match="std is a number from 0"):
        replicates_needed(math.inf, 0.2)


def test_a_bound_at_the_tolerance_itself_decides_nothing():
    """Non-inferiority needs an upper bound below it, failing a lower one above it."""
    assert Match.of(-0.5, 0.2, 0.2) is B
    assert Match.of(0.2, 0.9, 0.2) is B
    assert Match.of(-0.5, math.nextafter(0.2, 0), 0.2) is M
    assert Match.of(math.nextafter(0.2, 1), 0.9, 0.2) is F


def test_two_examples_have_a_variance_and_truth_values_may_be_numbers():
    assert float(sampling_variance([True, False], [False, False])) == pytest.approx(variance([1, 0]) / 2)
    # 2 and 0.5 are mistakes like 1: what counts is whether, not how much.
    assert discordant(np.array([2, 0, 1]), np.array([0.0, 0.5, 1.0])) == (1, 1)
    assert float(sampling_variance(np.array([2, 0, 1]), [0, 0, 1])) == float(sampling_variance([1, 0, 1], [0, 0, 1]))
