"""One of the networks that train together: its records, and which of its weights count."""

from __future__ import annotations

from lotto.recipe.recipe import Recipe
from lotto.training.checkpoint import Checkpoint
from lotto.training.evaluation import evaluate_network
from lotto.training.job import Job, State
from lotto.training.mask_entries import entries_of
from lotto.training.network import Network
from lotto.training.records import add_record, evaluation_steps, evenly
from lotto.training.reported import Best, ended


class Member:
    """A job on its way, with the best weights so far if these are what counts.

    Args:
        job: what is trained.
        point: where it stands.
    """

    def __init__(self, job: Job, point: Checkpoint) -> None:
        self.job, self.point = job, point
        self.recipe: Recipe = job.recipe
        self.records = evaluation_steps(job.recipe, job)
        self.best = Best.of(point.state) if job.recipe.reported == "best" else None
        self._chosen = self.best
        self._of_mask = entries_of(point.state.optimizer)

    @property
    def stopped(self) -> int:
        """The step at which nothing better was waited for any longer; 0 = it goes on."""
        return 0 if self.best is None else self.best.stopped

    def state(self, found: State) -> State:
        """A learner's state, with the mask, if it is one that changes, and the best weights so far."""
        if self._of_mask:
            found = State(found.weights, {**found.optimizer, **self._of_mask})
        return found if self.best is None else self.best.put_into(found)

    def record(self, network: Network) -> None:
        """Evaluate the network, and see whether it is the best so far."""
        point, job = self.point, self.job
        if self.best is None:
            add_record(point, job, network)
        elif point.step < job.end:
            add_record(point, job, network)
            self.best = self._seen(self.best, network, point.history[-1]["validation_error"])
        else:  # this record is of the weights that count
            self._chosen = self.best
            if not self.best.stopped:
                error = evaluate_network(self.recipe, network, "validation").error
                self._chosen = self._seen(self.best, network, error)
            if point.step in evenly(self.recipe):  # else a longer training does not look here
                self.best = self._chosen
            add_record(point, job, Network(self.recipe, self._chosen.weights or network.module.state_dict()))
        point.loss_sum, point.loss_count = 0.0, 0

    def stand_still(self, state: State, network: Network) -> None:
        """Go to the end without a step: what is kept from here on is what there is."""
        point, job, last = self.point, self.job, self.point.history[-1:]
        point.kept |= {step: state for step in job.steps if step > point.step}
        point.step = job.end
        self.record(network)
        point.history[-1]["stopped_at"] = self.stopped
        if last:
            point.history[-1]["train_loss"] = last[0]["train_loss"]

    def end(self) -> None:
        """Have the state at the end with the weights that count."""
        weights = None if self._chosen is None else self._chosen.weights
        self.point.kept[self.job.end] = ended(self.point.state, self.recipe, weights)

    def _seen(self, best: Best, network: Network, error: float) -> Best:
        return best.seen(error, network.module.state_dict(), self.point.step, self.recipe.patience)
