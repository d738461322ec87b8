"""One real step before anything long is started."""

from __future__ import annotations

from lotto.core.errors import LottoError, UsageError
from lotto.core.rng import private_rng
from lotto.recipe.optimizers import OptimizerState
from lotto.recipe.recipe import Recipe
from lotto.training.evaluation import adds_up, evaluate_network, number
from lotto.training.network import Network, trainable_parameters


def check_trainable(recipe: Recipe) -> None:
    """Take one training step and evaluate one batch, so that what does not fit fails now and not after hours.

    Raises:
        UsageError: if model, data, loss, error and optimizer do not work together.
    """
    with private_rng():
        try:
            x, y = next(recipe.arrays.batches(0, 0, 1, min(recipe.batch_size, recipe.arrays.size()), recipe.augment))
            network = Network(recipe, recipe.initial(0))
            x, y = x.to(network.device), y.to(network.device)
            optimizer = OptimizerState(recipe.optimizer, trainable_parameters(network.module))
            loss = recipe.loss_function(network(x), y)
            number(loss)
            loss.backward()
            optimizer.step(recipe.learning_rate(0))
            if not adds_up(recipe):
                evaluate_network(recipe, network, "test")  # a batch may have no F1 or AUC
            else:
                network.module.eval()
                number(recipe.error_function(network(x), y))
        except LottoError:
            raise
        except Exception as error:  # whatever a user's code may raise
            lines = str(error).splitlines() or [type(error).__name__]
            raise UsageError(
                f"The recipe cannot be trained (a batch has inputs {tuple(x.shape)} and targets {tuple(y.shape)}): "
                f"{lines[0]}"
            ) from error
