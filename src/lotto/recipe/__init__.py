"""What is trained and how, as frozen data."""

from __future__ import annotations

from lotto.core.faces import lazy_face

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lotto.recipe.lr_schedules import Schedule
    from lotto.recipe.metrics import Metric
    from lotto.recipe.names import PRECISIONS
    from lotto.recipe.optimizers import Optimizer
    from lotto.recipe.pretrained import Pretrained
    from lotto.recipe.recipe import Recipe
    from lotto.recipe.torch_optimizer import TorchOptimizer

__all__ = ["PRECISIONS", "Metric", "Optimizer", "Pretrained", "Recipe", "Schedule", "TorchOptimizer"]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "lr_schedules": ["Schedule"],
        "metrics": ["Metric"],
        "optimizers": ["Optimizer"],
        "pretrained": ["Pretrained"],
        "names": ["PRECISIONS"],
        "recipe": ["Recipe"],
        "torch_optimizer": ["TorchOptimizer"],
    },
)
