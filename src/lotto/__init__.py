"""lotto: find winning tickets, sparse subnetworks that train as well as the whole network, and see why."""

from __future__ import annotations

from lotto import data, engine, inference, masks, models, recipes, weights
from lotto.api import train
from lotto.data import Augment
from lotto.engine import Engine
from lotto.errors import DataError, DivergedError, LottoError, StorageError, UsageError, WorkerError
from lotto.imp import ImpResult, imp
from lotto.job import Job, Run, State
from lotto.landscape import Path, Plane, barrier, evaluate_path, evaluate_plane, hessian, largest_prunable
from lotto.masks import Mask
from lotto.optimizers import SGD, Adam, AdamW, RMSprop
from lotto.plan import After
from lotto.pruning import Pruning, prune
from lotto.recipe import Recipe
from lotto.schedules import Constant, Cosine, Exponential, Linear, MultiStep
from lotto.stability import (
    Distances,
    Instability,
    instability,
    stability_to_data_order,
    stability_to_pruning,
)
from lotto.store import Store
from lotto.tickets import Ticket
from lotto.training import evaluate

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "After",
    "Augment",
    "Constant",
    "Cosine",
    "DataError",
    "Distances",
    "DivergedError",
    "Engine",
    "Exponential",
    "ImpResult",
    "Instability",
    "Job",
    "Linear",
    "LottoError",
    "Mask",
    "MultiStep",
    "Path",
    "Plane",
    "Pruning",
    "RMSprop",
    "Recipe",
    "Run",
    "State",
    "StorageError",
    "Store",
    "Ticket",
    "UsageError",
    "WorkerError",
    "barrier",
    "data",
    "engine",
    "evaluate",
    "evaluate_path",
    "evaluate_plane",
    "hessian",
    "imp",
    "inference",
    "instability",
    "largest_prunable",
    "masks",
    "models",
    "prune",
    "recipes",
    "stability_to_data_order",
    "stability_to_pruning",
    "train",
    "weights",
]
