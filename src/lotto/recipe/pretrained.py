"""Weights at which a training begins, instead of new ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from torch import Tensor

from lotto.core.check import checked
from lotto.core.errors import UsageError, text
from lotto.core.weights import check_alike, clone, digest
from lotto.data.sources import download
from lotto.data.sources.catalog import WEIGHTS
from lotto.pruning.prunable import matches
from lotto.pruning.rule import patterns


@checked
class Pretrained:
    """Weights at which a training begins, told from others by their content.

    Args:
        weights: a state dict, a safetensors file of one, or the name of published weights (``minilm-l6``), which are
            downloaded, verified and kept when they are first needed.
        new: patterns of layers that the weights are not for, such as the head of another task: these are drawn as ever,
            anew for each replicate.

    Raises:
        UsageError: if a file cannot be read.

    >>> body = {name: w for name, w in recipe.initial(0).items() if not name.startswith("fc2")}
    >>> begun = recipe.replace(pretrained=Pretrained(body, new=("fc2",)))
    >>> [bool((begun.initial(1)[name] == recipe.initial(0)[name]).all()) for name in ("fc1.weight", "fc2.weight")]
    [True, False]
    """

    def __init__(self, weights: Mapping[str, Tensor] | str | Path, new: str | Sequence[str] = ()) -> None:
        self.name = weights if isinstance(weights, str) and weights in WEIGHTS else ""
        self.new = patterns(new, "new")
        if isinstance(weights, Mapping):
            self.weights = clone({name: tensor for name, tensor in weights.items() if isinstance(tensor, Tensor)})
        elif not self.name:
            self.weights = _read(Path(weights))

    @cached_property
    def weights(self) -> Mapping[str, Tensor]:
        """The state dict, by name from the cache."""
        return download.get(WEIGHTS[self.name])

    @cached_property
    def digest(self) -> str:
        """Of the content; that of published weights is known before they are here."""
        return WEIGHTS[self.name].digest if self.name else digest(self.weights)

    def initial(self, drawn: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The state dict for a network whose own initial weights are ``drawn``, of which the new layers are taken.

        Raises:
            UsageError: if the weights are not those of the network's other layers.
        """
        new = {name: tensor for name, tensor in drawn.items() if any(matches(name, p) for p in self.new)}
        if wrong := [p for p in self.new if not any(matches(name, p) for name in new)]:
            raise UsageError(f"new={text(wrong[0])} names no layer of the network, which has {text([*drawn])}.")
        check_alike({n: t for n, t in drawn.items() if n not in new}, {n: self.weights[n] for n in self.weights})
        return clone({**{n: self.weights.get(n, t) for n, t in drawn.items()}, **new})

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Pretrained) and (self.digest, self.new) == (other.digest, other.new)

    def __hash__(self) -> int:
        return hash(self.digest)

    def __getstate__(self) -> dict[str, object]:
        # Published weights do not travel with a recipe: whoever unpickles it has them from the cache.
        return {name: value for name, value in vars(self).items() if name != "weights" or not self.name}

    def __repr__(self) -> str:
        return f"Pretrained({self.name or f'{len(self.weights)} tensors'}, {self.digest[:8]})"


def _read(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as failed:
        raise UsageError(
            f"{path} cannot be read as safetensors ({text(str(failed))}). Pretrained weights are a state dict, a "
            "safetensors file of one (safetensors.torch.save_file(model.state_dict(), path)), or one of the names "
            f"{', '.join(WEIGHTS)}."
        ) from failed
