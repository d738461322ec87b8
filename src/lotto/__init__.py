"""lotto: find winning tickets, sparse subnetworks that train as well as the whole network, and see why.

These are the names that most programs need; the packages (`lotto.landscape`, `lotto.pruning`, ...) have the rest.
"""

from __future__ import annotations

from typing import Any

from lotto import data, inference, landscape, models, pruning
from lotto import execution as engine
from lotto.core import weights
from lotto.core.errors import LottoError
from lotto.core.moved import moved_name, serve_moved_modules
from lotto.execution.single_run import train
from lotto.execution.store import Store
from lotto.lottery.search import imp
from lotto.pruning.masks import Mask
from lotto.pruning.ticket import Ticket
from lotto.recipe import presets as recipes
from lotto.recipe.lr_schedules import Constant, Cosine, Exponential, Linear, MultiStep
from lotto.recipe.optimizers import SGD, Adam, AdamW, RMSprop
from lotto.recipe.recipe import Recipe
from lotto.training.evaluation import evaluate
from lotto.training.job import Job, Run, State

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "Exponential",
    "Job",
    "Linear",
    "LottoError",
    "Mask",
    "MultiStep",
    "RMSprop",
    "Recipe",
    "Run",
    "State",
    "Store",
    "Ticket",
    "data",
    "engine",
    "evaluate",
    "imp",
    "inference",
    "landscape",
    "models",
    "pruning",
    "recipes",
    "train",
    "weights",
]

serve_moved_modules()


def __getattr__(name: str) -> Any:
    """A name of the first edition that has another home now, with a warning that says which."""
    return moved_name(name)
