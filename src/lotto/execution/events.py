"""What an engine says while it works."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lotto.core.shown import shown
from lotto.execution.store import Result, WorkItem


@dataclass(frozen=True)
class JobStarted:
    """A job has been given to a worker.

    >>> seen = []
    >>> runs = lotto.engine.make(jobs=1).run([lotto.Job(recipe, order_seed=5)], seen.append)
    >>> isinstance(seen[0], JobStarted), seen[0].job.order_seed
    (True, 5)
    """

    job: WorkItem

    __repr__ = shown


@dataclass(frozen=True)
class JobAdvanced:
    """A job has reached ``step``; ``loss`` is its mean training loss lately.

    >>> JobAdvanced(lotto.Job(recipe), step=20, loss=1.5).step
    20
    """

    job: WorkItem
    step: int
    loss: float

    __repr__ = shown


@dataclass(frozen=True)
class JobFinished:
    """A job's run is there; ``trained`` is False when it was remembered.

    >>> seen = []
    >>> runs = [lotto.train(recipe, order_seed=6, progress=seen.append) for _ in range(2)]
    >>> [event.trained for event in seen if isinstance(event, JobFinished)]
    [True, False]
    """

    job: WorkItem
    run: Result
    trained: bool

    __repr__ = shown


@dataclass(frozen=True)
class KernelsCompiling:
    """Compiled functions that a training calls are not on this machine yet: they are made, before it goes to a worker.

    >>> KernelsCompiling(lotto.Job(recipe)).job.recipe.name
    'small'
    """

    job: WorkItem

    __repr__ = shown


@dataclass(frozen=True)
class KernelsCompiled:
    """They are there, for all processes and the next runs, after so many ``seconds``.

    >>> KernelsCompiled(lotto.Job(recipe), seconds=7.5).seconds
    7.5
    """

    job: WorkItem
    seconds: float

    __repr__ = shown


@dataclass(frozen=True)
class StageAdvanced:
    """A computation that is no job has done so many of the parts of one of its stages.

    >>> seen = []
    >>> _ = lotto.sweep(recipe.build(), torch.ones(2, 12), densities=[0.5], batches=[1], progress=seen.append)
    >>> seen[0]
    StageAdvanced(stage='Making the networks smaller', done=0, total=2)
    """

    stage: str
    done: int
    total: int

    __repr__ = shown


Progress = Callable[[object], None]
"""Called with the events above, and with those of an experiment."""
