"""The Hessian over the unpruned coordinates, as something that multiplies vectors.

It is that of the recipe's mean loss over the training set, in evaluation mode, without augmentation, in float32 at
least, with respect to the prunable weights that the mask keeps (D of them). Everything else (biases, normalisation
parameters and statistics) stays where it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lotto.core.check import Count, checked
from lotto.core.errors import UsageError
from lotto.core.weights import Weights
from lotto.data import Split
from lotto.landscape.batchnorm import NORMS
from lotto.landscape.subspace import check_not_empty
from lotto.pruning import masks
from lotto.pruning.masks import MaskLike
from lotto.recipe.recipe import Recipe
from lotto.recipe.totals import mean_of
from lotto.training.evaluation import BATCH, examples_of
from lotto.training.network import Network, flushed_denormals

HELD_EXAMPLES = 4 * BATCH
"""Up to so many examples, the first derivatives and their graphs are computed once: half of a product's time."""


@checked
class Hessian:
    """The Hessian as something that multiplies vectors of length D; symmetric up to rounding.

    Args:
        recipe: model, data, loss.
        weights: a whole state dict; pruned weights are taken as 0.
        mask: the unpruned coordinates; None = all prunable weights.
        split: the examples that the loss is averaged over.
        examples: the first so many of them; None = all.

    Raises:
        UsageError: if nothing is unpruned, the mask does not fit, or the loss is not a function of the weights
            (BatchNorm without running statistics, dropout that evaluation mode does not switch off).
    """

    def __init__(
        self,
        recipe: Recipe,
        weights: Weights,
        mask: MaskLike | None = None,
        split: Split = "train",
        examples: Count | None = None,
    ) -> None:
        if recipe.precision == "bfloat16":
            recipe = recipe.replace(precision="float32", channels_last=recipe.uses_channels_last)
        self.recipe = recipe
        mask = masks.ones(recipe) if mask is None else mask
        check_not_empty(mask)
        self.network = Network(recipe, masks.apply(weights, masks.cover_shared(mask, recipe.meta_model())))
        module = self.network.module.eval().requires_grad_(False)
        for name, part in module.named_modules():
            if isinstance(part, NORMS) and not part.track_running_stats:
                raise UsageError(
                    f"{name!r} normalises by the statistics of each batch even in evaluation mode, so the loss is not "
                    "a mean over examples; curvature needs running statistics."
                )
        parameters = dict(module.named_parameters(remove_duplicate=False))
        self.parameters = [parameters[name].requires_grad_(True) for name in mask]
        device = self.network.device
        self.index = [keep.flatten().nonzero().squeeze(1).to(device) for keep in mask.values()]
        self.size = sum(len(i) for i in self.index)
        self.split, self.examples = split, examples
        self._mean = mean_of(recipe.loss_function)
        self._held: list[tuple[float, tuple[Tensor, ...]]] = []
        self._check_determined()

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The examples in their own order, not augmented."""
        yield from examples_of(self.recipe, self.network, self.split, self.examples)

    def _loss(self, x: Tensor, y: Tensor) -> tuple[Tensor, float]:
        """The loss of a batch and its weight in the mean over all."""
        if self._mean is None:
            return self.recipe.loss_function(self.network(x), y), len(x)
        loss, weight = self._mean(self.network(x), y)
        return loss, float(weight)

    def _check_determined(self) -> None:
        x, y = next(self.batches())
        with torch.no_grad():
            first, second = (self.recipe.loss_function(self.network(x), y) for _ in range(2))
        if not torch.equal(first.nan_to_num(), second.nan_to_num()):  # a batch of no target has no loss
            raise UsageError(
                "The loss of the same batch differs between two evaluations: some module draws random numbers in "
                "evaluation mode (dropout called with training=True?), so there is no Hessian."
            )
        if self._mean is None and len(y) < (self.examples or self.recipe.arrays.size(self.split)):
            self._check_mean(first, x, y)

    @torch.no_grad()
    def _check_mean(self, whole: Tensor, x: Tensor, y: Tensor) -> None:
        """A loss that nobody has said anything about is taken as a mean over examples, if it is one."""
        at = len(y) // 3
        parts = [
            len(b) * float(self.recipe.loss_function(self.network(a), b))
            for a, b in ((x[:at], y[:at]), (x[at:], y[at:]))
        ]
        if abs(sum(parts) / len(y) - float(whole)) > 1e-4 * sum(map(abs, parts)) / len(y):
            raise UsageError(
                "The loss of a batch is not the mean over its examples, so batches do not add up to the loss of all. "
                "Say what it is a mean of, loss=lotto.recipe.totals.Ratio(function that returns its sum and its "
                f"weight), or take at most examples={len(y)}."
            )

    def __matmul__(self, vector: np.ndarray) -> np.ndarray:
        """``H v`` in float64, summed over batches in float64."""
        direction = self._scatter(vector)
        total = torch.zeros(self.size, dtype=torch.float64, device=self.network.device)
        count = 0.0
        with flushed_denormals():
            for weight, first in self._first_derivatives():
                along = [(g, d) for g, d in zip(first, direction, strict=True) if g.requires_grad]
                if along:
                    second = torch.autograd.grad(
                        [g for g, _ in along], self.parameters, [d for _, d in along],
                        retain_graph=bool(self._held), allow_unused=True,
                    )  # fmt: skip
                    total += weight * self._gather(second)
                count += weight
        return (total / count).cpu().numpy()

    def _first_derivatives(self) -> Iterator[tuple[float, tuple[Tensor, ...]]]:
        """Gradients of each batch as functions of the weights; few batches are kept from product to product."""
        if self._held:
            yield from self._held
            return
        keep = (self.examples or self.recipe.arrays.size(self.split)) <= HELD_EXAMPLES
        made = []
        for x, y in self.batches():
            loss, weight = self._loss(x, y)
            if not weight:  # of no target
                continue
            item = weight, torch.autograd.grad(loss, self.parameters, create_graph=True)
            if keep:
                made.append(item)
            else:
                yield item
        self._held = made
        yield from made

    def gradient(self) -> np.ndarray:
        """The gradient of the same loss over the same coordinates, in float64."""
        total = torch.zeros(self.size, dtype=torch.float64, device=self.network.device)
        count = 0.0
        for x, y in self.batches():
            loss, weight = self._loss(x, y)
            if not weight:
                continue
            total += weight * self._gather(torch.autograd.grad(loss, self.parameters))
            count += weight
        return (total / count).cpu().numpy()

    def dense(self) -> np.ndarray:
        """The whole matrix, column by column; for small networks."""
        matrix = np.stack([self @ column for column in np.eye(self.size)], axis=1)
        return (matrix + matrix.T) / 2

    def point(self) -> np.ndarray:
        """The unpruned weights, in the order of the coordinates."""
        return self._gather([p.detach() for p in self.parameters]).cpu().numpy()

    def _scatter(self, vector: np.ndarray) -> list[Tensor]:
        flat = torch.from_numpy(np.ascontiguousarray(vector, dtype=np.float64)).to(self.network.device)
        made, at = [], 0
        for parameter, index in zip(self.parameters, self.index, strict=True):
            full = torch.zeros(parameter.numel(), dtype=parameter.dtype, device=parameter.device)
            full[index] = flat[at : at + len(index)].to(parameter.dtype)
            made.append(full.view(parameter.shape))
            at += len(index)
        return made

    def _gather(self, tensors: Any) -> Tensor:
        parts = []
        for tensor, parameter, index in zip(tensors, self.parameters, self.index, strict=True):
            flat = torch.zeros_like(parameter) if tensor is None else tensor
            parts.append(flat.reshape(-1)[index].double())
        return torch.cat(parts)
