"""Error at one density against total training compute, for all methods, by shared trainings.

Rows have the columns of `stabilizing`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from lotto.core.errors import unknown
from lotto.execution.procedures import Procedure, gather
from lotto.experiments.case import At, Case, Row
from lotto.experiments.experiment import experiment
from lotto.experiments.measures import ERROR
from lotto.lottery.options import Retraining
from lotto.lottery.replicate import Level
from lotto.papers.methods import plots
from lotto.papers.methods.measures import COMPUTE, KINDS, METHODS, STOPPED
from lotto.pruning import masks
from lotto.pruning.dynamic import thinned
from lotto.pruning.early_bird import settled
from lotto.pruning.masks import Mask
from lotto.training.dynamic_sparsity import DynamicSparsity, spaced
from lotto.training.job import Job, Run
from lotto.training.passes import job_fraction, levels_fraction, multiplications


@dataclass(frozen=True)
class Setting:
    """What all methods have in common.

    Attributes:
        case: the replicate and the rewind step.
        density: of the subnetworks: that of IMP's last level.
        each: multiplications of each weight matrix.
        checks: steps of the dense training at which Early-Bird looks at its mask.
        particles: of SWAMP.
        updates: of SET's and RigL's mask; gradual pruning has twice as many.
        stop: the part of the training after which these masks hold still.
        fraction: of SET's weights that are exchanged at the first update.
        fewer: of RigL's.
    """

    case: Case
    density: float
    each: dict[str, int]
    checks: tuple[int, ...]
    particles: int
    updates: int
    stop: float
    fraction: float
    fewer: float

    @property
    def keep(self) -> tuple[int, ...]:
        """Steps that every dense training stores, so that all methods share it."""
        return tuple(sorted({0, self.case.k, *self.case.options.rewind_steps, *self.checks}))

    def levels(self, rewind_step: int, **options: Any) -> Procedure[list[Level]]:
        """Levels of the replicate by a plan; without a schedule, those of IMP."""
        return (yield from self.case.levels(partial=True, rewind_to=rewind_step, also_keep=self.keep, **options))

    def dynamic(self, kind: str) -> DynamicSparsity:
        """How the mask changes along one training."""
        recipe, few = self.case.recipe, self.updates
        every, stop = spaced(recipe, 2 * few if kind == "gradual" else few, self.stop)
        if kind == "gradual":
            return DynamicSparsity("gradual", every=every, stop=stop, density=self.density)
        if kind == "rigl":
            return DynamicSparsity("rigl", every=every, stop=stop, fraction=self.fewer)
        return DynamicSparsity("set", every=every, stop=stop, fraction=self.fraction)


@dataclass(frozen=True)
class Outcome:
    """The subnetwork that a method leads to.

    Attributes:
        run: its training.
        mask: what is left.
        compute: multiplications of all trainings, in those of a dense one.
        stopped: of Early-Bird, the part of the training after which the mask has settled.
    """

    run: Run
    mask: Mask
    compute: float
    stopped: float | None = None


Found = Procedure[Outcome | None]


@experiment(
    "compute", title="Error at one density against total training compute, all methods",
    source="ours; Early-Bird (1909.11957)", plot=plots.compute, searches=True,
)  # fmt: skip
def compute(
    case: Case,
    *,
    methods: Sequence[str] = (),
    particles: int = 2,
    checks: int = 20,
    updates: int = 10,
    stop: float = 0.5,
    fraction: float = 0.3,
    fewer: float = 0.1,
) -> Procedure[list[Row]]:
    """Error and training compute of each of ``methods`` (empty = all of `METHODS`) at the density of the last level.

    Methods before training prune the initial weights globally; the random mask has the layer densities of
    Erdos-Renyi-Kernel, and SET and RigL begin with it: ``updates`` updates until the part ``stop`` of the training, of
    ``fraction`` and ``fewer`` of a layer's weights. Early-Bird looks at the mask ``checks`` times. A method of which a
    training diverges has no rows.
    """
    chosen = tuple(methods) or tuple(METHODS)
    for name in chosen:
        if name not in METHODS:
            raise unknown("method", name, METHODS)
    every = max(1, case.recipe.total // checks)
    setting = Setting(
        case, case.plan_of().densities[-1], multiplications(case.recipe), tuple(range(every, case.recipe.total, every)),
        particles, updates, stop, fraction, fewer,
    )  # fmt: skip
    (dense,) = yield [_dense(setting)]
    found = yield from gather({name: PROCEDURES[name](setting, name) for name in chosen})
    rows = case.dense_rows(dense)
    for name, outcome in found.items():
        if outcome is None:
            continue
        place = At(case.options.levels, masks.density(outcome.mask))
        rows += [
            case.row(place, KINDS[name], ERROR, outcome.run.test_error),
            case.row(place, KINDS[name], COMPUTE, outcome.compute),
        ]
        if outcome.stopped is not None:
            rows.append(case.row(place, KINDS[name], STOPPED, outcome.stopped))
    return rows


def _dense(setting: Setting) -> Job:
    case = setting.case
    return Job(case.recipe, case.seed, case.seed, keep=setting.keep, label=f"{case.label} · dense")


SCORES = {"random": ("random", "erk"), "magnitude": ("magnitude", "global"), "snip": ("snip", "global"),
          "grasp": ("grasp", "global"), "synflow": ("synflow", "global")}  # fmt: skip


def _before(setting: Setting, name: str) -> Found:
    """Pruned at initialisation: one sparse training. What the scores cost is not counted, a few batches."""
    score, allocation = SCORES[name]
    options = {"densities": (setting.density,), "score": score, "allocation": allocation, "prune_at": "init"}
    levels = yield from setting.levels(0, **options)
    if levels[-1].diverged or len(levels) < 2:
        return None
    last, total = levels[-1], setting.case.recipe.total
    sparse = levels_fraction([level.mask for level in levels], 0, total, setting.each) - 1.0
    return Outcome(last.run, last.mask, sparse)


def _changing(setting: Setting, name: str) -> Found:
    """SET, RigL, gradual pruning: one training along which the mask changes."""
    case, sparsity = setting.case, setting.dynamic(name)
    mask, keep = None, tuple(step + 1 for step in sparsity.updates(case.recipe).steps)
    if sparsity.exchanges:
        random = yield from _before(setting, "random")
        if random is None:
            return None
        mask, keep = random.mask, ()
    label = f"{case.label} · {name}"
    job = Job(case.recipe, case.seed, case.seed, mask=mask, keep=keep, label=label, sparsity=sparsity)
    (run,) = yield [job]
    return None if run.diverged else Outcome(run, run.mask or Mask({}), job_fraction(job, run, setting.each))


def _early_bird(setting: Setting, name: str) -> Found:
    """The dense training until its mask has settled; pruned there, the rest is trained sparse."""
    case, ones = setting.case, masks.ones(setting.case.recipe)
    (dense,) = yield [_dense(setting)]
    if dense.diverged:
        return None
    kept = [thinned(dense.at(step), ones, setting.density) for step in setting.checks]
    number = settled(kept)
    step = setting.checks[-1 if number is None else number]
    mask, total = kept[-1 if number is None else number], case.recipe.total
    job = Job(
        case.recipe, order_seed=case.seed, start=dense.state(step), mask=mask, from_step=step,
        label=f"{case.label} · {name}",
    )  # fmt: skip
    (run,) = yield [job]
    if run.diverged:
        return None
    return Outcome(
        run, mask, step / total + job_fraction(job, run, setting.each), 1.0 if number is None else step / total
    )


OPTIONS: dict[str, dict[str, Any]] = {
    "imp": {},
    "lr-rewinding": {"after": Retraining.LR},
    "fine-tuning": {"after": Retraining.FINETUNE},
}


def _rewound(setting: Setting, name: str) -> Found:
    """A dense training and levels of its weights, each trained from the rewind step on."""
    particles = setting.particles if name == "swamp" else 1
    options = {"densities": (setting.density,)} if name == "one-shot" else OPTIONS.get(name, {"particles": particles})
    levels = yield from setting.levels(setting.case.k, **options)
    if levels[-1].diverged:
        return None
    kept = [level.mask for level in levels]
    cost = levels_fraction(kept, setting.case.k, setting.case.recipe.total, setting.each, particles)
    return Outcome(levels[-1].run, kept[-1], cost)


PROCEDURES: dict[str, Callable[[Setting, str], Found]] = {
    **dict.fromkeys(SCORES, _before),
    **dict.fromkeys(("set", "rigl", "gradual"), _changing),
    "early-bird": _early_bird,
    **dict.fromkeys(("one-shot", "imp", "lr-rewinding", "fine-tuning", "swamp"), _rewound),
}
EXPERIMENTS = (compute,)
