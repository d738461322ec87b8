"""Why a recipe's model, data and loss do not go together, in one sentence that says what to type."""

from __future__ import annotations

import functools
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lotto.core.errors import UsageError, text
from lotto.core.pytree import flatten
from lotto.data import Split
from lotto.data.batch import described
from lotto.data.convert import ENCODE
from lotto.data.source import Adapted
from lotto.recipe.objectives import Objective
from lotto.recipe.recipe import Recipe

SPLITS: tuple[Split, ...] = ("train", "validation", "test")
OF_CLASSES = (F.cross_entropy, F.nll_loss)
"""Losses whose integer targets are classes, ``ignore_index`` apart; also as modules and partial functions."""

KNOWN = {
    "unexpected keyword argument 'labels'": "loss='model' gives the targets to the model as labels=, which its forward "
    "does not take",
    "only for scalar outputs": "the loss gives a number for every example, and one is expected: take its mean",
    "does not require grad": "no trained parameter has a part in the loss: all are frozen (requires_grad=False) or the "
    "forward detaches its outputs",
}
"""What parts of torch's messages mean."""


def ignored_class(loss: Objective) -> int | None:
    """The target that a loss of classes leaves out; None for a loss of anything else."""
    if isinstance(loss, functools.partial):
        inner = ignored_class(loss.func)
        return inner if inner is None else int(loss.keywords.get("ignore_index", inner))
    if isinstance(loss, (nn.CrossEntropyLoss, nn.NLLLoss)):
        return loss.ignore_index
    return -100 if loss in OF_CLASSES else None


def check_targets(recipe: Recipe, targets: Any) -> None:
    """Raise ``UsageError`` if targets are texts, which no loss takes."""
    if found := next((leaf for leaf in flatten(targets) if isinstance(leaf, str)), None):
        raise UsageError(f"The targets of {recipe.arrays.name} are texts, such as {text(found)}; {ENCODE}.")


def check_labels(recipe: Recipe, outputs: Any) -> None:
    """Raise ``UsageError`` if any label, of any split, is none of the classes that the model tells apart."""
    ignored = ignored_class(recipe.loss_function)
    if ignored is None or not recipe.arrays.class_targets or not isinstance(outputs, Tensor) or outputs.dim() < 2:
        return
    for split in SPLITS:
        if not recipe.arrays.size(split):
            continue
        if (labels := recipe.arrays.class_labels(split)) is None:  # known only once they are read
            _check_count(recipe, outputs.shape[1])
            return
        low, high = (int(v) for v in labels.aminmax())
        if low >= 0 and high < outputs.shape[1]:
            continue
        wrong = ((labels < 0) | (labels >= outputs.shape[1])) & (labels != ignored)
        if bool(wrong.any()):
            raise UsageError(_outside(split, labels, wrong, outputs.shape[1]))


def _check_count(recipe: Recipe, outputs: int) -> None:
    """Raise ``UsageError`` if a source says that it has more classes than the model tells apart."""
    stated = recipe.arrays.source.classes if isinstance(recipe.arrays, Adapted) else None
    if stated is not None and stated > outputs:
        raise UsageError(
            f"{recipe.arrays.name} has {stated} classes, and the model has {outputs} outputs, for the labels 0 to "
            f"{outputs - 1}: give the model {stated} outputs."
        )


def _outside(split: str, labels: Tensor, wrong: Tensor, classes: int) -> str:
    at = tuple(int(i) for i in wrong.nonzero()[0])
    label, count = int(labels[at]), int(wrong.sum())
    advice = (
        "count the classes from 0: classes, y = numpy.unique(y, return_inverse=True)"
        if label > 0
        else f"count the classes from 0, or leave these out with loss=torch.nn.CrossEntropyLoss(ignore_index={label})"
    )
    return (
        f"y_{split} holds the label {label} at {at[0] if len(at) == 1 else at} ({count:,} such), and the model has "
        f"{classes} outputs, for the labels 0 to {classes - 1}; {advice}."
    )


def loss_of(recipe: Recipe, outputs: Any, targets: Any) -> Tensor:
    """The loss of a batch, where it is one number that compares outputs and targets of one shape.

    Raises:
        UsageError: if it is not.
    """
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        loss = recipe.loss_function(outputs, targets)
    if any("Using a target size" in str(warning.message) for warning in said):
        raise UsageError(
            f"The outputs of a batch have shape {described(outputs)} and its targets {described(targets)}, so the "
            "loss compares every output with every target; give both one shape, such as y[:, None]."
        )
    return loss


def reason(error: Exception, recipe: Recipe, x: Any, y: Any) -> str:
    """What the error of a first step comes from, as far as the shapes and types of what went in tell."""
    if not (isinstance(x, Tensor) and isinstance(y, Tensor)):
        return _said(str(error), error)
    kinds = {p.dtype for p in recipe.meta_model().parameters() if p.is_floating_point()} - {x.dtype, torch.float32}
    said = str(error)
    if kinds and "dtype" in said.lower():
        kind = str(kinds.pop()).removeprefix("torch.")
        precision = "float64" if kind == "float64" else "bfloat16"
        return (
            f"the model's weights are {kind} and its inputs {str(x.dtype).removeprefix('torch.')}: build it in float32 "
            f"and set precision={precision!r}"
        )
    if not x.is_floating_point() and "dtype" in said:
        return f"the inputs are {str(x.dtype).removeprefix('torch.')}: give x.astype('float32'), unless they are tokens"
    if ignored_class(recipe.loss_function) is not None and ("arget" in said or "class" in said):
        if y.is_floating_point():
            return "the targets are floating numbers and the loss takes classes: give y.astype('int64')"
        if y.dim() > 1 and y.shape[1] == 1:
            return f"the targets have shape {tuple(y.shape)} and the loss takes one class for each: give y[:, 0]"
    return _said(said, error)


def _said(said: str, error: Exception) -> str:
    for part, why in KNOWN.items():
        if part in said:
            return why
    return text(said.splitlines()[0] if said.strip() else type(error).__name__)[1:-1]
