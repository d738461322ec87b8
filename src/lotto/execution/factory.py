"""Which engine: in this process or over several, one job at a time or stacks of them."""

from __future__ import annotations

import inspect
import os
import pkgutil
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.util import find_spec
from typing import Annotated, Any

import torch

from lotto.core import registry
from lotto.core.check import Bounds, checked
from lotto.core.errors import UsageError, text
from lotto.core.ranks import Launch
from lotto.execution.engine import Engine
from lotto.execution.processes import Processes
from lotto.execution.short import SHORT_SECONDS
from lotto.execution.store import Store

ENTRY_POINTS = "lotto.engines"
TOGETHER = "torchrun"
"""The engine of processes that `torchrun` has started, of which there is no choice."""


class _Ours(Mapping[str, type[Engine]]):
    """The engines of this package by the names of their modules: ``serial`` is `Serial` in ``serial.py``.

    So an engine more is a file more. Modules are imported as they are asked for.
    """

    def __getitem__(self, name: str) -> type[Engine]:
        found = None
        if name.isidentifier() and find_spec(f"{__package__}.{name}") is not None:
            found = getattr(import_module(f"{__package__}.{name}"), name.capitalize(), None)
        if not (isinstance(found, type) and issubclass(found, Engine) and found is not Engine):
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[str]:
        names = [module.name for module in pkgutil.iter_modules(import_module(__package__).__path__)]
        return (name for name in names if name in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


OURS: Mapping[str, type[Engine]] = _Ours()


@checked
def make(
    jobs: int | str = "auto",
    store: Store | None = None,
    threads: Annotated[int, Bounds(1, 1024)] = 1,
    stack: int | str = "auto",
    device: str = "cpu",
    *,
    backend: str | None = None,
    **options: Any,
) -> Engine:
    """Make an engine.

    Args:
        jobs: worker processes; 1 trains in this process, ``auto`` takes one worker per core, or this process alone
            where a GPU does the work, or where all of it takes a second or two.
        store: where runs are remembered; default: the user's store.
        threads: threads of each worker. One thread gives the same bits on every run and, with several jobs,
            the highest throughput.
        stack: jobs that train together in each process, along a leading axis. ``measured`` takes a few steps alone
            and stacked, chooses and says why; ``auto`` is measured on a GPU and 1 on a CPU. Stacked runs equal others
            up to rounding, and their last bits may depend on what was trained with them: a stack that was cut off
            goes on from its checkpoints, but need not end in the same bits.
        device: the recipe's.
        backend: ``serial`` (in this process), ``processes``, ``ray``, ``queue``, one that an installed package names
            (an entry point ``lotto.engines``), or ``package.module:name``; default: ``serial`` for one job, else
            ``processes``.
        options: of the backend, such as ``address`` and ``gpus_per_job`` of ``ray``.

    Raises:
        UsageError: if ``jobs``, ``threads`` or ``stack`` is not a positive number, or there is no such backend.

    >>> engine = lotto.engine.make(jobs=1, store=lotto.Store("my-runs"))
    >>> engine.workers, engine.store.root.name
    (1, 'my-runs')
    >>> lotto.engine.make(2, engine.store, backend="processes").slots
    2
    """
    on_gpu = device != "cpu" and torch.cuda.is_available()
    workers: int | None
    if jobs == "auto":
        workers = 1 if on_gpu or backend == "serial" else available_cores()
    elif _is_count(jobs):
        workers = int(jobs)
    else:
        raise UsageError(f"jobs is 'auto' or a whole number from 1; got {text(jobs)}.")
    width: int | None
    if stack == "measured" or (stack == "auto" and on_gpu):
        width = None
    elif stack == "auto":
        width = 1
    elif _is_count(stack):
        width = int(stack)
    else:
        raise UsageError(f"stack is 'auto', 'measured' or a whole number from 1; got {text(stack)}.")
    launch = Launch.here()
    if launch is not None:
        _check_alone(launch.size, jobs, backend)
    if launch is not None or backend == TOGETHER:
        backend, workers = TOGETHER, 1
    name = backend or ("serial" if workers == 1 else "processes")
    engine = registry.find("engine", name, OURS, ENTRY_POINTS)
    if not (isinstance(engine, type) and issubclass(engine, Engine)):
        raise UsageError(f"A backend is a subclass of lotto.engine.Engine; {name!r} is {text(engine)}.")
    accepted = dict(_accepted(engine, name, options))
    if not (jobs == "auto" and engine.sizes_itself):
        accepted["workers"] = workers
    made = engine(store or Store(), threads=threads, stack=width, **accepted)
    if isinstance(made, Processes) and jobs == "auto" and backend is None:
        made.short_seconds = SHORT_SECONDS
    return made


def _check_alone(ranks: int, jobs: int | str, backend: str | None) -> None:
    """Raise ``UsageError`` if something else than the ranks that `torchrun` has started is to run jobs."""
    others = {"backend": backend not in (None, TOGETHER), "jobs": jobs not in ("auto", 1, "1")}
    if asked := [name for name, other in others.items() if other]:
        raise UsageError(
            f"torchrun has started {ranks} ranks, which train one network at a time together: leave out "
            f"{' and '.join(asked)}, or start it without torchrun."
        )


def _accepted(engine: type[Engine], name: str, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """Options of an engine, those that its constructor names beside what all have."""
    parameters = inspect.signature(engine).parameters
    known = {n for n, p in parameters.items() if p.kind is p.KEYWORD_ONLY} - {"workers"}
    if wrong := [n for n in options if n not in known]:
        has = f"has {', '.join(sorted(known))}" if known else "has none"
        raise UsageError(f"The engine {name!r} has no option {wrong[0]!r}; it {has}.")
    return options


def _is_count(value: int | str) -> bool:
    return re.fullmatch(r"0*[1-9][0-9]{0,3}", text(value).strip("'")) is not None


def available_cores() -> int:
    """Cores this process may use.

    >>> available_cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
