"""Benchmarks compare what they say they compare."""

from __future__ import annotations

import time

import pytest

from lotto.benchmarks import BENCHMARKS, Benchmark, measure


def test_ratios_are_turn_by_turn():
    order = []

    def contender(name, seconds):
        def run():
            order.append(name)
            time.sleep(seconds)

        return run

    benchmark = Benchmark("t", {"a": contender("a", 0.002), "b": contender("b", 0.02)}, [("a", "b", "≥ 2")])
    (row,) = measure("t", benchmark, 4)
    assert 2 < row["ratio_min"] <= row["ratio"] <= row["ratio_max"]
    assert (row["what"], row["against"], row["repetitions"]) == ("a", "b", 4)
    assert order == ["a", "b", "b", "a"] * 2 + ["a", "b"], "one uncounted turn, and the first changes"


@pytest.mark.parametrize("name", ["again"])
def test_a_benchmark_runs(name):
    (row,) = measure(name, BENCHMARKS[name](), 1)
    assert row["ratio"] > 1
