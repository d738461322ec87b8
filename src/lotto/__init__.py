"""lotto: find winning tickets, sparse subnetworks that train as well as the whole network, and see why.

These are the names that most programs need; the packages (`lotto.landscape`, `lotto.pruning`, ...) have the rest. Each
is imported at its first use, so that the command line can say what it does before it has loaded PyTorch. Nor is
`typing` imported: until the command line handles Ctrl-C, every millisecond is one in which it gives a traceback.
"""

from __future__ import annotations

from _thread import RLock
from importlib import import_module

from lotto.core.moved import moved_name, serve_moved_modules

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lotto import data, inference, landscape, models, pruning
    from lotto import execution as engine
    from lotto.core import weights
    from lotto.core.errors import LottoError
    from lotto.execution.single_run import train
    from lotto.execution.store import Store
    from lotto.inference.density_sweep import sweep
    from lotto.lottery.options import Plan
    from lotto.lottery.saved import load
    from lotto.lottery.search import imp
    from lotto.lottery.trainable import Trainable
    from lotto.pruning.masks import Mask
    from lotto.pruning.ticket import Ticket
    from lotto.recipe import presets as recipes
    from lotto.recipe.lr_schedules import Constant, Cosine, Exponential, Linear, MultiStep
    from lotto.recipe.optimizers import SGD, Adam, AdamW, RMSprop
    from lotto.recipe.recipe import Recipe
    from lotto.training.dynamic_sparsity import DynamicSparsity
    from lotto.training.evaluation import evaluate
    from lotto.training.job import Job, Run, State
    from lotto.training.sparse_loop import sparse

__all__ = [
    "SGD",
    "Adam",
    "AdamW",
    "Constant",
    "Cosine",
    "DynamicSparsity",
    "Exponential",
    "Job",
    "Linear",
    "LottoError",
    "Mask",
    "MultiStep",
    "Plan",
    "RMSprop",
    "Recipe",
    "Run",
    "State",
    "Store",
    "Ticket",
    "Trainable",
    "data",
    "engine",
    "evaluate",
    "imp",
    "inference",
    "landscape",
    "load",
    "models",
    "pruning",
    "recipes",
    "sparse",
    "sweep",
    "train",
    "weights",
]

_MODULES = {
    "core.errors": ["LottoError"],
    "execution.single_run": ["train"],
    "execution.store": ["Store"],
    "lottery.options": ["Plan"],
    "training.sparse_loop": ["sparse"],
    "lottery.saved": ["load"],
    "lottery.search": ["imp"],
    "lottery.trainable": ["Trainable"],
    "inference.density_sweep": ["sweep"],
    "pruning.masks": ["Mask"],
    "pruning.ticket": ["Ticket"],
    "recipe.lr_schedules": ["Constant", "Cosine", "Exponential", "Linear", "MultiStep"],
    "recipe.optimizers": ["SGD", "Adam", "AdamW", "RMSprop"],
    "recipe.recipe": ["Recipe"],
    "training.evaluation": ["evaluate"],
    "training.dynamic_sparsity": ["DynamicSparsity"],
    "training.job": ["Job", "Run", "State"],
}
_HOMES = {name: module for module, names in _MODULES.items() for name in names}
_PACKAGES = {"engine": "execution", "recipes": "recipe.presets", "weights": "core.weights"}

_ONE_AT_A_TIME = RLock()

serve_moved_modules()


def __getattr__(name: str) -> object:
    """A public name at its first use; one of the first edition that has another home warns and says which."""
    if name not in __all__:
        return moved_name(name)
    with _ONE_AT_A_TIME:
        if name not in globals():
            # All of them, in one order: threads that import different modules first could wait for each other.
            found = {n: getattr(import_module(f"lotto.{home}"), n) for n, home in _HOMES.items()}
            found |= {n: import_module(f"lotto.{_PACKAGES.get(n, n)}") for n in __all__ if n not in _HOMES}
            globals().update(found)
        return globals()[name]


def __dir__() -> list[str]:
    return sorted(__all__)
