"""What the loop trains: a learner takes steps on batches and gives states; the loop knows nothing else of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from lotto.data.batch import Batch
from lotto.data.image_folder import ImageFolder
from lotto.data.in_memory import Arrays
from lotto.data.source import Adapted
from lotto.recipe.optimizers import OptimizerState
from lotto.training.job import Crossovers, Job, State
from lotto.training.network import Network
from lotto.training.reported import KEPT


class Learner(ABC):
    """Trains one network or several at once, all at the same step of one recipe.

    Args:
        jobs: what is trained.
        network: the recipe's module on its device, with the weights of the first state.
        states: where each job stands: weights and optimizer.
    """

    network: Network
    crossovers: Crossovers = None
    """What was chosen by measuring."""

    @abstractmethod
    def __init__(self, jobs: Sequence[Job], network: Network, states: Sequence[State]) -> None: ...

    @classmethod
    @abstractmethod
    def supports(cls, jobs: Sequence[Job], network: Network) -> bool:
        """Whether what these jobs compute is what this learner computes: the one place where it is proved."""

    @abstractmethod
    def batches(self, first: int, last: int) -> Iterator[Any]:
        """What `train_step` takes, for steps ``first`` to ``last - 1``."""

    @abstractmethod
    def train_step(self, batch: Any, step: int) -> Tensor:
        """One step on a batch; returns the losses, one number for each job."""

    @abstractmethod
    def weigh(self, batch: Any, weight: Callable[[Tensor], Tensor]) -> Tensor:
        """The weights of a batch's losses in their mean over steps, by the targets: one number for each job."""

    @abstractmethod
    def state(self, i: int) -> State:
        """A copy of weights and optimizer of job ``i``, on the CPU."""

    @abstractmethod
    def eval_network(self, i: int) -> Network:
        """The network of job ``i`` to evaluate, with the present weights; valid until the next call."""

    @abstractmethod
    def describe(self) -> str:
        """How it is computed, for the record of a run."""


class SingleLearner(Learner):
    """A learner of one network.

    Subclasses have the job's parameters by name in ``optimizer_state`` and say how its tensors look outside.
    """

    job: Job
    optimizer_state: OptimizerState
    feature_major = False
    """Whether inputs have the shape (features, batch); else the batch comes first."""

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """See `Learner.batches`: inputs and targets."""
        recipe, data = self.job.recipe, self.job.recipe.arrays.to(self.network.device)
        which = (self.job.order_seed, first, last, recipe.step_examples, recipe.augment)
        if not self.feature_major:
            return data.batches(*which)
        if not isinstance(data, Adapted) and type(data) in (Arrays, ImageFolder):
            return data.batches(*which, feature_major=True)
        return (Batch(x.flatten(1).t().contiguous(), y) for x, y in data.batches(*which))

    def weigh(self, batch: Batch, weight: Callable[[Tensor], Tensor]) -> Tensor:
        return weight(batch.targets)

    def state(self, i: int = 0) -> State:
        optimizer = {
            f"{name}/{what}": self.to_dense(name, value)
            for name, tensors in self.optimizer_state.states.items()
            for what, value in tensors.items()
        }
        return State(self.weights(), optimizer)

    def restore(self, optimizer: Mapping[str, Tensor]) -> None:
        """Give the optimizer the tensors of a state; those of frozen parameters, which it does not move, it leaves."""
        for name, tensor in optimizer.items():
            parameter, _, what = name.rpartition("/")
            if parameter in self.optimizer_state.states and what not in KEPT:
                self.optimizer_state.states[parameter][what] = self.from_dense(parameter, tensor)

    @abstractmethod
    def weights(self) -> dict[str, Tensor]:
        """A copy of the whole state dict, on the CPU."""

    @abstractmethod
    def to_dense(self, name: str, tensor: Tensor) -> Tensor:
        """A tensor of the parameter ``name`` in the shape of the weight, pruned ones 0; a copy on the CPU."""

    @abstractmethod
    def from_dense(self, name: str, tensor: Tensor) -> Tensor:
        """The inverse of `to_dense`."""
