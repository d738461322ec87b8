"""Trained networks beside their tickets: written, and built again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from torch import Tensor, nn

from lotto.core import files
from lotto.core.check import checked
from lotto.core.errors import UsageError
from lotto.core.result_files import TRAINED, trained_folder
from lotto.data import load as load_data
from lotto.recipe.recipe import Recipe

FORMAT = "lotto.trained"


def save_trained(path: Path, weights: Mapping[str, Tensor], recipe: Recipe, about: Mapping[str, str]) -> None:
    """Write the weights of a trained network beside what is needed to build it."""
    description = recipe.describe()
    names = {"model": str(description["model"]), "data": str(description["data"])}
    files.save_tensors(path, weights, {"format": FORMAT, "version": "1", **names, **about})


@checked
def load_trained(path: Path, load: Callable[[str], object] = load_data) -> tuple[Recipe, nn.Module, dict[str, str]]:
    """A recipe that knows model and data, the trained network, and the file's other notes.

    Args:
        path: a result folder, its ``ticket.safetensors``, or ``trained.safetensors`` itself.
        load: gets the data set by name, which the network's shapes depend on.

    Raises:
        UsageError: if there is no such file or its model has no name here.
    """
    folder = trained_folder(Path(path))
    weights, about = files.load_tensors(folder / TRAINED, FORMAT)
    try:
        with files.reading(folder / TRAINED):
            about = {"model": about["model"], "data": about["data"], "density": about["density"], **about}
        load(about["data"])
        recipe = Recipe(about["model"], about["data"])
        module = recipe.build()
    except UsageError as error:
        raise UsageError(
            f"{about['model']!r} on {about['data']!r} cannot be built from its name ({error}) In Python: "
            "lotto.inference.compact(model, example)."
        ) from error
    with files.reading(folder / TRAINED):
        module.load_state_dict(weights)
    return recipe, module.eval(), about
