"""A batch in pieces: slices of it on several processes, groups of it that are computed each by itself, or both.

The batch of (seed, step) is the same for any number of processes. Each computes the gradient of its slice; these are
added up with the weights of what they are means of (examples, targets that count) and divided once, so that slices of
different sizes make no difference; then they are masked as everywhere. BatchNorm has the statistics of the whole batch,
or of each of the recipe's ``batch_groups``, which is another computation and has another key.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lotto.core.errors import UsageError
from lotto.core.pytree import flatten
from lotto.core.ranks import Ranks
from lotto.core.rng import seed_host, seed_torch, torch_seed
from lotto.core.weights import digest
from lotto.data.augment import Augment
from lotto.data.batch import Batch, count, joined
from lotto.data.batch import examples as some
from lotto.data.image_folder import ImageFolder
from lotto.models.norm_relu import by_operators
from lotto.recipe.recipe import Recipe
from lotto.recipe.totals import mean_of
from lotto.training.job import Job, State
from lotto.training.learners.autograd import Autograd
from lotto.training.learners.batch_groups import NormsOf, Slices, Statistics, counters, keep_means
from lotto.training.learners.slicing import (
    check_devices,
    check_divides,
    check_slices,
    draws_for_all,
    generators,
    too_small,
)
from lotto.training.network import Network


class Slice(NamedTuple):
    """A process's examples of a step.

    Attributes:
        batch: inputs and targets.
        parts: how many of the examples are of each batch of the step, or of each group of these.
        wholes: how many examples each of these batches has.
    """

    batch: Batch
    parts: Sequence[int]
    wholes: Sequence[int]


class Distributed(Autograd):
    """See `Autograd`: the same for a part of each batch.

    Args:
        jobs, network, states: see `Learner`.
        ranks: the processes that have the other parts.

    Raises:
        WorkerError: if they have other weights or another mask.
        UsageError: if what a network gives for a slice is not what it gives for the slice within its batch.
    """

    def __init__(self, jobs: Sequence[Job], network: Network, states: Sequence[State], ranks: Ranks) -> None:
        super().__init__(jobs, network, states)
        recipe, self.ranks, network.ranks = self.job.recipe, ranks, ranks
        self.groups = recipe.batch_groups
        check_divides(recipe, ranks.size)
        self.own_groups = max(1, self.groups // ranks.size)
        self.weight = torch.zeros((), dtype=torch.float64)
        by_operators(self.module)
        check_devices(ranks, network.device)
        ranks.check_same("masks", digest(self.job.mask or {}))
        ranks.check_same("weights", digest({**states[0].weights, **states[0].optimizer}))
        if ranks.size > 1 and self.groups == 1:
            check_slices(recipe, self.outputs, self.module, ranks, self.draws)

    @staticmethod
    def is_needed(recipe: Recipe, ranks: Ranks) -> bool:
        """Whether batches are computed in pieces."""
        return ranks.size > 1 or recipe.batch_groups > 1

    def batches(self, first: int, last: int) -> Iterator[Any]:
        """Slices."""
        recipe, data = self.job.recipe, self.job.recipe.arrays.to(self.network.device)
        if type(data) is ImageFolder and type(recipe.augment) in (type(None), Augment):  # no image is read for others
            size = recipe.step_examples
            bounds, wholes = self._bounds(size)
            only = [i for bound in bounds for i in range(*bound)]
            for batch in data.batches(self.job.order_seed, first, last, size, recipe.augment, only=only):
                yield Slice(batch, [end - begin for begin, end in bounds], wholes)
            return
        for whole in super().batches(first, last):
            bounds, wholes = self._bounds(count(whole.targets))
            parts = [Batch(*(some(part, *bound) for part in whole)) for bound in bounds]
            yield Slice(parts[0] if len(parts) == 1 else joined(parts), [end - begin for begin, end in bounds], wholes)

    def _bounds(self, examples: int) -> tuple[list[tuple[int, int]], list[int]]:
        """The first of this process's examples and the one after the last, for each batch of a step or group of it.

        And how many examples these batches have.
        """
        recipe, pieces = self.job.recipe, self.own_groups * self.ranks.size
        step = recipe.batch_size if recipe.accumulate > 1 else examples
        found, wholes = [], []
        for begin in range(0, examples, step):
            length = min(step, examples - begin)
            if length < pieces:
                raise UsageError(too_small(recipe, length, pieces))
            which = range(self.ranks.rank * self.own_groups, (self.ranks.rank + 1) * self.own_groups)
            found += [(begin + i * length // pieces, begin + (i + 1) * length // pieces) for i in which]
            wholes += [length] * self.own_groups
        return found, wholes

    def _gradients(self, batch: Slice, step: int) -> Tensor:
        (x, y), first = batch.batch, 0
        self._clear_gradients()
        sums = torch.zeros(2, dtype=torch.float64)  # of the losses, and of what they weigh
        for number in range(0, len(batch.parts), self.own_groups):
            settle, found = counters(self.module if self.own_groups > 1 else None), list[list[Statistics]]()
            for i in range(number, number + self.own_groups):
                self._seed(step, number // self.own_groups, i - number)
                part, targets = (some(tree, first, first + batch.parts[i]) for tree in (x, y))
                slices = Slices(self.ranks, batch.parts[i], batch.wholes[i]) if self.groups == 1 else None
                before = generators(self.network.device) if self.draws and slices else None
                found.append(self._backward_of(part, targets, slices, sums))
                if before is not None and generators(self.network.device) != before:  # not at first, see `slicing`
                    raise UsageError(draws_for_all(self.job.recipe, self.ranks))
                first += batch.parts[i]
            if self.groups == 1:
                for statistics in found[0]:
                    statistics.keep()
            else:
                keep_means(found, self.groups, self.ranks)
                settle(self.own_groups)
        self._add_up(sums)
        loss, self.weight = sums
        return loss / self.weight if self.weight else loss * math.nan

    def _seed(self, step: int, batch: int, group: int) -> None:
        """Before a forward: what it draws is the step's, or its group's."""
        if not self.draws:
            return
        if self.groups > 1:
            number = batch * self.groups + self.ranks.rank * self.own_groups + group
            seed = torch_seed(self.job.order_seed, f"forward of group {number}", step)
            seed_host(seed)
            seed_torch(seed, self.network.device)
        elif batch == 0:
            seed_torch(torch_seed(self.job.order_seed, "forward", step), self.network.device)

    def _backward_of(self, x: Any, y: Any, slices: Slices | None, sums: Tensor) -> list[Statistics]:
        """Add the gradients of a part's loss, times what it weighs; returns the statistics of its BatchNorms."""
        loss_function = self.job.recipe.loss_function
        mean = mean_of(loss_function)
        with NormsOf(slices) as norms:
            outputs = self.outputs(x)
            loss, weighs = (loss_function(outputs, y), count(y)) if mean is None else mean(outputs, y)
            if weight := float(weighs):
                (loss * weight).backward()
                sums += torch.tensor([float(loss.detach()) * weight, weight], dtype=torch.float64)
            else:  # no target of it counts: others may need its part in BatchNorm's gradients all the same
                leaves = [o for o in flatten(outputs) if isinstance(o, Tensor) and o.requires_grad and o.dim()]
                torch.autograd.backward([leaf.sum() * 0.0 for leaf in leaves])
        return norms.found

    @torch.no_grad()
    def _add_up(self, sums: Tensor) -> None:
        """Make this process's sums and gradients those of all, and the gradients those of the mean."""
        parameters = [*self.parameters.values()]
        there = torch.tensor([float(p.grad is not None) for p in parameters], dtype=torch.float64)
        message = torch.cat([sums, there])
        self.ranks.sum_([message])
        sums.copy_(message[:2])
        trained = [p for p, seen in zip(parameters, message[2:].tolist(), strict=True) if seen]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in trained]
        for dtype in {g.dtype: None for g in gradients}:
            same = [g for g in gradients if g.dtype == dtype]
            flat = torch.cat([g.reshape(-1) for g in same])
            self.ranks.sum_([flat])
            for gradient, part in zip(same, flat.split([g.numel() for g in same]), strict=True):
                gradient.copy_(part.reshape(gradient.shape))
        for parameter, gradient in zip(trained, gradients, strict=True):
            parameter.grad = gradient
        if gradients and sums[1]:  # else nothing of it counts, and they are 0
            torch._foreach_div_(gradients, float(sums[1]))

    def weigh(self, batch: Any, weight: Callable[[Tensor], Tensor]) -> Tensor:
        """Of the whole batch, as `train_step` has added it up."""
        return self.weight.clone()

    def eval_network(self, i: int = 0) -> Network:
        found = super().eval_network(i)
        found.ranks = self.ranks
        return found

    def describe(self) -> str:
        groups = f", {self.groups} groups of a batch" if self.groups > 1 else ""
        ranks = f", {self.ranks.size} ranks" if self.ranks.size > 1 else ""
        return f"autograd{groups}{ranks} (no kernels: these take whole batches)"
