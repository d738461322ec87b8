"""The trained networks of a result's levels: from the result itself, its file, or the store that remembers them."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from lotto.core.errors import UsageError
from lotto.core.weights import check_alike
from lotto.execution.store import Store, StoredStates
from lotto.lottery.replicate import Level
from lotto.lottery.result import ImpResult
from lotto.recipe.objectives import ERRORS
from lotto.recipe.recipe import Recipe


def trained_weights(at: Level, store: Store) -> Mapping[str, Tensor]:
    """The weights at the end of a level's training.

    Raises:
        UsageError: if they were not saved with the result and are not remembered either.
    """
    run, end = at.run, at.run.steps[1]
    if end in run.states:
        return run.weights
    if run.key is not None:
        states = store.entries.read(
            run.key, lambda folder, manifest: StoredStates(folder, run.key or "", [int(s) for s in manifest["states"]])
        )
        if states is not None and end in states:
            return states[end].weights
    raise UsageError(
        f"The trained weights of level {at.level} are neither in the result nor remembered in {store.root}. Name the "
        "store that has them, or run its command again, which trains what is missing; result.save(folder) keeps them "
        "in the folder."
    )


def level_of(result: ImpResult, level: int, replicate: int | None) -> Level:
    """A level of a replicate; of the first whose training of it came to its end where none is named.

    Raises:
        UsageError: if there is no such level or replicate, or its training diverged.
    """
    known = result.replicates
    if replicate is not None and not 0 <= replicate < len(known):
        raise UsageError(f"Replicates are 0 to {len(known) - 1}; got {replicate}.")
    most = max(map(len, known)) - 1
    if not 0 <= level <= most:
        raise UsageError(f"Levels are 0 to {most}; got {level}.")
    for levels in known if replicate is None else [known[replicate]]:
        if level < len(levels) and not levels[level].run.diverged:
            return levels[level]
    raise UsageError(f"The training of level {level} diverged, so there is no network to measure.")


def recipe_of(result: ImpResult) -> Recipe:
    """The recipe of a loaded result, whose model and data have names here; measures what it measured.

    Raises:
        UsageError: if they have none.
    """
    said = result.plan.recipe.describe()
    model, data = str(said["model"]), str(said["data"])
    error = said.get("error")
    try:
        return Recipe(model, data, error=error if error in ERRORS else None, name=result.plan.recipe.name)
    except UsageError as unknown:
        raise UsageError(
            f"The result knows {model!r} on {data!r} by what they were called alone: they are code, and not in its "
            "files. Give the recipe, lotto.sweep(result, recipe), or a batch of inputs with a model's name."
        ) from unknown


def network_with(recipe: Recipe, weights: Mapping[str, Tensor]) -> nn.Module:
    """The recipe's network with trained weights, in evaluation mode on the CPU.

    Raises:
        UsageError: if they are another network's.
    """
    module = recipe.build()
    try:
        check_alike(module.state_dict(), weights)
    except UsageError as error:
        raise UsageError(f"The recipe's network is another than the result's: {error}") from error
    module.load_state_dict(weights)
    return module.eval()
