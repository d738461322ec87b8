"""What reading through a data source costs: batches of a loader of torch's against a plain loop over it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, TensorDataset, WeightedRandomSampler

from lotto.benchmarks.baselines import Images
from lotto.benchmarks.harness import Benchmark, Contender, ignore
from lotto.data.in_memory import Arrays
from lotto.data.loaders import from_loaders
from lotto.data.source import Adapted
from lotto.recipe.optimizers import SGD
from lotto.recipe.recipe import Recipe
from lotto.training.job import Job
from lotto.training.loop import train

EXAMPLES, BATCH = 6400, 128
EPOCHS = 25
"""Of what is read in hundredths of a second."""
BEGINNINGS = 200
GOAL = "≥ 0.9"


def data() -> Benchmark:
    """Epochs of a loader read by a plain loop and as a training reads `lotto.data.from_loaders`; and a training on one.

    Of images that are cropped, mirrored and normalised one by one, as in the usual loop; of images without that; of a
    stream, by a sampler that draws with weights; of tensors one by one, the cheapest examples that there are, and in
    torch's own data set of tensors. Of these so many epochs are read that it is their rate which is compared; what it
    costs to begin is a row of its own, of readings of one batch.
    """
    draws = np.random.default_rng(0)
    pixels, labels = draws.integers(0, 256, (EXAMPLES, 1, 28, 28), np.uint8), np.arange(EXAMPLES) % 10
    arrays = Arrays(pixels, labels, pixels[:BATCH], labels[:BATCH])
    tensors = TensorDataset(arrays.normalise(arrays.x["train"]), arrays.y["train"])
    images, augmented = (Images(arrays, (0.5,), (0.29,), augment) for augment in (False, True))
    weighted = DataLoader(images, BATCH, sampler=WeightedRandomSampler([1.0] * EXAMPLES, EXAMPLES))
    read: dict[str, tuple[DataLoader[Any], int]] = {
        "augmented images": (_shuffled(augmented), 1),
        "images": (_shuffled(images), 1),
        "weighted sampler": (weighted, 1),
        "tensors one by one": (_shuffled(_OneByOne(tensors)), EPOCHS),
        "TensorDataset": (_shuffled(tensors), EPOCHS),
    }
    contenders: dict[str, Contender] = {}
    pairs = []
    for name, (loader, epochs) in read.items():
        ours, plain = f"{name}, lotto", f"{name}, plain loop"
        contenders[ours] = _Reading(_Through(loader, epochs), epochs)
        contenders[plain] = _Reading(_Epochs(loader, epochs), epochs)
        pairs.append((ours, plain, GOAL))
    first, through = read["tensors one by one"][0], _Through(read["tensors one by one"][0], 1)
    contenders[f"{BEGINNINGS} first batches, lotto"] = lambda: _begun(through)
    contenders[f"{BEGINNINGS} first batches, plain loop"] = lambda: _begun(first)
    pairs.append((f"{BEGINNINGS} first batches, lotto", f"{BEGINNINGS} first batches, plain loop", "–"))
    loader = read["images"][0]
    recipe = Recipe(_Net, from_loaders(loader, loader), SGD(0.1), batch_size=BATCH, steps="1ep", evaluations=0)
    contenders["training, lotto"] = lambda: ignore(train(Job(recipe)))
    contenders["training, plain loop"] = lambda: _trained(loader)
    pairs.append(("training, lotto", "training, plain loop", GOAL))
    return Benchmark(f"Epochs of a loader of torch's, {EXAMPLES:,} examples, no workers", contenders, pairs, 1)


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


class _OneByOne(Dataset[Any]):
    """Somebody's own data set, of examples that cost nothing."""

    def __init__(self, tensors: TensorDataset) -> None:
        self.x, self.y = tensors.tensors

    def __len__(self) -> int:
        return len(self.y)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.x[index], self.y[index]


class _Through:
    """Epochs of a loader's batches through a data source, as a training reads them."""

    def __init__(self, loader: DataLoader[Any], epochs: int) -> None:
        self.source, self.epochs = Adapted(from_loaders(loader, loader)), epochs

    def __iter__(self) -> Iterator[Any]:
        return self.source.batches(0, 0, self.epochs * (EXAMPLES // BATCH), BATCH)


class _Epochs:
    """Epochs of a loader's batches, one after the other."""

    def __init__(self, loader: DataLoader[Any], epochs: int) -> None:
        self.loader, self.epochs = loader, epochs

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.epochs):
            yield from self.loader


class _Reading:
    """Reads all batches, and sees that all examples came."""

    def __init__(self, batches: Any, epochs: int) -> None:
        self.batches, self.epochs = batches, epochs

    def __call__(self) -> None:
        assert sum(len(targets) for _, targets in self.batches) == self.epochs * EXAMPLES


def _begun(batches: Any) -> None:
    """Begin to read many times."""
    for _ in range(BEGINNINGS):
        _, targets = next(iter(batches))
        assert len(targets) == BATCH
