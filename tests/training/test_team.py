"""Threads that work off one program together."""

from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numba import njit

from lotto.training.learners.team import Team
from lotto.training.learners.together import share, share_of_blocks, wait


@njit(nogil=True)
def rounds(thread, threads, count, found):
    """In each round a thread adds up what the others have written in the one before."""
    for i in range(1, len(found)):
        found[i, thread] = found[i - 1].sum() + 1
        wait(count, threads * i)


def sums(team, length=50):
    found = np.zeros((length, team.count), np.int64)
    team.run(lambda thread, threads, count: rounds(thread, threads, count, found))
    return found


def right(threads, length=50):
    found = np.zeros((length, threads), np.int64)
    for i in range(1, length):
        found[i] = found[i - 1].sum() + 1
    return found


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_nobody_goes_on_before_the_others(threads):
    team = Team(threads)
    for _ in range(3):
        assert (sums(team, 20) == right(threads, 20)).all()


def in_child(team, queue):
    queue.put(sums(team, 20).tolist())


def test_a_forked_process_has_threads_of_its_own():
    team, context = Team(2), multiprocessing.get_context("fork")
    sums(team)
    queue = context.SimpleQueue()
    child = context.Process(target=in_child, args=(team, queue))
    child.start()
    assert queue.get() == right(2, 20).tolist()
    child.join(60)
    assert (sums(team) == right(2)).all()


def test_an_error_in_a_thread_is_an_error():
    def fails(thread, threads, count):
        if thread:
            raise ValueError("there")

    with pytest.raises(ValueError, match="there"):
        Team(3).run(fails)


@given(counts=st.lists(st.integers(0, 40), max_size=20), threads=st.integers(1, 9))
def test_every_block_is_someones(counts, threads):
    ends = np.cumsum(np.array(counts, np.int64))
    begins = ends - np.array(counts, np.int64)
    parts = [share_of_blocks(begins, ends, thread, threads) for thread in range(threads)]
    assert [b for first, last in parts for b in range(first, last)] == [*range(len(counts))]
    costs = [int((ends[a:b] - begins[a:b] + 4).sum()) for a, b in parts]
    assert max(costs) <= (sum(counts) + 4 * len(counts)) / threads + max(counts, default=0) + 4
    assert sum(share.py_func(len(counts), thread, threads)[1] for thread in range(threads - 1, threads)) == len(counts)
