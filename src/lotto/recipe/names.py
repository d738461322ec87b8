"""The names in a recipe: a wrong one is said when it is made."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

import lotto.data as datasets
from lotto.core.errors import UsageError, unknown
from lotto.recipe.initializers import INITS, NORM_INITS
from lotto.recipe.objectives import BY_MODEL, ERRORS, LOSSES

if TYPE_CHECKING:
    from lotto.recipe.recipe import Recipe

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
ARITHMETICS = ("auto", "dense", "sparse")


def check_names(recipe: Recipe) -> None:
    """Raise ``UsageError`` for a name that nothing has, and for a network in the place of what builds one."""
    for what, value, choices in (
        ("initialisation", recipe.init, INITS),
        ("initialisation of normalisation layers", recipe.norm_init, NORM_INITS),
        ("precision", recipe.precision, PRECISIONS),
        ("arithmetic", recipe.arithmetic, ARITHMETICS),
    ):
        if value not in choices:
            raise unknown(what, value, choices)
    for what, objective, known in (("loss", recipe.loss, (*LOSSES, BY_MODEL)), ("error", recipe.error, ERRORS)):
        if isinstance(objective, str) and objective not in known:
            raise unknown(what, objective, known)
    if isinstance(recipe.model, nn.Module):
        raise UsageError(
            "model is a class or a function that builds the network (model=MyNet, not model=MyNet()), so "
            "that every replicate gets an initialisation of its own."
        )
    if isinstance(recipe.data, str) and recipe.data not in datasets.NAMES:
        raise unknown("data set", recipe.data, datasets.NAMES)
