"""Scores that read a network and its data: computed where there is a recipe, remembered like a training.

A score that reads weights alone is computed at once. One that asks for derivatives, activations, the network or its
batches is a `ScoreTask`: its key covers the score's code, the recipe's network, data and loss, the weights, the mask.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.core.fingerprint import affects
from lotto.core.shown import shown
from lotto.core.weights import Weights
from lotto.data.batch import Batch, mapped
from lotto.data.source import ENDLESS
from lotto.execution.engine import Engine, Progress
from lotto.execution.procedures import Procedure
from lotto.execution.rule import outcome_of
from lotto.execution.store import Store
from lotto.execution.task import OnStep, Task
from lotto.landscape.curvature.operator import Hessian, twice_differentiable
from lotto.pruning import masks
from lotto.pruning.context import NeedsNetworkError
from lotto.pruning.density import check_target
from lotto.pruning.masks import Mask, MaskLike
from lotto.pruning.rule import Pruning, context_of, left_by, prune_by
from lotto.pruning.scores import Score, reads_density, score_function, score_name, scores_of
from lotto.recipe.own_loop import no_data
from lotto.recipe.recipe import Recipe
from lotto.training.network import Network, device_of


class NetworkMeasurements:
    """What a score may ask of a recipe's network: see `lotto.pruning.Context`, whose part of this name it is.

    Args:
        recipe: model, data, loss, precision; its batch size is that of ``batches``.
        weights: a whole state dict; pruned weights are taken as 0.
        mask: what is kept; derivatives are over these weights.
        seed: of the data order.
        examples: derivatives are over at most so many training examples, and there are at most so many in batches.
    """

    def __init__(
        self, recipe: Recipe, weights: Weights, mask: Mask, seed: int = 0, examples: int | None = None
    ) -> None:
        self.recipe, self.mask, self.seed, self.examples = recipe, mask, seed, examples
        self.weights = masks.apply(weights, masks.cover_shared(mask, recipe.meta_model()))
        self._operators: dict[int | None, Hessian] = {}

    @cached_property
    def model(self) -> nn.Module:
        """A network of the score's own, in evaluation mode."""
        return Network(self.recipe, self.weights).module.eval()

    @property
    def loss(self) -> Callable[[Any, Any], Tensor]:
        """The recipe's loss, of what the model returns."""
        if self.recipe.loop is not None:
            no_data("scores that call the loss (gradients and hvp do it for them)")
        recipe = self.recipe
        return lambda outputs, targets: recipe.loss_function(recipe.read(outputs), targets)

    @property
    def batches(self) -> _Batches:
        """One epoch of training batches, each time from the beginning."""
        if self.recipe.loop is not None:
            no_data("scores that read batches (gradients and hvp do it for them)")
        return _Batches(self)

    def gradients(self, examples: int | None = None) -> dict[str, Tensor]:
        """Over the kept weights; 0 for the others."""
        operator = self._operator(examples)
        return self._by_name(operator, operator.gradient())

    def hvp(self, vector: Mapping[str, Tensor], examples: int | None = None) -> dict[str, Tensor]:
        """The Hessian over the kept weights, times their entries in ``vector``."""
        operator = self._operator(examples)
        parts = [vector[n].detach().cpu().double()[keep.cpu().bool()] for n, keep in operator.mask.items()]
        return self._by_name(operator, operator @ torch.cat(parts).numpy())

    def activations(self) -> Iterator[dict[str, Tensor]]:
        """The inputs of the layers in each batch, by the names of their weights."""
        network = Network(self.recipe, self.weights)
        network.module.eval()
        found: dict[str, list[Tensor]] = {}
        handles = [
            module.register_forward_pre_hook(_noting(found, names), with_kwargs=True)
            for module, names in self._layers(network.module)
        ]
        try:
            for x, _ in self.batches:
                found.clear()
                with torch.no_grad(), twice_differentiable(network.module):  # fused kernels pass hooks by
                    network(x)
                yield {name: torch.cat(parts) for name, parts in found.items()}
        finally:
            for handle in handles:
                handle.remove()

    def _operator(self, examples: int | None) -> Hessian:
        counts = [count for count in (examples, self.examples) if count is not None]
        asked = min(counts, default=None)
        if asked not in self._operators:
            self._operators[asked] = Hessian(self.recipe, self.weights, self.mask, examples=asked)
        return self._operators[asked]

    def _by_name(self, operator: Hessian, values: np.ndarray) -> dict[str, Tensor]:
        found = {n: torch.zeros(keep.shape, dtype=torch.float64) for n, keep in self.mask.items()}
        at = 0
        for name, keep in operator.mask.items():
            size = int(keep.sum())
            found[name][keep.cpu().bool()] = torch.from_numpy(values[at : at + size])
            at += size
        return found

    def _layers(self, module: nn.Module) -> list[tuple[nn.Module, list[str]]]:
        """The modules that hold prunable weights, with the names of these."""
        return [
            (part, names)
            for prefix, part in module.named_modules()
            if (names := [n for n in self.mask if n.rpartition(".")[0] == prefix])
        ]


class _Batches:
    """The training batches of the first epoch of a data order; every loop over them begins anew."""

    def __init__(self, owner: NetworkMeasurements) -> None:
        self.owner = owner

    def __len__(self) -> int:
        size, examples = self.owner.recipe.step_examples, self.owner.examples
        if examples is None and self.owner.recipe.arrays.size() >= ENDLESS:
            raise UsageError(
                f"{self.owner.recipe.arrays.name} is a stream without an end, so a score cannot read all its batches: "
                "let it take derivatives over some examples, context.gradients(examples=1000)."
            )
        return self.owner.recipe.per_epoch if examples is None else max(1, examples // size)

    def __iter__(self) -> Iterator[Batch]:
        recipe, seed = self.owner.recipe, self.owner.seed

        def double(x: Tensor) -> Tensor:  # of the type of the model's weights: it is called as it is
            return x.double() if x.is_floating_point() else x

        for x, y in recipe.arrays.to(device_of(recipe)).batches(seed, 0, len(self), recipe.step_examples, None):
            yield Batch(mapped(x, double) if recipe.precision == "float64" else x, y)


def _noting(found: dict[str, list[Tensor]], names: list[str]) -> Callable[..., None]:
    def note(module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> None:
        inputs = next((x for x in (*given, *named.values()) if isinstance(x, Tensor)), None)
        if inputs is not None:
            for name in names:
                found.setdefault(name, []).append(inputs.detach())

    return note


@dataclass(frozen=True, eq=False)
class ScoreTask(Task):
    """Compute a score that reads the network and its data.

    Attributes:
        recipe: model, data, loss, precision.
        weights: a whole state dict.
        mask: what is kept.
        score: a function of a `lotto.pruning.Context`.
        start: the prunable weights at the rewind point.
        seed: of the score's random numbers and of the order of its batches.
        batch_size: of the context's batches; the recipe's.
        label: what progress displays call it.
        density: the share of all prunable weights that the cut leaves, where the score asks for it.
    """

    kind = "score"
    reads = "loss"

    recipe: Recipe
    weights: Weights
    mask: Mask
    score: Score
    start: Weights | None = None
    seed: int = 0
    batch_size: int = 0
    label: str = ""
    density: float | None = field(default=None, metadata=affects("outcome", unless=None))

    @property
    def size(self) -> int:
        """One step."""
        return 1

    def execute(self, on_step: OnStep | None = None) -> dict[str, Any]:
        """Returns ``scores``: by name, the type and, in base 64, the bytes of the kept weights' scores, in order."""
        measured = NetworkMeasurements(self.recipe, self.weights, self.mask, self.seed)
        context = context_of(measured.weights, self.mask, self.start, self.seed, measured)
        scores = scores_of(self.score, context, self.density)
        if on_step is not None:
            on_step(1, 0.0)
        return {"scores": {name: _packed(scores[name][keep.bool()]) for name, keep in self.mask.items()}}

    __repr__ = shown


def _packed(values: Tensor) -> list[str]:
    """Scores as text: exactly, and in a third more than their bytes."""
    array = values.double().numpy() if values.dtype == torch.bfloat16 else values.numpy()
    little = array.astype(array.dtype.newbyteorder("<"))
    return [little.dtype.name, base64.b64encode(little.tobytes()).decode()]


def unpacked(outcome: Mapping[str, Any], mask: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The scores of a `ScoreTask` by name, of the weights' shapes; 0 for pruned ones."""
    found = {}
    for name, keep in mask.items():
        kind, data = outcome["scores"][name]
        values = np.frombuffer(base64.b64decode(data), dtype=np.dtype(kind).newbyteorder("<")).astype(kind)
        full = torch.zeros(keep.shape, dtype=torch.from_numpy(values).dtype)
        full[keep.cpu().bool()] = torch.from_numpy(values)
        found[name] = full
    return found


def pruned(
    recipe: Recipe,
    rule: Pruning,
    weights: Weights,
    mask: Mask,
    *,
    start: Weights | None = None,
    seed: int = 0,
    label: str = "",
) -> Procedure[Mask]:
    """`lotto.pruning.prune` by a rule whose score may read the network: then as a task of the engine's."""
    try:
        return prune_by(rule, weights, mask, start=start, seed=seed)
    except NeedsNetworkError:
        left = left_by(rule, mask) if reads_density(rule.score) else None
        task = score_task(recipe, rule.score, weights, mask, start, seed, label, left)
    (outcome,) = yield [task]
    return prune_by(rule, weights, mask, start=start, seed=seed, scores=unpacked(outcome, mask))


def score_task(
    recipe: Recipe,
    score: str | Score,
    weights: Weights,
    mask: Mask,
    start: Weights | None = None,
    seed: int = 0,
    label: str = "",
    density: float | None = None,
) -> ScoreTask:
    """The task of a score, with the parts of the arguments that it reads."""
    density = density if reads_density(score) else None
    start = None if start is None else {name: start[name] for name in mask}
    name = " · ".join(filter(None, (label, f"score {score_name(score)}")))
    return ScoreTask(recipe, weights, mask, score_function(score), start, seed, recipe.step_examples, name, density)


def check_score(recipe: Recipe, rule: Pruning, weights: Weights, mask: Mask, start: Weights, seed: int) -> bool:
    """Whether a rule's score reads the network; it is tried on one batch, and what is wrong with it is said now.

    Raises:
        UsageError: if it fails, or what it gives does not fit the network.
    """
    try:
        prune_by(rule, weights, mask, start=start, seed=seed)
        return False
    except NeedsNetworkError:
        pass
    measured = NetworkMeasurements(recipe, weights, mask, seed, examples=recipe.step_examples)
    scores = scores_of(rule.score, context_of(weights, mask, start, seed, measured))
    prune_by(rule, weights, mask, start=start, seed=seed, scores=scores)
    return True


@checked
def score_weights(
    recipe: Recipe,
    weights: Weights,
    mask: MaskLike | None = None,
    score: str | Score = "magnitude",
    *,
    start: Weights | None = None,
    seed: int = 0,
    density: float | None = None,
    engine: Engine | None = None,
    store: Store | str | os.PathLike[str] | None = None,
    device: str | torch.device | None = None,
    progress: Progress | bool | None = None,
) -> dict[str, Tensor]:
    """The score of every prunable weight of a network, computed or remembered.

    Args:
        recipe: what the network is and what it is trained on.
        weights: a whole state dict.
        mask: what is kept; None = everything that can be pruned.
        score: a name or a function, see `lotto.pruning.Pruning`.
        start: weights at the rewind point, for scores that read them.
        seed: for scores that draw random numbers or take batches.
        density: share of all prunable weights that is to be left, for scores that prune in rounds (``synflow``).
        engine, store, device, progress: as of `lotto.train`.

    Returns:
        A tensor of the weight's shape for each name, which `lotto.pruning.prune` takes as its ``score``.

    Raises:
        UsageError: if the score fails, leaves a layer out, has a wrong shape, or is NaN.

    >>> recipe = lotto.recipes.get("mlp-mnist1d")
    >>> scores = lotto.lottery.score_weights(recipe, recipe.initial(0), score="magnitude")
    >>> lotto.pruning.prune(recipe.initial(0), lotto.pruning.masks.ones(recipe), 0.5, scores)
    Mask(50 % of 78,336 weights in 3 layers)
    """
    if density is not None:
        check_target(density)
    kept = Mask(masks.ones(recipe) if mask is None else mask)
    try:
        return dict(scores_of(score, context_of(weights, kept, start, seed), density))
    except NeedsNetworkError:
        task = score_task(recipe, score, weights, kept, start, seed, density=density)
    return unpacked(outcome_of(task, engine, store, device, progress), kept)
