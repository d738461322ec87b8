"""One real step before anything long is started."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lotto.core.errors import LottoError, UsageError, text
from lotto.core.pytree import flatten
from lotto.core.rng import private_rng, torch_seed
from lotto.core.weights import digest
from lotto.data.augment import is_own
from lotto.data.batch import call, count, described, mapped, moved
from lotto.data.batch import examples as some
from lotto.data.source import Adapted, same
from lotto.recipe.metrics import Metric, check_direction
from lotto.recipe.optimizers import OptimizerState
from lotto.recipe.outputs import WithLoss, chosen
from lotto.recipe.recipe import Recipe
from lotto.recipe.totals import mean_of
from lotto.training.diagnosis import check_labels, check_targets, loss_of, reason
from lotto.training.evaluation import adds_up, evaluate_network, number
from lotto.training.learners.graphed import check_graphs
from lotto.training.network import Network, trainable_parameters
from lotto.training.own_loop import check_fit

log = logging.getLogger(__name__)


def check_trainable(recipe: Recipe, parts: int = 1) -> float:
    """Take one training step and evaluate one batch, so that what does not fit fails now and not after hours.

    Args:
        recipe: what is to be trained.
        parts: how many processes have a slice of each batch; the step is that of one.

    Returns:
        About how many seconds a step takes: three times the evaluation of a batch, the second pass of the network. The
        first one takes many times as long as those that follow. Infinite for a loop of the user's own, which is not
        run to find out.

    Raises:
        UsageError: if model, data, loss, error and optimizer do not work together.

    >>> 0 < check_trainable(recipe) < 1
    True
    >>> check_trainable(recipe.replace(loss=lambda outputs, targets: outputs))  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    lotto.core.errors.UsageError: A loss or an error gives one number for all the outputs that it is given; got 120, ...
    """
    if recipe.loop is not None:
        check_fit(recipe.loop)
        return math.inf
    check_graphs(recipe, parts)
    with private_rng():
        try:
            x, y = next(recipe.arrays.batches(0, 0, 1, min(recipe.batch_size, recipe.arrays.size()), recipe.augment))
            if parts > 1:
                size = max(2, -(-count(y) // parts))  # of one example BatchNorm has no statistics, nor a loss parts
                x, y = (some(tree, 0, size) for tree in (x, y))
            _check_source(recipe)
            check_targets(recipe, y)
            check_augmented(recipe)
            check_repeatable(recipe)
            network = Network(recipe, recipe.initial(0))
            x, y = moved((x, y), network.device)
            optimizer = OptimizerState(recipe.optimizer, trainable_parameters(network.module), recipe.clip_norm)
            if recipe.batch_groups > 1:
                _check_groups(recipe, network, x)
            outputs = network(x)
            _say_output(recipe, network, x)
            check_labels(recipe, outputs)
            loss = loss_of(recipe, outputs, y)
            number(loss)
            loss.backward()
            _check_gradients(network)
            _check_mean(recipe, network(x), y)
            optimizer.step(recipe.learning_rate(0))
            check_metrics(recipe, network)
            began = time.perf_counter()
            if not adds_up(recipe):
                evaluate_network(recipe, network, "test")  # a batch may have no F1 or AUC
            else:
                network.module.eval()
                if isinstance(recipe.arrays, Adapted) or is_own(recipe.augment):  # targets in training may be others
                    x, y = moved(next(recipe.arrays.evaluation("test", min(recipe.batch_size, 1000))), network.device)
                    number(loss_of(recipe, network(x), y))
                number(recipe.error_function(network(x), y))
            return 3 * (time.perf_counter() - began)
        except LottoError:
            raise
        except Exception as error:  # whatever a user's code may raise
            why = reason(error, recipe, x, y)
            raise UsageError(
                f"The recipe cannot be trained (a batch has inputs {described(x)} and targets {described(y)}): {why}."
            ) from error


def _check_groups(recipe: Recipe, network: Network, x: Any) -> None:
    """Raise ``UsageError`` unless the network takes as few examples as the smallest group of a batch has."""
    size = max(1, min(recipe.batch_size, recipe.arrays.size()) // recipe.batch_groups)
    try:
        network(some(x, 0, size))
    except Exception as error:  # whatever a user's code may raise
        network(x)  # which does not fail if it was for the few
        raise UsageError(
            f"{recipe.name} cannot compute a group of {size} of a batch's {recipe.batch_size} examples "
            f"({type(error).__name__}: {text(str(error))}): take fewer groups, batch_groups=, or a larger batch_size."
        ) from error


def _check_source(recipe: Recipe) -> None:
    """Read somebody else's data as training and evaluation will: twice the same, as many examples as it says."""
    data = recipe.arrays
    if isinstance(data, Adapted):
        data.check_repeatable(recipe.step_examples, min(2, recipe.total))
    if not data.random_access:
        log.warning(
            "%s cannot begin at any step: a training that begins at step k, from a rewind point or a checkpoint, "
            "reads the k batches before and drops them.", data.name,
        )  # fmt: skip
    if isinstance(data, Adapted) and data.ignores_seed(recipe.step_examples):
        log.warning(
            "%s gives the same batches for every seed: replicates have one data order and differ in their "
            "initialisations alone.", data.name,
        )  # fmt: skip


def check_augmented(recipe: Recipe) -> None:
    """Raise ``UsageError`` unless a function of the user's changes a batch twice in the same way."""
    if not is_own(recipe.augment):
        return
    size = min(recipe.batch_size, recipe.arrays.size())
    one, two = (next(iter(recipe.arrays.batches(0, 0, 1, size, recipe.augment))) for _ in range(2))
    if not same(one, two):
        raise UsageError(
            "augment gives another batch for the same batch and generator: draw from the generator that it is given, "
            "such as torch.rand(len(batch.targets), generator=generator)."
        )


def check_repeatable(recipe: Recipe) -> None:
    """Raise ``UsageError`` unless a model built twice with one seed is the same, and gives the same outputs.

    What draws from torch, random or numpy.random is; other sources of chance nobody can seed.
    """
    if isinstance(recipe.model, str):
        return
    (first, state, outputs), (_, other_state, other_outputs) = _built_and_called(recipe), _built_and_called(recipe)
    for name, tensor in state.items():
        if digest({name: tensor}) != digest({name: other_state[name]}):
            raise _not_repeatable(first, f"two networks built with one seed differ in {name!r}")
    pairs = zip(outputs, other_outputs, strict=True)
    if not all(torch.allclose(a, b, rtol=1e-3, atol=1e-5, equal_nan=True) for a, b in pairs):
        raise _not_repeatable(first, "two networks with the same weights give different outputs for the same inputs")


def _built_and_called(recipe: Recipe) -> tuple[nn.Module, Mapping[str, Tensor], list[Tensor]]:
    """A network of seed 0, its weights and buffers before a first training batch, and what it gives for that."""
    weights = recipe.initial(0)
    network = Network(recipe, weights)
    state = {n: t.clone() for n, t in network.module.named_buffers()} | weights
    x, _ = next(recipe.arrays.batches(0, 0, 1, min(recipe.batch_size, recipe.arrays.size())))
    with private_rng(torch_seed(0, "check")), torch.no_grad():
        outputs = network(moved(x, network.device))
    return network.module, state, [leaf for leaf in flatten(outputs) if isinstance(leaf, Tensor)]


def _not_repeatable(module: nn.Module, what: str) -> UsageError:
    return UsageError(
        f"{type(module).__name__} is not the same twice: {what}, so it depends on what cannot be seeded "
        "(numpy.random.default_rng() without a seed, os.urandom, the time). Draw from torch, random or numpy.random: "
        "their generators are seeded for every network and every step."
    )


def _say_output(recipe: Recipe, network: Network, x: Any) -> None:
    """Say once which entry of what the network returns has been taken for the prediction, where nobody named it."""
    if recipe.output is not None:
        return
    with private_rng(), torch.no_grad():
        whole = call(network.module, mapped(x, network.cast))
    if isinstance(recipe.read(whole), Tensor | WithLoss) and not isinstance(whole, Tensor):
        log.warning(
            "The network returns %s; the prediction is its entry %r. Another one: output=...",
            type(whole).__name__, chosen(whole),
        )  # fmt: skip


def check_metrics(recipe: Recipe, network: Network) -> None:
    """Raise ``UsageError`` for a metric that calls right predictions worse than wrong ones, or has no value here."""
    own = {name: it for name, it in (recipe.metrics or {}).items() if isinstance(it, Metric)}
    if callable(recipe.error) and not isinstance(recipe.error, type) and mean_of(recipe.error) is None:
        own["error"] = Metric(recipe.error)
    if own:
        x, y = moved(next(recipe.arrays.evaluation("test", min(1000, recipe.arrays.size("test")))), network.device)
        with torch.no_grad():
            outputs = network(x)
        for name, metric in own.items():
            check_direction(name, metric, outputs.prediction if isinstance(outputs, WithLoss) else outputs, y)
    if recipe.metrics:
        found = evaluate_network(recipe, network, "test", more=True)
        values = {recipe.decide_by or "error": found.error, **found.more}
        if bad := [name for name, value in values.items() if math.isnan(value)]:
            raise UsageError(
                f"The metric {bad[0]!r} is not a number on the test examples, before any training: it may need "
                "examples of every class, or targets that differ."
            )


def _check_mean(recipe: Recipe, outputs: Any, targets: Any) -> None:
    """Raise ``UsageError`` unless a loss that nobody knows is a mean over examples, where steps see several batches."""
    size = count(targets)
    if recipe.accumulate * recipe.batch_groups == 1 or mean_of(recipe.loss_function) is not None or size < 2:
        return
    at = size // 3 or 1
    outputs = mapped(outputs, lambda leaf: leaf.detach())

    def loss(first: int, last: int) -> float:
        return float(recipe.loss_function(some(outputs, first, last), some(targets, first, last)))

    parts, whole = [(b - a) * loss(a, b) for a, b in ((0, at), (at, size))], loss(0, size)
    if abs(sum(parts) / size - whole) > 1e-4 * sum(map(abs, parts)) / size:
        which = "accumulate=" if recipe.accumulate > 1 else "batch_groups="
        raise UsageError(
            f"The loss of a batch is not the mean over its examples, so that {which} does not know what its parts "
            "weigh. Say what it is a mean of: lotto.recipe.totals.Ratio(function that returns its sum and its weight)."
        )


def _check_gradients(network: Network) -> None:
    for name, parameter in network.module.named_parameters():
        if parameter.grad is not None and parameter.grad.layout != torch.strided:
            raise UsageError(
                f"The gradient of {name!r} is sparse, which masks and optimizers here do not take: build the layer "
                "with sparse=False."
            )
