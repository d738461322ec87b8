"""A training run as a value: what is asked (`Job`), a point on the way (`State`), what came out (`Run`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from torch import Tensor

from lotto.core import fingerprint
from lotto.core.check import checked
from lotto.core.errors import DivergedError, UsageError
from lotto.core.shown import brief, shown, table
from lotto.core.text import shortened
from lotto.core.weights import check_alike, digest, first_non_finite
from lotto.pruning import masks
from lotto.recipe.recipe import Recipe
from lotto.training.dynamic_sparsity import DynamicSparsity
from lotto.training.mask_entries import EXPLORED, entries_of, first_mask, mask_entries, masked, of_mask, without_mask
from lotto.training.mistakes import Mistakes
from lotto.training.network import constant_buffers


@checked
@dataclass(frozen=True, eq=False)
class State:
    """A network at a step: its weights (a whole state dict) and, where kept, the optimizer's tensors.

    Attributes:
        weights: name -> tensor, BatchNorm buffers included.
        optimizer: ``parameter/quantity`` -> tensor (momentum, Adam moments, and what else a training goes on with:
            averages, the best weights so far, a mask that changes); empty = the optimizer is new.

    >>> State(recipe.initial(0))
    State(weights={6 tensors, 814 values})
    """

    weights: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def without_optimizer(self) -> State:
        """The same weights with a new optimizer."""
        return State(self.weights)

    @property
    def at_end(self) -> State:
        """What is of use when no training goes on from here: the weights, and the mask if it was one that changes."""
        return State(self.weights, entries_of(self.optimizer))

    @property
    def without_best(self) -> State:
        """The same, without the best weights so far: they are of the network as it was, not of one that is pruned."""
        kept = {n: t for n, t in self.optimizer.items() if not n.endswith("/best") and not n.startswith("/best_")}
        return State(self.weights, kept)

    __repr__ = shown


@checked
@dataclass(frozen=True, eq=False)
class Job(fingerprint.Cacheable):
    """One training: train ``recipe`` from ``from_step`` to ``to_step``, keeping the weights at some steps.

    Attributes:
        recipe: what is trained and how.
        init_seed: initialisation, used when ``start`` is None.
        order_seed: data order and augmentation.
        start: the state at ``from_step``; None = the initial weights.
        mask: pruned weights are 0 from the start and stay 0; None = dense.
        from_step: iteration at which training begins; the schedule and the data order continue there.
        to_step: iteration at which it ends; None = the end of the recipe's training.
        keep: steps whose state is kept besides the last one.
        label: what progress displays call the job. Not part of its fingerprint.
        sparsity: how the mask changes along the training; None = it holds still. A start whose state has a mask of its
            own, because it comes from such a training, goes on with that one.

    >>> Job(recipe, from_step=0, to_step=10, keep=(5,)).steps
    (5, 10)
    >>> Job(recipe).key == Job(recipe, keep=(5,)).key  # the same training
    True
    """

    recipe: Recipe
    init_seed: int = 0
    order_seed: int = 0
    start: State | None = None
    mask: masks.MaskLike | None = None
    from_step: int = 0
    to_step: int | None = None
    keep: tuple[int, ...] = ()
    label: str = ""
    sparsity: DynamicSparsity | None = None

    def __post_init__(self) -> None:
        total = self.recipe.total
        if self.to_step is None:
            object.__setattr__(self, "to_step", total)
        for what, step in (("from_step", self.from_step), *(("keep", k) for k in self.keep)):
            if not 0 <= step <= self.end:
                raise UsageError(
                    f"{what} is {step} iterations, beyond the training's end at {self.end}. "
                    f"One epoch of this recipe is {self.recipe.per_epoch} iterations."
                )
        if self.end > total:
            raise UsageError(f"to_step is {self.end}, beyond the recipe's {total} iterations.")
        if any(k < self.from_step for k in self.keep):
            raise UsageError(f"Cannot keep a step before from_step={self.from_step}; got keep={self.keep}.")
        if self.start is None and self.from_step:
            raise UsageError(f"Training from step {self.from_step} needs the weights at that step: start=...")
        self.first_mask()
        if self.start is None and self.mask is None:
            return
        module = self.recipe.meta_model()
        expected = module.state_dict()
        if self.start is not None:
            if (bad := first_non_finite(self.start.weights, constant_buffers(module))) is not None:
                raise UsageError(f"The starting weights hold NaN or infinity in {bad!r}.")
            check_alike(expected, self.start.weights)
        if self.mask is not None:
            masks.check_fits(self.mask, dict(module.named_parameters(remove_duplicate=False)))

    @property
    def end(self) -> int:
        """The last step, as a number."""
        assert self.to_step is not None
        return self.to_step

    @property
    def length(self) -> int | None:
        """How many iterations it has; None for a loop of one's own, which ends when it likes."""
        return None if self.recipe.loop is not None else self.end - self.from_step

    @property
    def steps(self) -> tuple[int, ...]:
        """The steps whose state is stored, in order."""
        return tuple(sorted({*self.keep, self.end}))

    @cached_property
    def description(self) -> dict[str, Any]:
        """The fingerprint in canonical form; ``keep`` is not in it: the trajectory is the same.

        Raises:
            fingerprint.NotCacheableError: if the recipe's model or functions cannot be fingerprinted.
        """
        # The start by its content, as masked: what the mask removes has no part in the outcome, and an initial
        # state is the same whether it is given by its seed or by its weights.
        start, mask = self.initial_state(), self.first_mask()
        return fingerprint.canonical(
            {
                "schema": fingerprint.SCHEMA,
                "recipe": self.recipe.fingerprint(),
                "start": {"weights": digest(start.weights), "optimizer": digest(start.optimizer)},
                "mask": None if mask is None else digest(mask),
                "order_seed": self.order_seed,
                "steps": [self.from_step, self.end],
                **({} if self.sparsity is None else {"sparsity": self.sparsity.entry(self.recipe)}),
            }
        )

    def initial_state(self) -> State:
        """The state at ``from_step``: masked start, optimizer included."""
        start = self.start or State(self.recipe.initial(self.init_seed))
        optimizer, mask = without_mask(start.optimizer), self.first_mask()
        if mask is None:
            return State(start.weights, optimizer)
        full = masks.cover_shared(mask, self.recipe.meta_model())
        entries = {} if self.sparsity is None else mask_entries(mask, of_mask(start.optimizer, EXPLORED))
        return State(masks.apply(start.weights, full), {**masked(optimizer, full), **entries})

    def first_mask(self) -> masks.MaskLike | None:
        """The mask at ``from_step``: of one that changes that of the state, if it has one, before that of the job."""
        if self.sparsity is None:
            return self.mask
        of_start = None if self.start is None else of_mask(self.start.optimizer)
        return first_mask(self.sparsity, self.recipe, self.mask if of_start is None else of_start)

    __repr__ = shown


Crossovers = Mapping[str, float] | bool | None
"""What a training chose by measuring, so that it ends in the same bits wherever it goes on: the densities below which
kernels take a convolution's weights one by one, by name, where not the usual one; False = torch's layers were quicker
than all kernels; None = there was no choice."""


@dataclass(frozen=True, eq=False)
class Run:
    """A finished training.

    Attributes:
        steps: (first, last) iteration.
        history: one record per evaluation: ``step``, ``learning_rate``, ``train_loss`` (mean since the record
            before), ``test_loss``, ``test_error`` and, if examples are held out, ``validation_*``. The last one is of
            all examples; one before of as many as ``test_examples`` says, if it does.
        states: step -> State; from a store they are read when asked for.
        key: its name in the store, or None.
        seconds: duration of the training.
        arithmetic: how it was computed, for the record.
        diverged: why there are no weights and all metrics are NaN; empty for a training that came to its end.
        crossovers: which layers of convolutions kernels computed, see `Crossovers`.
        mistakes: which test examples are wrong at the end; None where an example is not right or wrong, and of runs
            that were stored without.

    >>> run = lotto.train(recipe, keep=["5it"])
    >>> run.steps, [record["step"] for record in run.history], [*run.states]
    ((0, 40), [20, 40], [5, 40])
    >>> sorted(run.at(5)) == sorted(run.weights)
    True
    """

    steps: tuple[int, int]
    history: Sequence[Mapping[str, float]]
    states: Mapping[int, State]
    key: str | None = None
    seconds: float = 0.0
    arithmetic: str = ""
    diverged: str = ""
    crossovers: Crossovers = None
    mistakes: Mistakes | None = None

    @checked
    def state(self, step: int) -> State:
        """The state at a kept step.

        Raises:
            UsageError: if that step was not kept.
            DivergedError: if the training diverged.
        """
        if self.diverged:
            raise DivergedError(self.diverged)
        if step not in self.states:
            kept = ", ".join(map(str, sorted(self.states)))
            raise UsageError(f"Step {step} was not kept; ask for it with keep=[...]. Kept steps: {kept}.")
        return self.states[step]

    @checked
    def at(self, step: int) -> Mapping[str, Tensor]:
        """The weights at a kept step."""
        return self.state(step).weights

    @property
    def weights(self) -> Mapping[str, Tensor]:
        """The trained weights."""
        return self.at(self.steps[1])

    @checked
    def mask_at(self, step: int) -> masks.Mask | None:
        """The mask of the weights at a kept step; None of a training whose mask does not change."""
        found = of_mask(self.state(step).optimizer)
        return None if found is None else masks.Mask(found)

    @property
    def mask(self) -> masks.Mask | None:
        """The mask of the trained weights; None of a training whose mask does not change: it is the job's."""
        return self.mask_at(self.steps[1])

    @property
    def test_error(self) -> float:
        """Test error at the end (percent, unless the recipe says otherwise)."""
        return self.history[-1]["test_error"]

    @property
    def test_loss(self) -> float:
        """Test loss at the end."""
        return self.history[-1]["test_loss"]

    def __repr__(self) -> str:
        last = self.history[-1] if self.history else {}
        metrics = "".join(f", {name}={last[name]:.4g}" for name in ("test_error", "test_loss") if name in last)
        if self.diverged:
            return f"Run(steps {self.steps[0]} to {self.steps[1]}, diverged={shortened(self.diverged)!r})"
        key = "" if self.key is None else f", key={self.key[:8]!r}"
        return f"Run(steps {self.steps[0]} to {self.steps[1]}{metrics}, kept={brief([*self.states])}{key})"

    def _repr_html_(self) -> str:
        """The records of its history, at most `SHOWN` of them; its caption says what it is."""
        records = self.history if len(self.history) <= SHOWN else [self.history[i] for i in _spread(len(self.history))]
        titles = list(dict.fromkeys(name for record in records for name in record))
        rows = [[brief(record[name]) if name in record else "" for name in titles] for record in records]
        return table([title.replace("_", " ") for title in titles], rows, repr(self))


SHOWN = 12
"""Records of a history in a notebook."""


def _spread(count: int) -> list[int]:
    """Places of `SHOWN` of so many records, evenly spread, the first and the last among them."""
    return [round(i * (count - 1) / (SHOWN - 1)) for i in range(SHOWN)]
