"""Data that only this process has travel once to each worker, whatever the number of jobs."""

from __future__ import annotations

import pickle

import pytest
import torch

from conftest import same_tensors, small_recipe
from lotto import Job
from lotto.core.errors import UsageError, WorkerError
from lotto.data import Batch, DataSource
from lotto.execution import spool
from lotto.execution.assignment import Assignment
from lotto.execution.serial import Serial
from lotto.execution.worker import compute_parcel
from lotto.training import train


class Waves(DataSource):
    """A source of the user's that holds much."""

    stated = "waves"

    def __init__(self, number=0):
        self.number = number
        self.x = torch.randn(20_000, 12, generator=torch.Generator().manual_seed(number))

    @property
    def fingerprint(self):
        return self.stated

    @property
    def classes(self):
        return 6

    def size(self, split="train"):
        return {"train": 240, "test": 80}.get(split, 0)

    def train_batches(self, seed, start, stop, batch_size):
        for step in range(start, stop):
            x = self.x[(seed + step) * batch_size :][:batch_size]
            yield Batch(x, x[:, :6].argmax(1))

    def eval_batches(self, split, batch_size):
        yield Batch(self.x[-80:], self.x[-80:, :6].argmax(1))


class Nameless(Waves):
    stated = None


class Unsendable(Waves):
    def __reduce__(self):
        raise TypeError("mine")


class Unreadable(Waves):
    def __reduce__(self):
        return _fail, ()


def _fail():
    raise ImportError("no such module here")


@pytest.fixture
def reads(monkeypatch):
    """Sources that were read from files."""
    found = []
    monkeypatch.setattr(spool, "loads", lambda content: found.append(pickle.loads(content)) or found[-1])
    return found


@pytest.fixture
def engine(store):
    made = Serial(store)
    yield made
    made.scratch.close()


def parcel(engine, data, seed=0):
    recipe = small_recipe(data=data, init="module", model="mlp-8", steps="6it")
    assignment = Assignment([Job(recipe, seed, seed)], engine, lambda *at: None)
    return assignment, assignment.parcel()


def test_a_source_is_written_once_and_read_once(engine, reads):
    for seed in range(3):
        assignment, sent = parcel(engine, Waves(), seed)
        assert len(sent) < 50_000 < Waves().x.nbytes
        assert len([*engine.scratch.folder.glob("data-*")]) == 1
        assignment.open(compute_parcel(sent))
        (job,) = assignment.jobs
        assert same_tensors(engine.store.lookup(job).weights, train(job).weights)
    assert [source.number for source in reads] == [0]
    assignment, sent = parcel(engine, Waves(1))
    assignment.open(compute_parcel(sent))
    assert [source.number for source in reads] == [0, 1], "another source is another file"


def test_a_source_without_a_name_travels_with_each_job(engine, reads):
    for seed in range(2):
        assignment, sent = parcel(engine, Nameless(), seed)
        assert len(sent) > Nameless().x.nbytes
        assignment.open(compute_parcel(sent))
    assert not reads


def test_sources_that_do_not_travel_are_refused_in_a_sentence(engine):
    with pytest.raises(UsageError, match=r"'small' cannot be sent to a worker process \(TypeError: 'mine'\); train"):
        parcel(engine, Unsendable())
    assignment, sent = parcel(engine, Unreadable())
    with pytest.raises(WorkerError, match="A worker cannot read its job: no such module here"):
        assignment.open(compute_parcel(sent))
