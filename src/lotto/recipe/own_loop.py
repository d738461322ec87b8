"""A recipe whose training is a loop of the user's: what stands where the loop has its own data, loss and optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from torch import Tensor, nn

from lotto.core.check import checked
from lotto.core.duration import MOST
from lotto.core.errors import UsageError, text
from lotto.core.weights import check_alike, clone, digest
from lotto.data.source import DataSource, Split

UNKNOWN = MOST
"""The length of a loop that ends when it likes."""


@checked
@dataclass(frozen=True)
class OwnLoop:
    """A whole training as a function of the user's.

    Attributes:
        fit: ``fit(model, *, start_step, seed) -> metrics`` trains the module in place, from ``start_step`` of its own
            schedule on, in the data order ``seed``, and returns numbers by name, ``error`` among them.
        key: a text that tells one version from another where code alone does not.

    >>> OwnLoop(lambda model, start_step, seed: {"error": 1.0}).key
    ''
    """

    fit: Callable[..., Mapping[str, float]]
    key: str = ""


class OwnData(DataSource):
    """The data of a loop that has its own: there is nothing here to read."""

    name = "a loop of your own"
    fingerprint = "a loop's own data"

    def size(self, split: Split = "train") -> int | None:
        """A stream as far as anybody here knows."""
        return {"train": None, "test": 1}.get(split, 0)

    def train_batches(self, seed: int, start: int, stop: int, batch_size: int) -> Iterable[Any]:
        """Refused."""
        no_data()

    def eval_batches(self, split: Split, batch_size: int) -> Iterable[Any]:
        """Refused."""
        no_data()


def error(outputs: Any, targets: Any) -> Tensor:
    """The error that a loop returns is no function of outputs and targets here."""
    no_data()


def no_data() -> NoReturn:
    """Raise ``UsageError``: what was asked for needs batches."""
    raise UsageError(
        "A loop of your own (lotto.Trainable) has its own data and loss, so that paths, curvature and scores of "
        "gradients have nothing to read: describe the training as a lotto.Recipe for these."
    )


class Pretrained:
    """Weights at which a training begins, told from others by their content.

    Args:
        weights: a state dict, or a safetensors file of one.
    """

    def __init__(self, weights: Mapping[str, Tensor] | str | Path) -> None:
        self.weights: Mapping[str, Tensor] = (
            clone({name: tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)})
            if isinstance(weights, Mapping)
            else _read(Path(weights))
        )
        self.digest = digest(self.weights)

    def initial(self, module: nn.Module) -> dict[str, Tensor]:
        """The state dict; raises ``UsageError`` if it is not that of the module."""
        check_alike(module.state_dict(), self.weights)
        return clone(self.weights)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pretrained) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def __repr__(self) -> str:
        return f"Pretrained({len(self.weights)} tensors, {self.digest[:8]})"


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as failed:
        raise UsageError(
            f"{path} cannot be read as safetensors ({text(str(failed))}). Pretrained weights are a state dict or a "
            "safetensors file of one: safetensors.torch.save_file(model.state_dict(), path)."
        ) from failed
