"""Data that only this process has: written to a file once, read once by each worker, whatever the number of jobs."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from pickle import loads
from typing import Any

import cloudpickle

from lotto.core import files, fingerprint
from lotto.data.image_folder import ImageFolder
from lotto.data.in_memory import Arrays
from lotto.data.source import Adapted, DataSource
from lotto.execution.store import WorkItem


class Spooled:
    """What stands in a job for its data: the file in the scratch folder, and how a worker reads it."""

    def __init__(self, path: Path, read: Callable[..., Any], *how: Any) -> None:
        self.name, self.read, self.how = path.name, read, how


def spooled(job: WorkItem, folder: Path) -> WorkItem:
    """The job with its data replaced by a file, unless workers can load them by name.

    Data without a fingerprint have no name to be found by: they travel with each job.

    Args:
        job: it stays as it is.
        folder: where the file is written, if it is not there yet.
    """
    data = job.recipe.data
    if isinstance(data, str):
        return job
    try:
        named = data if isinstance(data, Arrays | ImageFolder) else Adapted(data)
        path = folder / f"data-{fingerprint.digest(fingerprint.content(named))}"
    except fingerprint.NotCacheableError:
        return job
    stand_in = _spooled_arrays(data, path) if isinstance(data, Arrays) else _spooled_source(data, path)
    # Copies: the frozen job and recipe stay as the user made them, and are not validated again.
    other, recipe = copy.copy(job), copy.copy(job.recipe)
    object.__setattr__(recipe, "data", stand_in)
    object.__setattr__(other, "recipe", recipe)
    return other


def unspool(job: WorkItem, folder: str | Path) -> None:
    """Give a job that has come its data, from the scratch folder where it is now."""
    data: Any = job.recipe.data
    if isinstance(data, Spooled):
        object.__setattr__(job.recipe, "data", data.read(os.path.join(folder, data.name), *data.how))


def _spooled_arrays(data: Arrays, path: Path) -> Spooled:
    if not os.path.exists(path):
        tensors = {f"{part}/{k}": t for part in ("x", "y") for k, t in getattr(data, part).items()}
        scale = {n: t for n, t in (("scale", data._scale), ("shift", data._shift)) if t is not None}
        files.save_tensors(path, tensors | scale, {"format": "lotto.arrays", "name": data.name})
    return Spooled(path, _arrays_with, type(data), data.additions)


def _spooled_source(data: DataSource, path: Path) -> Spooled:
    if not os.path.exists(path):
        files.write_bytes(path, cloudpickle.dumps(data))
    return Spooled(path, _source)


# --- in the worker ------------------------------------------------------------------------------------


@lru_cache(maxsize=4)
def _source(path: str) -> Any:
    """The user's source, read once in each worker; the path says which content and class."""
    return loads(Path(path).read_bytes())


def _arrays_with(path: str, kind: Any, additions: Any) -> Arrays:
    """The user's arrays: of the same class, with all that it holds."""
    arrays = _arrays(path, kind)
    vars(arrays).update(additions)
    return arrays


@lru_cache(maxsize=4)
def _arrays(path: str, kind: Any) -> Arrays:
    """The user's arrays, read once in each worker; the path says which content and class."""
    tensors, metadata = files.load_tensors(Path(path), "lotto.arrays")
    arrays: Arrays = object.__new__(kind)
    arrays.name = metadata["name"]
    arrays._scale, arrays._shift = tensors.get("scale"), tensors.get("shift")
    for part in ("x", "y"):
        setattr(arrays, part, {k[2:]: t for k, t in tensors.items() if k.startswith(f"{part}/")})
    return arrays
