"""How many trainings procedures ask for: they say so themselves, sent runs that nobody has trained."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from lotto.core.rng import derived_seed
from lotto.core.weights import Weights
from lotto.execution.procedures import Position, Procedure
from lotto.execution.progress import Counted
from lotto.lottery.procedure import level_procedure
from lotto.pruning import masks
from lotto.training.job import Job, Run, State


def trainings(procedures: Sequence[Procedure[Any]]) -> int:
    """How many different trainings procedures ask for until the first that they measure.

    Args:
        procedures: none of which trains again after it has measured something; they are used up.

    >>> def two():
    ...     run = yield lotto.Job(recipe)
    ...     yield lotto.Job(recipe, start=run.state(40), from_step=20)
    >>> trainings([two(), two()])  # what both ask for is trained once
    2
    """
    counted = Counted()
    with _quiet():
        for procedure in procedures:
            position = Position(procedure)
            while jobs := position.advance():
                asked = [job for _, job in jobs if isinstance(job, Job)]
                for job in asked:
                    counted.add(job)
                if len(asked) < len(jobs):
                    procedure.close()
                    break
                position.results = {index: _untrained(job) for index, job in enumerate(asked)}
    return len(counted)


def _untrained(job: Job) -> Run:
    """A run of weights that are no training's, but of this job and step alone: what is made of them differs, too."""
    start = job.initial_state().weights
    states = {step: State(_drawn(start, job, step) if step > job.from_step else start) for step in job.steps}
    record = {f"{split}_{what}": 1.0 for split in ("train", "validation", "test") for what in ("loss", "error")}
    return Run((job.from_step, job.end), [{"step": job.end, "learning_rate": 0.0, **record}], states)


def _drawn(start: Weights, job: Job, step: int) -> Weights:
    """Numbers in the place of weights, 0 where these are pruned."""
    draws = torch.Generator().manual_seed(derived_seed(0, job.key or "", step))
    found = {
        name: torch.randn(t.shape, generator=draws, dtype=t.dtype) if t.is_floating_point() else t
        for name, t in start.items()
    }
    return found if job.mask is None else masks.apply(found, job.mask)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What is said of levels is said of them when they are trained."""
    log = logging.getLogger(level_procedure.__module__)

    def unsaid(record: logging.LogRecord) -> bool:
        return False

    log.addFilter(unsaid)
    try:
        yield
    finally:
        log.removeFilter(unsaid)
