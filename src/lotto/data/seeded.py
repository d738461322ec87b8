"""Batches that are made by code of the user's, one after the other: what it draws is a function of the batch's seed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from pickle import loads
from typing import Any, NamedTuple

import cloudpickle
import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from lotto.core.rng import host_state, private_rng, seed_host, torch_seed
from lotto.data.collation import Collate, collated, rows, whole_tensors

START = "fork" if sys.platform == "linux" else "spawn"
"""How workers start: said here, as a worker of an engine has a default of its own, which torch's loader refuses."""


class Key(NamedTuple):
    """A batch that is to be made: which examples, and what its generators are seeded by."""

    indices: list[int]
    seed: int
    purpose: str
    number: int

    @property
    def chance(self) -> int:
        """The seed of Python's, numpy's and torch's generators while the batch is made."""
        return torch_seed(self.seed, self.purpose, self.number)


class Guard:
    """Runs what makes a batch with all generators seeded, and leaves the caller's as they were.

    Saving and seeding takes half a millisecond. So it is looked at the first batch: only if that drew anything is it
    done for those that follow. (A training notices draws that begin later, see `lotto.core.rng.Draws`.)
    """

    def __init__(self) -> None:
        self.draws: bool | None = None

    def __call__(self, make: Callable[[], Any], chance: Callable[[], int]) -> Any:
        """What ``make`` returns."""
        if self.draws is False:
            return make()
        with private_rng(chance()):
            before = _state() if self.draws is None else None
            made = make()
            if self.draws is None:
                self.draws = _state() != before
        return made


def _state() -> Any:
    return host_state(), torch.get_rng_state().numpy().tobytes()


class Making(Dataset[Any]):
    """Makes batches of a map-style data set by their keys, here or in a worker.

    To a worker that is not a fork it travels with the classes and functions of notebooks and programs, by value.

    Args:
        data: examples by index; if it has ``__getitems__``, several at once, as torch's own loader asks for them.
        collate: from a list of examples to a batch.
    """

    def __init__(self, data: Any, collate: Collate) -> None:
        self.data, self.collate = data, collate
        self.several = getattr(data, "__getitems__", None)

    def __reduce__(self) -> tuple[Callable[[bytes], Making], tuple[bytes]]:
        return _made_of, (cloudpickle.dumps((self.data, self.collate)),)

    def made(self, indices: list[int]) -> Any:
        """The batch of these examples."""
        if self.collate is collated and (tensors := whole_tensors(self.data)):
            return rows(tensors, indices)
        return self.collate(self.several(indices) if self.several else [self.data[i] for i in indices])

    def __getitem__(self, key: Key) -> Any:
        if get_worker_info() is not None:
            seed_host(key.chance)
            torch.manual_seed(key.chance)
        return self.made(key.indices)

    def read(self, keys: Iterable[Key], workers: int) -> Iterator[Any]:
        """The batches of some keys in their order; the same whatever the number of processes that make them."""
        if workers:
            yield from DataLoader(
                self,
                batch_size=None,
                sampler=keys,
                num_workers=workers,
                collate_fn=_same,
                multiprocessing_context=START,
                # Without one of its own the loader draws a seed from torch's global generator.
                generator=torch.Generator(),
            )
            return
        guard = Guard()
        for key in keys:
            yield guard(lambda key=key: self.made(key.indices), lambda key=key: key.chance)  # type: ignore[misc]


def _made_of(content: bytes) -> Making:
    """What this process's own parent has sent it."""
    return Making(*loads(content))


def _same(batch: Any) -> Any:
    return batch
