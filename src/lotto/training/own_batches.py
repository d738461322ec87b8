"""What a loop of the user's own gives beside itself: the error and loss of given weights, and losses of its batches."""

from __future__ import annotations

import inspect
import itertools
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from lotto.core.errors import UsageError, text
from lotto.core.pytree import flatten
from lotto.core.rng import private_rng, torch_seed
from lotto.data import Split
from lotto.data.batch import examples as some
from lotto.data.batch import mapped
from lotto.recipe.own_loop import OwnLoop, no_data
from lotto.recipe.recipe import Recipe
from lotto.training.network import Network

EVALUATE = "evaluate=, a function (model) -> {'error': ..., 'loss': ...},"
LOSS = "loss=, a function (model, batch), and batches=, a function that gives the training batches,"
_END = object()


def check_functions(loop: OwnLoop) -> None:
    """Raise ``UsageError`` unless what a loop gives beside itself can be called as it will be."""
    for function, how, given in (
        (loop.evaluate, "evaluate(model)", (None,)),
        (loop.loss, "loss(model, batch)", (None, None)),
        (loop.batches, "batches()", ()),
    ):
        name = how.partition("(")[0]
        if function is not None and not callable(function):
            raise UsageError(f"{name} is a function, called as {how}; got {text(function)}.")
        if function is not None and function is loop.evaluate and _takes_split(loop):
            continue
        if function is not None and (why := _refusal(function, *given)):
            raise UsageError(f"{name} is called as {how}; this one cannot be: {why}.")


def _refusal(function: Callable[..., Any], *given: Any, **named: Any) -> str:
    try:
        inspect.signature(function).bind(*given, **named)
    except TypeError as error:
        return str(error)
    except ValueError:  # a builtin without a signature: it will tell
        pass
    return ""


def check_evaluates(
    recipe: Recipe, splits: Collection[Split], examples: int | None = None, recompute: bool = False
) -> None:
    """Raise ``UsageError`` unless error and loss of given weights can be had; of a recipe with data they can.

    Args:
        recipe: what they are of.
        splits: on which examples.
        examples: at most so many; a loop's own function decides for itself.
        recompute: whether BatchNorm's statistics are re-estimated.
    """
    if (loop := recipe.loop) is None:
        return
    if loop.evaluate is None:
        no_data("the error and loss of given weights", EVALUATE)
    if {*splits} != {"test"} and not _takes_split(loop):
        raise UsageError(
            f"evaluate(model) of {recipe.name} stands for the test split; asked for are {', '.join(sorted(splits))}. "
            "Ask for splits=('test',), or let it take the split: evaluate(model, split)."
        )
    if examples is not None:
        raise UsageError(
            f"examples={examples} is for data of lotto's: evaluate(model) of {recipe.name} chooses its own examples."
        )
    if recompute and loop.loss is None:
        no_data("BatchNorm statistics to be re-estimated", LOSS)


def _takes_split(loop: OwnLoop) -> bool:
    assert loop.evaluate is not None
    return not _refusal(loop.evaluate, None, split="test")


@private_rng(torch_seed(0, "evaluation"))  # numbers that a network draws are the same for all weights
@torch.no_grad()
def own_metrics(recipe: Recipe, network: Network, split: Split, examples: int | None = None) -> tuple[float, float]:
    """Loss and error by the function of the user's; leaves the network in the mode it was in."""
    check_evaluates(recipe, (split,), examples)
    loop, training = recipe.loop, network.module.training
    assert loop is not None
    assert loop.evaluate is not None
    given = {"split": split} if _takes_split(loop) else {}
    found = numbers(loop.evaluate(network.module.eval(), **given))
    network.module.train(training)
    if not {"error", "loss"} <= {*found}:
        raise UsageError(
            "evaluate returns numbers by name with 'error' and 'loss' among them, such as {'error': 100 * (1 - "
            f"accuracy), 'loss': loss}}; this one returned {text(found)}."
        )
    return found["loss"], found["error"]


def numbers(metrics: Any) -> dict[str, float]:
    """What a user's function returned as numbers by name; empty if that is not what it is."""
    try:
        return {str(n): float(v.detach() if isinstance(v, Tensor) else v) for n, v in {**metrics}.items()}
    except (TypeError, ValueError, RuntimeError):
        return {}


def own_batches(recipe: Recipe, network: Network | None, examples: int | None = None) -> Iterator[Any]:
    """The training batches of a loop on the network's device and in its precision, the same at each call.

    What they draw (an order, crops) is drawn from generators seeded by the batch's number.

    Args:
        recipe: whose loop gives them.
        network: what they are for; None leaves them as they are given.
        examples: the first so many; None = all.

    Raises:
        UsageError: if there are none, or none that examples could be counted in.
    """
    if recipe.loop is None or recipe.loop.batches is None:
        no_data("curvature", LOSS)
    left, given = math.inf if examples is None else examples, None
    for number in itertools.count():
        with private_rng(torch_seed(number, "own batches")):
            given = iter(recipe.loop.batches()) if given is None else given
            batch = next(given, _END)
        if batch is _END:
            break
        yield _delivered(batch if examples is None else _first(batch, int(left)), network)
        left -= (examples_in(batch) or 0) if examples is not None else 0
        if left <= 0:
            return
    if not number:
        raise UsageError(
            "batches() gives no batch: it is called anew each time that they are read, so it returns them anew."
        )


def examples_in(batch: Any) -> int | None:
    """The number of examples of a batch in plain containers, the first axis of all its tensors; None = not known."""
    leaves = flatten(dict(batch) if isinstance(batch, Mapping) else batch)
    sizes = {len(leaf) for leaf in leaves if isinstance(leaf, Tensor) and leaf.dim()}
    return sizes.pop() if len(sizes) == 1 else None


def _first(batch: Any, count: int) -> Any:
    if (found := examples_in(batch)) is None:
        raise UsageError(
            "examples= counts along the first axis of the tensors of a batch, which has to be the same in all of them; "
            f"this one is {text(batch)}. Leave examples= out and let batches() give fewer."
        )
    return batch if found <= count else some(dict(batch) if isinstance(batch, Mapping) else batch, 0, count)


def count_examples(recipe: Recipe) -> int:
    """How many training examples the batches of a loop have."""
    sizes = [examples_in(batch) for batch in own_batches(recipe, None)]
    counted = [size for size in sizes if size is not None]
    if len(counted) < len(sizes):
        raise UsageError(
            f"The examples in the batches of {recipe.name} cannot be counted, as their tensors differ in their first "
            "axis: let batches() give dicts or tuples of tensors with the examples along the first."
        )
    return sum(counted)


def _delivered(batch: Any, network: Network | None) -> Any:
    if network is None:
        return batch
    if not isinstance(batch, Tensor | dict | list | tuple) and hasattr(batch, "to"):
        return batch.to(network.device)  # one of a library's, such as transformers.BatchEncoding
    return mapped(batch, lambda leaf: network.cast(leaf.to(network.device)))


def own_loss(recipe: Recipe, network: Network, batch: Any) -> tuple[Tensor, float, bool]:
    """The mean loss of a batch, its weight in the mean over all, and whether the loss itself said what weight."""
    assert recipe.loop is not None
    assert recipe.loop.loss is not None
    found = recipe.loop.loss(network.module, batch)
    if isinstance(found, tuple) and len(found) == 2:
        total, weight = found
        return total / weight, float(weight), True
    if not isinstance(found, Tensor) or found.numel() != 1:
        raise UsageError(
            "loss(model, batch) returns one number, a tensor that can be differentiated, or a pair of the sum and its "
            f"weight; this one returned {text(found)}."
        )
    if (count := examples_in(batch)) is None:
        raise UsageError(
            "loss(model, batch) returns the mean over a batch, of which nobody knows how many examples it has: its "
            "tensors differ in their first axis. Let it return a pair of the sum and its weight, such as "
            "(loss * count, count)."
        )
    return found, float(count), False
