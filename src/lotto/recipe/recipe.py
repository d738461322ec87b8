"""Recipe: what is trained and how. Frozen, validated when made, hashable."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import lotto.data as datasets
import lotto.models as models
from lotto.core import fingerprint
from lotto.core.check import Count, Fraction, Positive, Whole, checked
from lotto.core.duration import iterations
from lotto.core.errors import UsageError, unknown
from lotto.core.fingerprint import affects
from lotto.core.rng import private_rng, torch_seed
from lotto.core.shown import shown
from lotto.data.augment import Augmentation
from lotto.data.image_folder import ImageFolder
from lotto.data.in_memory import Arrays
from lotto.data.order import check_batch_size
from lotto.data.source import Adapted, DataSource
from lotto.models.from_transformers import PREFIX, HuggingFace, transformers_model
from lotto.pruning import masks
from lotto.pruning.prunable import frozen_summary, summary
from lotto.pruning.rule import Pruning, patterns
from lotto.recipe import identity, metrics
from lotto.recipe.changes import changed
from lotto.recipe.described import readable
from lotto.recipe.initializers import initial_weights
from lotto.recipe.lr_schedules import Constant, Schedule
from lotto.recipe.model_loss import ModelLoss, model_loss
from lotto.recipe.module_state import check_state
from lotto.recipe.names import check_names
from lotto.recipe.objectives import BY_MODEL, ERRORS, IGNORED, LOSSES, Objective, misclassification
from lotto.recipe.optimizers import SGD, Optimizer
from lotto.recipe.outputs import Entry, OfPrediction, WithLoss, prediction, with_loss
from lotto.recipe.own_loop import UNKNOWN, OwnLoop, no_loss
from lotto.recipe.pretrained import Pretrained
from lotto.recipe.reported import BY_VALIDATION, check_reported
from lotto.recipe.tolerance import POINTS, RELATIVE, Tolerance
from lotto.recipe.totals import ignored, reads_tensor, target_weight

Data = Arrays | ImageFolder | Adapted
"""What the loops read."""
UNNAMED = "custom"


@checked
@dataclass(frozen=True)
class Recipe:
    """A training recipe.

    Attributes:
        model: an architecture's name (``lenet-300-100``, ``resnet-20``, ...), or a class or function that
            builds a module without arguments, see also `lotto.models.transformers_model`; ``torchvision/NAME``,
            ``timm/NAME`` and ``transformers/FOLDER`` are models of these packages.
        data: a data set's name (``mnist``, ``cifar10``, ...), `lotto.data.Arrays`, `lotto.data.ImageFolder`, or any
            `lotto.data.DataSource`.
        optimizer: `SGD`, `Adam`, `AdamW` or `RMSprop`.
        schedule: factor on the learning rate over the steps.
        batch_size: examples per step (see ``accumulate``); an epoch's incomplete last batch is dropped.
        steps: length of a full training: ``50000it``, ``8ep``.
        init: ``kaiming-normal``, ``glorot-normal`` (biases 0), or ``module`` for the model's own.
        norm_init: the scale of normalisation layers: ``ones`` or ``uniform`` in (0, 1).
        augment: random shift-crop and flip of training images, `lotto.data.Augment`; or a function
            ``(batch, generator) -> batch`` of any training batch, see `lotto.data.Batch`: inputs are as the network
            would be given them, the generator is torch's, of (seed, step). It may make soft targets, such as those of
            mixup; what is evaluated is not changed.
        loss: ``cross-entropy``, ``mse``, or a function (outputs, targets) of a batch to a number, such as
            ``torch.nn.CrossEntropyLoss(weight=...)``.
            ``model``: the loss that the model computes by itself, given the targets as ``labels=``.
        error: what is reported: ``misclassification`` (percent; what the loss leaves out is left out), ``mse``, or a
            function like a loss; None takes ``mse`` for floating targets, else ``misclassification``. Losses and
            errors of a split are those of all its outputs at once, see `lotto.recipe.totals`.
        metrics: what else is computed of a split, by name: known names (``error``, ``top-5``, ``f1``, ``f1-binary``,
            ``auc``, ``r2``, ``mse``, ``perplexity``; as a list or a text with commas), functions of (outputs, targets)
            of which smaller is better, or a `lotto.recipe.Metric`. They are in a run's records as ``test_NAME``.
        decide_by: the metric that decides about levels and the best weights, in place of ``error``; by default the one
            called ``error``. Of a metric of which larger is better the error is the distance from its best value.
        output: which entry of what the network returns is the prediction, by name or place, for networks that return
            more than a tensor; None = ``logits``, else the first tensor. A loss of your own is given all that the
            network returns, or this entry where it is named.
        precision: ``float32``, ``bfloat16`` (autocast; weights stay float32) or ``float64``.
        channels_last: memory layout of image batches; None = with bfloat16.
        validation: training examples held out.
        evaluations: how often the test set is evaluated along a full training.
        pruning: defaults of IMP: rate, score, allocation, layers with their own rate, excluded layers.
        include, exclude: patterns of what is pruned as well, and of what is not; they are added to those of
            ``pruning``, see `Pruning`.
        rewind_to: default rewind step of IMP.
        tolerance: a level matches when its mean error is at most this far above the dense mean: a number in the
            error's unit, or a part of the dense mean, ``5%``. None = 0.2 percentage points of misclassification, 5 %
            of anything else.
        bn_examples: at most so many training examples re-estimate BatchNorm's statistics.
        eval_batch_size: examples at once where nothing is trained; None = 1,000, or fewer where the activations of so
            many would take much memory. Not part of a run's fingerprint: it changes results within rounding only.
        clip_norm: gradients with a larger norm, of all trained parameters together, are made so large. Those of pruned
            weights are 0, so it is the norm of the subnetwork alone.
        accumulate: a step sees so many batches of ``batch_size`` examples one after the other, as if they were one: the
            gradient is that of the mean loss over all. BatchNorm sees each by itself.
        batch_groups: a batch is computed in so many groups of its examples in order, as equal as can be, and each by
            itself: BatchNorm has a group's statistics, of which running ones take the mean over the groups, and what a
            forward draws at random is drawn for each. 1 = the batch as a whole, also where several processes
            (`torchrun`) have slices of it: they then compute its statistics together.
        ema: the decay of an exponential average of weights and buffers over the steps, such as 0.999: ``a = ema * a +
            (1 - ema) * w``, from the first weights on. Pruned weights are exactly 0 in it.
        weights: which weights are pruned, compared and reported: ``last``; ``ema``, the average (the default with
            ``ema``); ``best``, those with the least error on the held-out examples at one of the ``evaluations`` (of
            the average, if there is one). A rewind point has those that were trained.
        patience: with ``weights="best"``, a training stops after so many evaluations without a better one.
        device: ``auto`` (CUDA if there is one), ``cpu``, ``cuda``. Not part of a run's fingerprint.
        arithmetic: ``dense`` has torch's dense layers compute also where few weights are left, ``sparse`` kernels of
            ours wherever there are some, ``auto`` what is quicker. Not part of a run's fingerprint: it changes results
            within rounding only.
        compile: whether `torch.compile` makes the steps of networks that autograd trains: faster on a GPU, and
            half a minute or more in every worker first. Random numbers in a forward may be others.
        graphs: whether forward and backward of a network of ours that autograd trains alone are replayed as CUDA
            graphs: one call for a step's hundreds of kernels. On a GPU only; the first batch proves that they agree.
        name: what tables call the recipe. Not part of a run's fingerprint.
        pretrained: the weights at which every training begins, instead of new ones: a state dict, a safetensors file, a
            name (``minilm-l6``), or a `lotto.recipe.Pretrained`, which may leave some layers new; replicates differ in
            these and in the data order, and the control ``reinit`` draws all weights.
        loop: a training loop of one's own, see `lotto.Trainable`, which makes such recipes.

    >>> x, y = np.random.default_rng(0).normal(size=(60, 8)), np.arange(60) % 3
    >>> data = lotto.data.Arrays(x[:40], y[:40], x[40:], y[40:])
    >>> recipe = Recipe("mlp-16", data, lotto.SGD(0.1), batch_size=10, steps="5ep")
    >>> recipe.total, recipe.replace(optimizer__lr=0.05).optimizer.lr
    (20, 0.05)
    """

    model: str | Callable[[], nn.Module] = field(metadata=affects("loss", of=lambda r: identity.model(r)))
    data: str | DataSource = field(
        metadata=affects("loss", of=lambda r: {**identity.content(r), "validation": r.validation})
    )
    optimizer: Optimizer = field(
        default_factory=lambda: SGD(0.1, momentum=0.9),
        metadata=affects("training", of=lambda r: identity.typed(r.optimizer)),
    )
    schedule: Schedule = field(
        default_factory=Constant,
        metadata=affects(
            "training", of=lambda r: {**r.schedule.resolved(r.per_epoch), "kind": fingerprint.kind(r.schedule)}
        ),
    )
    batch_size: Count = field(default=128, metadata=affects("training"))
    steps: str | int = field(default="10ep", metadata=affects("training", entry="total", of=lambda r: r.total))
    init: str = field(default="module", metadata=affects("training", of=lambda r: [r.init, r.norm_init]))
    norm_init: str = field(default="ones", metadata=affects("training", entry=None))
    augment: Augmentation | None = field(
        default=None, metadata=affects("training", of=lambda r: identity.augmented(r.augment))
    )
    loss: str | Objective = field(default="cross-entropy", metadata=affects("loss"))
    error: str | Objective | None = field(default=None, metadata=affects("evaluation", of=lambda r: r.error_name))
    precision: str = field(default="float32", metadata=affects("loss"))
    channels_last: bool | None = field(default=None, metadata=affects("evaluation", of=lambda r: r.uses_channels_last))
    validation: Whole = field(default=0, metadata=affects("loss", entry=None))
    evaluations: Whole = field(default=10, metadata=affects("records"))
    pruning: Pruning = field(default_factory=Pruning, metadata=affects("levels"))
    rewind_to: str | int = field(default="0it", metadata=affects("nothing"))
    tolerance: float | str | None = field(default=None, metadata=affects("nothing"))
    bn_examples: Count = field(default=10_000, metadata=affects("statistics", unless=10_000))
    eval_batch_size: Count | None = field(default=None, metadata=affects("statistics", unless=None))
    device: str = field(default="auto", metadata=affects("nothing"))
    compile: bool = field(default=False, metadata=affects("records", unless=False))
    graphs: bool = field(default=False, metadata=affects("records", unless=False))
    name: str = field(default=UNNAMED, metadata=affects("nothing"))
    arithmetic: str = field(default="auto", metadata=affects("nothing"))
    pretrained: Mapping[str, Tensor] | str | Path | Pretrained | None = field(
        default=None, metadata=affects("training", unless=None, of=lambda r: r.pretrained.digest)
    )
    loop: OwnLoop | None = field(
        default=None, metadata=affects("training", unless=None, of=lambda r: r.loop.entry("run"))
    )
    clip_norm: Positive | None = field(default=None, metadata=affects("training", unless=None))
    accumulate: Count = field(default=1, metadata=affects("training", unless=1))
    batch_groups: Count = field(default=1, metadata=affects("training", unless=1))
    ema: Fraction | None = field(default=None, metadata=affects("training", unless=None))
    weights: str | None = field(default=None, metadata=affects("training", unless=None))
    patience: Count | None = field(default=None, metadata=affects("training", unless=None))
    metrics: Any = field(default=None, metadata=affects("records", unless=None))
    decide_by: str | None = field(default=None, metadata=affects("evaluation", unless=None))
    output: Entry | None = field(default=None, metadata=affects("loss", unless=None))
    include: InitVar[str | Sequence[str]] = ()
    exclude: InitVar[str | Sequence[str]] = ()

    def __post_init__(self, include: str | Sequence[str], exclude: str | Sequence[str]) -> None:
        check_names(self)
        if isinstance(self.model, str) and self.model.startswith(PREFIX):
            object.__setattr__(self, "model", transformers_model(self.model.removeprefix(PREFIX)))
        if isinstance(self.model, HuggingFace) and self.model.folder:
            with private_rng(torch_seed(0, "module")):  # a new head is the same wherever it is made
                found = self.model.weights()
            object.__setattr__(self, "model", self.model.without_weights)  # so that `pretrained` says where to begin
            object.__setattr__(self, "pretrained", self.pretrained or Pretrained(found))
        for what, given in (("include", include), ("exclude", exclude)):
            if given:
                joined = dict.fromkeys([*getattr(self.pruning, what), *patterns(given, what)])
                changed: dict[str, Any] = {what: tuple(joined)}
                object.__setattr__(self, "pruning", dataclasses.replace(self.pruning, **changed))
        if self.metrics is not None:
            object.__setattr__(self, "metrics", metrics.named(self.metrics))
            if self.decide_by is None and "error" in self.metrics and self.error is None:
                object.__setattr__(self, "decide_by", "error")
        if self.decide_by is not None:
            if self.decide_by not in (self.metrics or ()):
                raise unknown("metric to decide by", self.decide_by, self.metrics or ("metrics={'error': 'error'}",))
            if self.error is not None:
                raise UsageError("error= and decide_by= both say what decides: give one of them.")
        if self.batch_groups > 1 and (self.batch_groups > self.batch_size or self.compile):
            raise UsageError(
                f"A batch is computed in at most as many groups as it has examples, and not compiled; got batch_groups="
                f"{self.batch_groups}, batch_size={self.batch_size}, compile={self.compile}."
            )
        if self.graphs and (self.compile or self.accumulate > 1 or self.batch_groups > 1):
            raise UsageError(
                "graphs=True replays one whole batch of a step: it goes with neither compile=True nor accumulate or "
                f"batch_groups above 1; got {self.compile}, {self.accumulate}, {self.batch_groups}."
            )
        check_reported(self.weights, self.ema, self.patience)
        if self.weights in ("last", "ema") and self.weights == ("ema" if self.ema else "last"):
            object.__setattr__(self, "weights", None)  # the default, by its name
        if self.pretrained is not None and not isinstance(self.pretrained, Pretrained):
            object.__setattr__(self, "pretrained", Pretrained(self.pretrained))
        if self.tolerance is not None:
            Tolerance.of(self.tolerance)
        # Texts must be readable before anything is loaded.
        for step in (self.steps, self.rewind_to, self.schedule.warmup):
            iterations(step, 1)

    def replace(self, **changes: Any) -> Recipe:
        """A copy with some fields changed; ``optimizer__lr=0.05`` reaches inside a field.

        Raises:
            UsageError: for an unknown field; lists the choices. For one that a loop of one's own does not see.
        """
        return changed(self, changes)

    def __getstate__(self) -> dict[str, Any]:
        # The loaded data does not travel with a recipe: whoever unpickles it loads the data itself.
        derived = (
            "arrays", "loss_function", "error_function", "target_weight", "_meta_model", "parameter_count",
            "examined",
        )  # fmt: skip
        return {k: v for k, v in self.__dict__.items() if k not in derived}

    # --- what the recipe stands for -------------------------------------------------------------------

    @cached_property
    def arrays(self) -> Data:
        """The data set, loaded, with the validation examples held out."""
        # On the CPU, whatever default device is set where the data is first asked for (`meta_model` sets one).
        with torch.device("cpu"):
            loaded = datasets.load(self.data) if isinstance(self.data, str) else self.data
            whole = loaded if isinstance(loaded, Arrays | ImageFolder) else Adapted(loaded)
            held = whole.hold_out(self.validation)
            if self.reported == "best" and not held.size("validation"):
                raise UsageError(BY_VALIDATION)
            if self.loss != BY_MODEL:
                return held
            return Adapted(held.source if isinstance(held, Adapted) else held, labels=True)

    @cached_property
    def per_epoch(self) -> int:
        """Iterations in an epoch."""
        check_batch_size(self.step_examples, self.arrays.size())
        if isinstance(self.arrays, Adapted):
            self.arrays.check_batch_size(self.step_examples)
        return self.arrays.size() // self.step_examples

    @property
    def step_examples(self) -> int:
        """Examples of a step."""
        return self.batch_size * self.accumulate

    @property
    def reported(self) -> str:
        """Which weights are pruned, compared and reported: ``last``, ``ema`` or ``best``."""
        return self.weights or ("last" if self.ema is None else "ema")

    @property
    def by_autograd_alone(self) -> str:
        """What of the recipe only the plainest way to train does, in two or three words; empty if there is nothing."""
        asked = {
            "accumulate": self.accumulate > 1,
            "batch groups": self.batch_groups > 1,
            "ema": self.ema is not None,
            "parameter groups": self.optimizer.groups is not None,
        }
        return ", ".join(name for name, needed in asked.items() if needed)

    @cached_property
    def total(self) -> int:
        """Iterations of a full training; of a loop of one's own, which ends when it likes, as many as there may be."""
        if self.loop is not None:
            return UNKNOWN
        total = iterations(self.steps, self.per_epoch)
        if total < 1:
            raise UsageError(f"A training has at least one step; got steps={self.steps!r}.")
        return total

    def step(self, value: str | int) -> int:
        """Turn a step such as ``500it`` or ``2ep`` into iterations of this recipe."""
        return iterations(value, self.per_epoch)

    def learning_rate(self, step: int) -> float:
        """The learning rate of iteration ``step``."""
        return self.optimizer.lr * self.schedule.factor(step, self.total, self.per_epoch)

    @property
    def error_name(self) -> str | Objective:
        """The error, with its default settled by the targets."""
        if self.decide_by is not None:
            chosen = self.metrics[self.decide_by]
            if chosen in ("error", "misclassification", "mse"):
                return "misclassification" if chosen == "error" else str(chosen)
            return metrics.Error(self.decide_by, metrics.of(chosen))
        if self.error is not None:
            return self.error
        if isinstance(self.data, str):  # known before it is loaded
            return "mse" if self.data in datasets.NUMBERS else "misclassification"
        classes = self.arrays.class_targets or (isinstance(self.arrays, Adapted) and self.arrays.tests_classes)
        return "misclassification" if classes else "mse"

    @property
    def in_points(self) -> bool:
        """Whether errors are percentages, whose differences are percentage points."""
        name = self.error_name
        if isinstance(name, metrics.Error):
            return name.metric.unit == "%"
        return name in ("misclassification", misclassification)

    @property
    def more_metrics(self) -> dict[str, metrics.Metric]:
        """The metrics that do not decide, by their names in records."""
        others = {name: it for name, it in (self.metrics or {}).items() if name != self.decide_by}
        return {name if name != "error" else "misclassification": metrics.of(it) for name, it in others.items()}

    @property
    def error_title(self) -> str:
        """What tables and axes call the error: ``error %``, ``mse``, or the name of the function."""
        name = self.error_name
        if isinstance(name, metrics.Error):
            return f"{name.title}{self.error_unit}"
        if self.in_points:
            return f"error{self.error_unit}"
        return name if isinstance(name, str) else getattr(name, "__name__", type(name).__name__)

    @property
    def margin(self) -> Tolerance:
        """The tolerance, with its default settled by the error."""
        if self.tolerance is not None:
            return Tolerance.of(self.tolerance)
        return Tolerance.of(POINTS if self.in_points else RELATIVE)

    @property
    def error_unit(self) -> str:
        """What follows an error in tables: percent, or nothing."""
        return " %" if self.in_points else ""

    @cached_property
    def loss_function(self) -> Objective:
        """The loss: (outputs, targets) of a batch to a number."""
        if self.loop is not None:
            return no_loss
        if self.loss == BY_MODEL:
            return model_loss(self.build(), next(self.arrays.evaluation("test", 2)))
        return LOSSES[self.loss] if isinstance(self.loss, str) else self.loss

    @cached_property
    def error_function(self) -> Objective:
        """The error: (outputs, targets) to a number."""
        return self.of_prediction(self._objective_of_error)

    def of_prediction(self, objective: Any) -> Any:
        """An error or a metric as it is given what `read` has read."""
        loss = self.loss_function
        return OfPrediction(objective, loss.shift) if isinstance(loss, ModelLoss) else objective

    @property
    def _objective_of_error(self) -> Objective:
        name = self.error_name
        if name == "misclassification" and (left_out := ignored(self.loss_function)) != IGNORED:
            return functools.partial(misclassification, ignore_index=left_out)  # what the loss leaves out, it does
        return ERRORS[name] if isinstance(name, str) else name

    def read(self, outputs: Any) -> Any:
        """What losses and errors are given of what a network returned; see ``output``."""
        if isinstance(outputs, Tensor | WithLoss):
            return outputs
        if self.loss == BY_MODEL:
            return with_loss(outputs, self.output)
        if self.output is None and not isinstance(self.loss, str) and not reads_tensor(self.loss_function):
            return outputs
        return prediction(outputs, self.output)

    @cached_property
    def target_weight(self) -> Callable[[Tensor], Tensor] | None:
        """From a batch's targets to their weight in the mean training loss; None = all batches weigh alike."""
        labels = self.arrays.class_labels()  # None = known only once they are read: any may be among them
        return target_weight(self.loss_function, lambda label: labels is None or bool((labels == label).any()))

    @checked
    def build(self, seed: int = 0) -> nn.Module:
        """Build the module; ``seed`` fixes what its own constructor draws, from torch, random or numpy.random."""
        with private_rng(torch_seed(seed, "module")):
            if isinstance(self.model, str):
                return models.build(self.model, self.arrays.shape, self.arrays.classes)
            module = self.model()
        if not isinstance(module, nn.Module):
            raise UsageError(f"model() must return a torch.nn.Module; it returned {type(module).__name__}.")
        check_state(module)
        return module

    def meta_model(self) -> nn.Module:
        """The architecture, to be read, not run: one of ours is on the meta device, with no memory for weights."""
        return self._meta_model if isinstance(self.model, str) else self.build()

    @cached_property
    def _meta_model(self) -> nn.Module:
        with torch.device("meta"):
            return self.build()

    @cached_property
    def parameter_count(self) -> int:
        """Number of all parameters of the model, a shared one once: what a fraction of all parameters is of."""
        return masks.parameter_count(self.meta_model())

    @property
    def left_out(self) -> str:
        """What is not pruned, why and its share of all parameters, and how many are frozen; empty if nothing."""
        said = summary(masks.left_out(self), self.parameter_count), frozen_summary(self.meta_model())
        return " ".join(filter(None, said))

    @checked
    def initial(self, seed: int) -> dict[str, Tensor]:
        """The initial weights of ``seed``, or the pretrained ones: a state dict."""
        drawn = initial_weights(self.build(seed), self.init, self.norm_init, seed)
        return self.pretrained.initial(drawn) if isinstance(self.pretrained, Pretrained) else drawn

    # --- fingerprint ----------------------------------------------------------------------------------

    def fingerprint(self, of: str = "run") -> dict[str, Any]:
        """Everything that decides an outcome, in canonical form; what each field decides is in its metadata.

        Args:
            of: ``run``, a whole training with its records; ``evaluation`` of given weights; ``loss``, its derivatives.

        Raises:
            fingerprint.NotCacheableError: if the model or a function cannot be fingerprinted.
        """
        return identity.fingerprint(self, of)

    @cached_property
    def examined(self) -> dict[str, Any]:
        """What has been found out by running the user's code, by the fingerprint of the code."""
        return {}

    @property
    def uses_channels_last(self) -> bool:
        """Whether image batches are laid out channels-last."""
        if self.channels_last is None:
            return self.precision == "bfloat16" and len(self.arrays.shape) == 3
        return self.channels_last

    def describe(self) -> dict[str, Any]:
        """The recipe as readable text values, for reports and files."""
        described = {f.name: readable(getattr(self, f.name)) for f in dataclasses.fields(self)}
        described["tolerance"] = str(self.margin) if self.margin.relative else self.margin.amount
        return described

    __repr__ = shown


Recipe.include = property(lambda self: self.pruning.include)  # type: ignore[attr-defined]
Recipe.exclude = property(lambda self: self.pruning.exclude)  # type: ignore[attr-defined]
