"""What the sample stores hold: a few trainings and a path, of networks of lotto's and of the user's, in kilobytes.

    python tests/samples/sampled.py tests/samples/VERSION

makes the sample of a version that is to be published. A sample is never made again: that it can still be read is the promise.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

import lotto
from lotto.execution.compute import get_or_compute
from lotto.landscape.path import PathTask

REWIND = "3it"


class Gated(torch.nn.Module):
    """A network of the user's: its key is what it reaches."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.first, self.last = torch.nn.Linear(4, width), torch.nn.Linear(width, 3)

    def forward(self, x):
        return self.last(squashed(self.first(x)))


def squashed(x):
    """Reached by the network, and so a part of its key."""
    return torch.tanh(SCALE * x)


SCALE = 2.0


def arrays() -> lotto.data.Arrays:
    """Sixty examples of three classes, from whole numbers: the same bits everywhere."""
    x = (np.arange(240, dtype=np.int64) * 7919 % 101).astype(np.float32).reshape(60, 4) / 101
    y = x.argmax(1).astype(np.int64) % 3
    return lotto.data.Arrays(x[:40], y[:40], x[40:], y[40:], name="sample")


def recipe(model: object = "mlp-3") -> lotto.Recipe:
    """A recipe whose key has no default in it that a later version might change."""
    return lotto.Recipe(
        model, arrays(), lotto.SGD(0.1, momentum=0.9), schedule=lotto.Linear(), batch_size=10, steps="8it",
        init="kaiming-normal", evaluations=1, tolerance=5.0, name="sample",
    )  # fmt: skip


def searched(store: lotto.Store) -> lotto.lottery.result.ImpResult:
    """Dense network, two levels, and their random controls."""
    return lotto.imp(
        recipe(), levels=2, rate=0.5, rewind_to=REWIND, replicates=1, controls=("random",), control_levels=(1,), jobs=1,
        store=store, progress=False,
    )  # fmt: skip


def weights(sign: float = 1.0) -> dict[str, torch.Tensor]:
    """Weights of the perceptron, from whole numbers."""
    shapes = {"fc1.weight": (3, 4), "fc1.bias": (3,), "fc2.weight": (3, 3), "fc2.bias": (3,)}
    return {name: sign * torch.arange(float(np.prod(shape))).reshape(shape) / 16 for name, shape in shapes.items()}


def items() -> dict[str, lotto.Job | PathTask]:
    """One of each kind that a store keeps, by a name."""
    start, mask = weights(), {name: tensor > 0.3 for name, tensor in weights().items() if tensor.dim() == 2}
    rigl = lotto.DynamicSparsity("rigl", every="2it")
    return {
        "a training": lotto.Job(recipe(), keep=(3,)),
        "of a network of the user's": lotto.Job(recipe(Gated), init_seed=1),
        "of a ticket": lotto.Job(recipe(), start=lotto.State(start, {}), mask=lotto.Mask(mask), from_step=3),
        "with a mask that changes": lotto.Job(recipe(), mask=lotto.Mask(mask), sparsity=rigl),
        "a path": PathTask(recipe(), weights(), weights(-1.0), points=3),
    }


def make(folder: Path) -> None:
    """Write a sample: a store, and of a result the files that are read again."""
    store = lotto.Store(folder / "store")
    for item in items().values():
        get_or_compute(store, item)
    with tempfile.TemporaryDirectory() as name:
        saved = searched(store).save(Path(name, "result"))
        (folder / "result").mkdir()
        for kept in ("result.safetensors", "ticket.safetensors", "table.csv"):
            shutil.copyfile(saved / kept, folder / "result" / kept)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
