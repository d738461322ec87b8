"""What a sweep measures: the trained networks of a result's levels, or one network pruned to several densities."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lotto.core.errors import UsageError, text
from lotto.data import Arrays, DataSource, ImageFolder
from lotto.data.batch import call, mapped
from lotto.execution.events import Progress
from lotto.execution.store import Store
from lotto.inference.checks import check_readable, resized
from lotto.inference.programs import examples_of
from lotto.inference.trained_levels import level_of, network_with, recipe_of, trained_weights
from lotto.inference.variants import AT_ONCE
from lotto.lottery.result import ImpResult
from lotto.lottery.saved import is_loaded, load
from lotto.lottery.search import imp
from lotto.pruning import masks
from lotto.pruning.masks import Mask
from lotto.pruning.rule import Pruning, prune
from lotto.recipe.recipe import Recipe
from lotto.training.evaluation import Tally

DENSITIES = (0.5, 0.2, 0.1, 0.05, 0.02)
ERRORS = ("error", "error_std", "n", "gap", "gap_low", "gap_high", "verdict")
"""Columns of a result's table that a sweep repeats."""
OWN_LOOP = "A loop of your own has data of its own, which is not seen here."
PRUNED_HERE = "Pruned by magnitude to each density and not trained again; gap: to the first row, of one network."


@dataclass(frozen=True)
class Candidate:
    """A network of a sweep.

    Attributes:
        columns: what is known of it.
        module: on the CPU, in float32 and evaluation mode, its pruned weights 0.
        untested: whether its error is still to be measured.
    """

    columns: Mapping[str, Any]
    module: nn.Module
    untested: bool


@dataclass(frozen=True)
class Examples:
    """What networks are given, and how they are judged.

    Attributes:
        recipe: whose test set and error it is; None = there are inputs alone.
        given: those inputs.
    """

    recipe: Recipe | None
    given: Any = None

    def inputs(self, count: int) -> Any:
        """So many inputs; the first ones again if there are fewer."""
        return resized(self.given, count) if self.recipe is None else _in_float32(examples_of(self.recipe, count))

    def check(self, module: nn.Module) -> None:
        """Raise ``UsageError`` unless a network can read them."""
        check_readable(module, self.given if self.recipe is None else self.inputs(1))

    @torch.no_grad()
    def error(self, module: nn.Module, change: Callable[[Any], Any] = lambda x: x) -> float:
        """The test error, NaN where there are no targets; ``change`` is made to the inputs."""
        if self.recipe is None:
            return float("nan")
        tally = Tally(self.recipe)
        for x, y in self.recipe.arrays.evaluation("test", AT_ONCE):
            outputs = call(module, change(_in_float32(x)))
            tally.add(mapped(outputs, lambda leaf: leaf.float() if leaf.is_floating_point() else leaf), y)
        return tally.metrics().error


@dataclass(frozen=True)
class Found:
    """What is measured.

    Attributes:
        rows: the networks, from dense to sparse.
        examples: what they are given.
        name: of the whole.
        about: where the networks come from, in a sentence.
        error_title, error_unit: of their errors.
    """

    rows: Sequence[Candidate]
    examples: Examples
    name: str
    about: str
    error_title: str
    error_unit: str


def candidates(
    source: ImpResult | Recipe | nn.Module | str | Path,
    data: Any,
    densities: Sequence[float] | None,
    levels: Sequence[int] | None,
    replicate: int | None,
    store: Store,
    progress: Progress | bool | None,
) -> Found:
    """What `sweep` measures for its arguments; see there."""
    if isinstance(source, str | Path):
        source = load(source)
    if isinstance(source, ImpResult):
        if densities is not None:
            raise UsageError("A result has levels, not densities of your choice: choose some with levels=[...].")
        return _of_result(source, data, levels, replicate, store)
    for name, value in (("levels", levels), ("replicate", replicate)):
        if value is not None:
            raise UsageError(f"{name} chooses among those of a result of lotto.imp; give densities=[0.5, 0.1] here.")
    chosen = _falling(DENSITIES if densities is None else densities)
    if isinstance(source, Recipe):
        if data is not None:
            raise UsageError("A recipe has its data: lotto.sweep(recipe). A trained module takes data=recipe.")
        if source.loop is not None:
            raise UsageError(f"{OWN_LOOP} Train first, lotto.imp(recipe, densities=...), then lotto.sweep(result, x).")
        below = [density for density in chosen if density < 1]
        found = imp(source, densities=below, replicates=1, controls=(), store=store, progress=progress)
        return _of_result(found, None, None, None, store)
    return _pruned_here(source, data, chosen)


def _falling(densities: Sequence[float]) -> list[float]:
    found = sorted(set(densities), reverse=True)
    if not found or not all(0 < density <= 1 for density in found):
        raise UsageError(
            f"densities are fractions of the prunable weights, above 0 and at most 1, such as [0.5, 0.1]; "
            f"got {text(densities)}."
        )
    return found


def _of_result(
    result: ImpResult, data: Any, levels: Sequence[int] | None, replicate: int | None, store: Store
) -> Found:
    recipe = data if isinstance(data, Recipe) else recipe_of(result) if is_loaded(result) else result.plan.recipe
    if data is not None and data is not recipe:
        examples = Examples(None, _in_float32(data))
    elif recipe.loop is not None:
        raise UsageError(f"{OWN_LOOP} Give a batch of inputs: lotto.sweep(result, x).")
    else:
        examples = Examples(recipe)
    table, found = result.table(), []
    for level in _ended(result) if levels is None else sorted(set(levels)):
        at = level_of(result, level, replicate)
        row = table.iloc[level]
        parameters = result.plan.recipe.parameter_count
        columns = {
            "level": level,
            "density": masks.density(at.mask),
            "parameter_fraction": 1 - (masks.size(at.mask) - masks.count(at.mask)) / parameters,
            "parameters": parameters - masks.size(at.mask) + masks.count(at.mask),
            **{name: row[name] for name in ERRORS if name in row},
        }
        found.append(Candidate(columns, network_with(recipe, trained_weights(at, store)).float(), False))
    if not found:
        raise UsageError("levels is a list of one or more levels of the result; got none.")
    examples.check(found[0].module)
    n = len(result.replicates)
    about = f"Trained networks of `imp`; errors and paired gaps over {n} replicate{'s' if n > 1 else ''}" + (
        "." if n > 1 else ", which has no bounds."
    )
    said = result.plan.recipe
    return Found(found, examples, said.name, about, said.error_title, said.error_unit)


def _ended(result: ImpResult) -> list[int]:
    """Levels with a network to measure."""
    return [
        level
        for level in range(max(map(len, result.replicates)))
        if any(level < len(r) and not r[level].run.diverged and masks.count(r[level].mask) for r in result.replicates)
    ]


def _pruned_here(source: nn.Module, data: Any, densities: Sequence[float]) -> Found:
    module = copy.deepcopy(source).cpu().float().eval()
    examples = _examples(data, module)
    examples.check(module)
    rule = examples.recipe.pruning if isinstance(data, Recipe) and examples.recipe is not None else Pruning()
    weights = module.state_dict()
    whole = masks.ones(module, rule.exclude, rule.include)
    left = Mask({name: weights[name] != 0 for name in whole}, whole.shared)
    now, rows = masks.density(left), []
    if not now:
        raise UsageError("All prunable weights of this network are 0: there is nothing to measure.")
    above = [density for density in densities if density > now and density < 1]
    if above:
        raise UsageError(
            f"This network has {100 * now:.3g} % of its prunable weights left, and densities fall from there; "
            f"got {above[0]:g}."
        )
    for density in [now, *(density for density in densities if density < now)]:
        kept = left if density == now else prune(weights, left, density=density, allocation=rule.allocation)
        if not masks.count(kept):
            raise UsageError(f"No weight is left at a density of {density:g} of {masks.size(kept):,} prunable weights.")
        own = copy.deepcopy(module)
        own.load_state_dict(masks.apply(weights, masks.cover_shared(kept, module)))
        parameters = masks.parameter_count(module)
        columns = {
            "density": masks.density(kept),
            "parameter_fraction": masks.parameter_fraction(kept, module),
            "parameters": parameters - masks.size(kept) + masks.count(kept),
            "error": float("nan"),
        }
        rows.append(Candidate(columns, own, examples.recipe is not None))
    about = PRUNED_HERE if examples.recipe is not None else f"{PRUNED_HERE.split(';')[0]}; no targets, so no errors."
    said = examples.recipe
    titles = ("", "") if said is None else (said.error_title, said.error_unit)
    return Found(rows, examples, type(source).__name__, about, *titles)


def _examples(data: Any, module: nn.Module) -> Examples:
    """What a module is tested on."""
    if isinstance(data, Recipe):
        if data.loop is not None:
            raise UsageError(f"{OWN_LOOP} Give a batch of inputs as data.")
        return Examples(data)
    if isinstance(data, Arrays | ImageFolder | DataSource | str):
        return Examples(Recipe(lambda: module, data))
    if isinstance(data, tuple | list) and len(data) == 2 and not isinstance(data[0], tuple | list | dict):
        x, y = data
        return Examples(Recipe(lambda: module, Arrays(x, y, x, y)))
    if isinstance(data, Tensor | dict):
        return Examples(None, _in_float32(data))
    raise UsageError(
        "A module is measured on data=: a recipe, a data source such as lotto.data.Arrays(...), a pair (inputs, "
        f"targets), or a tensor of inputs (no errors); got {text(data)}."
    )


def _in_float32(inputs: Any) -> Any:
    return mapped(inputs, lambda leaf: leaf.float() if leaf.is_floating_point() else leaf)
