"""Whether two runs of the same training, each in a process of its own, end in the same bits."""

from __future__ import annotations

import os
from collections.abc import Sequence

import numpy as np
import torch
from loky import ProcessPoolExecutor

from lotto.benchmarks.gpu.networks import Setup, products_in
from lotto.benchmarks.harness import Row
from lotto.core.rng import private_rng
from lotto.training.loop import learner_of
from lotto.training.network import flushed_denormals

STACK = 8
WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""What cuBLAS needs to sum in one order, before it begins."""

Weights = dict[str, np.ndarray]


def same_bits(setups: Sequence[Setup], deterministic: bool) -> list[Row]:
    """A row for each training, alone and stacked.

    Args:
        setups: of one network.
        deterministic: whether torch is told to use deterministic algorithms only (`docs/gpu.md`).
    """
    tasks = [(setup, 1) for setup in setups]
    tasks += [(setups[0], min(STACK, max(setups[0].sizes.widths)))]
    runs: list[list[Weights | str]] = []
    for _ in range(2):
        environment = {**os.environ, **(WORKSPACE if deterministic else {})}
        with ProcessPoolExecutor(1, env=environment) as worker:
            try:
                runs.append([worker.submit(_trained, *task, deterministic).result() for task in tasks])
            finally:
                worker.shutdown(kill_workers=True)
    return [
        {
            "network": setup.network, "precision": setup.precision, "width": width,
            "deterministic": deterministic, "steps": setup.sizes.same_steps, **_compared(*pair),
        }
        for (setup, width), *pair in zip(tasks, *runs, strict=True)
    ]  # fmt: skip


def _compared(one: Weights | str, other: Weights | str) -> Row:
    """Whether all is equal to the bit, and the largest difference; or why it could not be computed."""
    if isinstance(one, str) or isinstance(other, str):
        return {"problem": one if isinstance(one, str) else other}
    gaps = [float(np.abs(one[n].astype(np.float64) - other[n].astype(np.float64)).max()) for n in one]
    return {"same": all(one[n].tobytes() == other[n].tobytes() for n in one), "largest": max(gaps)}


def _trained(setup: Setup, width: int, deterministic: bool) -> Weights | str:
    """The weights of the first network after so many steps; or the sentence with which torch refuses."""
    torch.set_num_threads(1)
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(deterministic)
    try:
        with products_in(setup.precision), flushed_denormals(), private_rng():
            learner = learner_of(setup.jobs(width))
            for step, batch in enumerate(learner.batches(0, setup.sizes.same_steps)):
                learner.train_step(batch, step)
            return {name: tensor.numpy() for name, tensor in learner.state(0).weights.items()}
    except RuntimeError as error:
        return str(error).splitlines()[0]
    finally:
        torch.use_deterministic_algorithms(before)
