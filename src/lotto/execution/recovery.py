"""States of a stored run that are computed again when they cannot be read any more."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from lotto.core.errors import StorageError
from lotto.training.job import Job, State

log = logging.getLogger(__name__)

States = Mapping[int, State]
MOST_BYTES = 4 << 20
"""A larger start is not held for the case that a file is damaged later."""


class LastingStates(Mapping[int, State]):
    """The states of a run, although their files may be damaged or removed after they were looked up.

    Args:
        states: as they are stored.
        job: what they are the states of. It is held as long as these states, but one that starts from large weights
            of its own only as long as somebody else holds it.
        recompute: computes a job, or finds it in the store; returns its states.
    """

    def __init__(self, states: States, job: Job, recompute: Callable[[Job], States]) -> None:
        self.states, self._recompute = states, recompute
        self._job: Callable[[], Job | None] | None = weakref.ref(job) if _is_large(job) else lambda: job

    def __getitem__(self, step: int) -> State:
        try:
            return self.states[step]
        except StorageError as error:
            job = self._job() if self._job is not None else None
            if job is None:
                raise StorageError(f"{error} Run it again: what is damaged is computed anew.") from error
            log.warning("%s It is computed again.", error)
            found = self._recompute(replace(job, keep=tuple({*job.keep, *self.states} - {job.end})))
            self.states = found.states if isinstance(found, LastingStates) else found
            return self.states[step]

    def __contains__(self, step: object) -> bool:
        return step in self.states

    def __iter__(self) -> Iterator[int]:
        return iter(self.states)

    def __len__(self) -> int:
        return len(self.states)

    def __getstate__(self) -> dict[str, Any]:
        return {"states": self.states, "_recompute": None, "_job": None}  # neither travels


def _is_large(job: Job) -> bool:
    if job.start is None:
        return False
    tensors = [*job.start.weights.values(), *job.start.optimizer.values()]
    return sum(t.numel() * t.element_size() for t in tensors) > MOST_BYTES
