"""What reading through a data source costs: batches of a loader of torch's against a plain loop over it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

from lotto.benchmarks.baselines import Images
from lotto.benchmarks.harness import Benchmark, Contender, ignore
from lotto.data.in_memory import Arrays
from lotto.data.loaders import from_loaders
from lotto.recipe.optimizers import SGD
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job
from lotto.training.loop import train

EXAMPLES, BATCH = 6400, 128
GOAL = "≥ 0.9"


def data(epochs: int = 1) -> Benchmark:
    """Epochs of a loader read by a plain loop and through `lotto.data.from_loaders`; and a network trained on one.

    Of images that are cropped, mirrored and normalised one by one, as in the usual loop; of images without that; of
    tensors, the cheapest examples that there are; and of a stream, by a sampler that draws with weights.
    """
    draws = np.random.default_rng(0)
    pixels, labels = draws.integers(0, 256, (EXAMPLES, 1, 28, 28), np.uint8), np.arange(EXAMPLES) % 10
    arrays = Arrays(pixels, labels, pixels[:BATCH], labels[:BATCH])
    tensors = TensorDataset(arrays.normalise(arrays.x["train"]), arrays.y["train"])
    images, augmented = (Images(arrays, (0.5,), (0.29,), augment) for augment in (False, True))
    loaders: dict[str, DataLoader[Any]] = {
        "augmented images": _shuffled(augmented),
        "images": _shuffled(images),
        "tensors": _shuffled(tensors),
        "weighted sampler": DataLoader(images, BATCH, sampler=WeightedRandomSampler([1.0] * EXAMPLES, EXAMPLES)),
    }
    contenders: dict[str, Contender] = {}
    pairs = []
    for name, loader in loaders.items():
        ours, plain = f"{name}, lotto", f"{name}, plain loop"
        contenders[ours] = _Reading(_Through(loader), epochs)
        contenders[plain] = _Reading(loader, epochs)
        pairs.append((ours, plain, GOAL))
    recipe = Recipe(_Net, from_loaders(loaders["images"], loaders["images"]), SGD(0.1), batch_size=BATCH, steps="1ep")
    contenders["training, lotto"] = lambda: ignore(train(Job(recipe.replace(evaluations=0))))
    contenders["training, plain loop"] = lambda: _trained(loaders["images"])
    pairs.append(("training, lotto", "training, plain loop", GOAL))
    return Benchmark(f"An epoch of a loader of torch's, {EXAMPLES:,} examples, no workers", contenders, pairs, 1)


class _Net(nn.Sequential):
    """Somebody's own network."""

    def __init__(self) -> None:
        super().__init__(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), nn.Linear(300, 10))


def _trained(loader: DataLoader[Any]) -> None:
    """An epoch of plain SGD, and the evaluation that a training of lotto's ends with."""
    model = _Net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in loader:
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        for x, y in loader:
            (F.cross_entropy(model(x), y), (model(x).argmax(1) != y).sum())


def _shuffled(examples: Dataset[Any]) -> DataLoader[Any]:
    return DataLoader(examples, BATCH, shuffle=True, drop_last=True)


class _Through:
    """An epoch of a loader's batches through a data source."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.source = from_loaders(loader, loader)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.source.train_batches(0, 0, EXAMPLES // BATCH, BATCH))


class _Reading:
    """Reads all batches, and sees that all examples came."""

    def __init__(self, batches: Any, epochs: int) -> None:
        self.batches, self.epochs = batches, epochs

    def __call__(self) -> None:
        for _ in range(self.epochs):
            assert sum(len(targets) for _, targets in self.batches) == EXAMPLES
