"""Kernels are compiled once for a machine, in one process, before workers start that would all compile the same.

What numba has compiled lies on disk, and is read by all processes that come later. That a kind of training has its
kernels there is noted in the user's cache, so that the next run neither compiles nor looks.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import torch

from lotto.core import files
from lotto.core.errors import LottoError
from lotto.core.jit import can_compile, watched
from lotto.core.rng import private_rng
from lotto.data import normalise
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job
from lotto.training.learners import sparse_linear
from lotto.training.learners.conv_networks import has_convolutions
from lotto.training.learners.convolutions import Convolutions
from lotto.training.learners.perceptron import Perceptron
from lotto.training.loop import learner_of
from lotto.training.network import device_of, flushed_denormals

CODE = (Path(sparse_linear.__file__).parent, Path(normalise.__file__))
"""Where kernels are defined: a folder and a file."""


def compile_kernels(job: Job, began: Callable[[], None] = lambda: None) -> bool:
    """Compile what a training will call, unless that is on disk.

    One step is taken, whose outcome nobody sees; what is quicker on this machine is measured, too, where a network of
    images asks for it.

    Args:
        job: the training.
        began: called before the first function is compiled; not, if all are there.

    Returns:
        Whether anything was looked for: not, where a run before has seen to it, or nothing is compiled at all.

    >>> compile_kernels(lotto.Job(recipe))  # a dense perceptron
    False
    """
    if not _may_compile(job) or (note := _note(job)).exists():
        return False
    with watched(began), flushed_denormals(), private_rng():
        learner = learner_of([job])
        if isinstance(learner, Convolutions | Perceptron):
            learner.train_step(next(iter(learner.batches(0, 1))), 0)
    with suppress(OSError, LottoError):  # the next run looks again
        files.make_folder(note.parent)
        files.write_json(note, _kind(job))
    return True


def _may_compile(job: Job) -> bool:
    recipe = job.recipe
    return (
        recipe.loop is None
        and can_compile()
        and device_of(recipe).type == "cpu"
        and recipe.arrays.has_tensors
        and (_has_sparse_perceptron(job) or has_convolutions(recipe.meta_model()))
    )


def _has_sparse_perceptron(job: Job) -> bool:
    return job.recipe.precision != "bfloat16" and has_sparse_layers(job)


def has_sparse_layers(job: Job) -> bool:
    """Whether a perceptron's layers may be lists of single weights."""
    return any(mask.dim() == 2 and sparse_linear.is_faster_sparse(mask) for mask in (job.mask or {}).values())


def _kind(job: Job) -> list[str]:
    """What decides which kernels a training calls."""
    recipe = job.recipe
    model = recipe.model if isinstance(recipe.model, str) else _name(recipe)
    what = (model, recipe.arrays.shape, recipe.batch_size, recipe.precision, recipe.arithmetic, recipe.loss)
    return [*map(str, what), str(has_sparse_layers(job))]


def _name(recipe: Recipe) -> str:
    found = type(recipe.model) if not isinstance(recipe.model, type) else recipe.model
    return f"{found.__module__}.{found.__qualname__}"


def _note(job: Job) -> Path:
    """The file which says that a training of this kind has its kernels on disk.

    Its name tells kinds, versions and processors apart, the place where numba keeps what it has compiled, and editions
    of the code as numba tells them: by their files' times.
    """
    folder, alone = CODE
    times = [(path.name, path.stat().st_mtime_ns) for path in sorted([*folder.glob("*.py"), alone])]
    about = [_kind(job), version("numba"), sys.version, torch.backends.cpu.get_cpu_capability(), times, str(folder)]
    about += [os.environ.get("NUMBA_CACHE_DIR", "")]
    digest = hashlib.blake2b(json.dumps(about).encode(), digest_size=8).hexdigest()
    return files.user_cache("kernels") / f"{digest}.json"
