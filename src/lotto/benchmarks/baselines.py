"""The baselines: what a user would otherwise have.

The *usual* loop: a `Dataset` of PIL images with per-image transforms behind a `DataLoader`, float32, NCHW, masks
multiplied in. The *tight* loop: written by hand over tensors in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from lotto.benchmarks.harness import Contender
from lotto.core.errors import UsageError
from lotto.core.weights import Weights
from lotto.data.in_memory import Arrays
from lotto.data.sources.catalog import Published
from lotto.pruning import masks
from lotto.pruning.masks import Mask
from lotto.pruning.rule import prune
from lotto.recipe import presets
from lotto.recipe.recipe import Recipe


class Images(Dataset[tuple[Tensor, int]]):
    """Images one by one, with the transforms that everyone writes.

    Tensor operation by tensor operation what torchvision's data sets, ``ToTensor`` and ``Normalize`` do to an
    image: picked as a tensor, made an image, copied to an array, scaled, copied again, normalised.
    """

    def __init__(self, data: Arrays, mean: Sequence[float], std: Sequence[float], augment: bool) -> None:
        x = data.x["train"].permute(0, 2, 3, 1).contiguous()
        self.images = x[..., 0] if x.shape[-1] == 1 else x
        self.labels = data.y["train"]
        self.mean, self.std = mean, std
        self.augment = augment

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[index].numpy())
        if self.augment:
            width, height = image.size
            image = ImageOps.expand(image, 4)
            left, top = int(torch.randint(0, 9, (1,))), int(torch.randint(0, 9, (1,)))
            image = image.crop((left, top, left + width, top + height))
            if torch.rand(1) < 0.5:
                image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(image, copy=True)).view(image.size[1], image.size[0], -1)
        pixels = pixels.permute(2, 0, 1).contiguous().to(torch.get_default_dtype()).div(255)
        pixels = pixels.clone()
        mean = torch.as_tensor(self.mean, dtype=pixels.dtype, device=pixels.device)
        std = torch.as_tensor(self.std, dtype=pixels.dtype, device=pixels.device)
        if (std == 0).any():
            raise UsageError("A standard deviation is 0.")
        return pixels.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1)), int(self.labels[index])


@cache
def lenet_epoch() -> Recipe:
    """An epoch of LeNet-300-100 on MNIST, which several benchmarks train."""
    return presets.lenet_mnist_sgd(steps="1ep", evaluations=1, device="cpu")


def arrays_of(recipe: Recipe) -> Arrays:
    """The recipe's data, which are in memory."""
    assert isinstance(recipe.arrays, Arrays)
    return recipe.arrays


def usual(recipe: Recipe, mask: Mask, published: Published) -> Contender:
    """A training in the usual loop, at most an epoch, and an evaluation."""
    arrays = arrays_of(recipe)
    images = Images(arrays, published.mean, published.std, recipe.augment is not None)

    def contender() -> None:
        model = recipe.build()
        model.load_state_dict(recipe.initial(0))
        parameters = dict(model.named_parameters())
        optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.optimizer.lr,
            momentum=getattr(recipe.optimizer, "momentum", 0.0),
            weight_decay=recipe.optimizer.weight_decay,
        )
        loader = DataLoader(images, batch_size=recipe.batch_size, shuffle=True, drop_last=True)
        for step, (x, y) in enumerate(loader):
            if step == recipe.total:
                break
            loss = F.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            with torch.no_grad():
                for name, keep in mask.items():
                    parameters[name].mul_(keep)
        _evaluate(model, arrays)

    return contender


@torch.no_grad()
def _evaluate(model: nn.Module, arrays: Arrays) -> None:
    model.eval()
    wrong = 0
    for x, y in arrays.evaluation("test", 1000):
        wrong += int((model(x).argmax(1) != y).sum())


def tight(recipe: Recipe, mask: Mask) -> Contender:
    """The tightest loop over tensors in memory: floats made beforehand, one permutation, a fused optimizer."""
    arrays = arrays_of(recipe)
    x, y = arrays.normalise(arrays.x["train"]).flatten(1), arrays.y["train"]
    keep = [m.float() for m in mask.values()]

    def contender() -> None:
        model = recipe.build()
        model.load_state_dict(recipe.initial(0))
        parameters = dict(model.named_parameters())
        masked = [parameters[n] for n in mask]
        optimizer = torch.optim.SGD(model.parameters(), lr=recipe.optimizer.lr, fused=True)
        order = torch.randperm(len(x))
        for step in range(recipe.per_epoch):
            index = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            loss = F.cross_entropy(model(x[index]), y[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch._foreach_mul_([p.grad for p in masked if p.grad is not None], keep)
            optimizer.step()
        _evaluate(model, arrays)

    return contender


def tight_steps(recipe: Recipe, count: int) -> Contender:
    """So many steps of the tightest loop, dense, with SGD as the recipe says; nothing is evaluated."""
    arrays = arrays_of(recipe)
    x, y = arrays.normalise(arrays.x["train"]), arrays.y["train"]
    model, given = recipe.build(), recipe.optimizer
    model.load_state_dict(recipe.initial(0))
    momentum, decay = getattr(given, "momentum", 0.0), given.weight_decay
    optimizer = torch.optim.SGD(model.parameters(), given.lr, momentum=momentum, weight_decay=decay, fused=True)

    def contender() -> None:
        order = torch.randperm(len(x))
        for step in range(count):
            index = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            loss = F.cross_entropy(model(x[index]), y[index])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

    return contender


def half_left(recipe: Recipe) -> Mask:
    """A mask of the initial weights with half of them."""
    return prune(recipe.initial(0), masks.ones(recipe), rate=0.5)


def power_iterations(
    recipe: Recipe, weights: Weights, k: int, examples: int, tolerance: float = 1e-5, most: int = 1000
) -> list[float]:
    """The largest eigenvalues of the Hessian by power iteration and deflation, one after another, as usually written.

    Values that change by less than a relative 1e-5 in an iteration are right to about 1e-3; 1e-3 makes 1e-2 and worse.
    """
    model = recipe.build()
    model.load_state_dict(dict(weights))
    prunable = masks.ones(recipe)
    parameters = [p for n, p in model.named_parameters() if n in prunable]
    arrays = arrays_of(recipe)
    x, y = arrays.normalise(arrays.x["train"][:examples]), arrays.y["train"][:examples]
    gradients = torch.autograd.grad(F.cross_entropy(model(x), y), parameters, create_graph=True)
    generator = torch.Generator().manual_seed(0)
    values: list[float] = []
    vectors: list[list[Tensor]] = []
    for _ in range(k):
        vector = [torch.randn(p.shape, generator=generator) for p in parameters]
        value = 0.0
        for _ in range(most):
            for other in vectors:
                overlap = sum(float((a * b).sum()) for a, b in zip(vector, other, strict=True))
                vector = [a - overlap * b for a, b in zip(vector, other, strict=True)]
            length = sum(float(a.square().sum()) for a in vector) ** 0.5
            vector = [a / length for a in vector]
            product = torch.autograd.grad(gradients, parameters, vector, retain_graph=True)
            before, value = value, sum(float((a * b).sum()) for a, b in zip(product, vector, strict=True))
            if abs(value - before) <= tolerance * abs(value):
                break
            vector = list(product)
        values.append(value)
        length = sum(float(a.square().sum()) for a in vector) ** 0.5
        vectors.append([a / length for a in vector])
    return values
