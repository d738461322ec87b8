"""Architectures of Hugging Face's transformers, which is an optional extra and imported only when one is built."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from lotto.core.errors import UsageError, text

PREFIX = "transformers/"
"""Of a recipe's model that is a folder."""
PASSING = ("_name_or_path", "transformers_version", "_commit_hash", "torch_dtype", "dtype")
"""Entries of a configuration that say nothing of the network's shape."""


@dataclass(frozen=True)
class HuggingFace:
    """Builds a network of transformers from its configuration: a recipe's ``model``.

    Attributes:
        architecture: a class of transformers, such as ``BertForSequenceClassification``.
        config: the configuration, as JSON.
        folder: where the weights are at which a recipe begins; empty = every initialisation is drawn.
    """

    architecture: str
    config: str
    folder: str = ""

    def __call__(self) -> nn.Module:
        """A network with new weights."""
        made: nn.Module = self._kind()(self._config())
        return made

    def weights(self) -> dict[str, Tensor]:
        """The weights in the folder as a state dict, a new head drawn by torch's generator."""
        module = self._kind().from_pretrained(
            self.folder, config=self._config(), local_files_only=True, ignore_mismatched_sizes=True
        )
        found: dict[str, Tensor] = module.float().state_dict()
        return found

    @property
    def without_weights(self) -> HuggingFace:
        """The same network, drawn anew each time."""
        return replace(self, folder="")

    def _kind(self) -> Any:
        kind = getattr(_transformers(), str(self.architecture), None)
        if not (isinstance(kind, type) and issubclass(kind, nn.Module)):
            raise UsageError(f"transformers has no architecture {self.architecture!r}, such as {EXAMPLE!r}.")
        return kind

    def _config(self) -> Any:
        return config_of(json.loads(self.config))


EXAMPLE = "BertForSequenceClassification"


def transformers_model(
    model: Any, architecture: str | None = None, **changes: Any
) -> HuggingFace | Callable[[], nn.Module]:
    """A model of transformers for a recipe: ``lotto.Recipe(lotto.models.transformers_model(...), data)``.

    No hub is asked. What the network returns is read as `Recipe.output` says; ``loss="model"`` takes the loss that it
    computes by itself.

    Args:
        model: a folder of ``save_pretrained`` (training begins at its weights), a configuration (weights are drawn
            for each replicate), or a class or function that builds the network.
        architecture: a class of transformers; default the one that the configuration names.
        changes: of the configuration, such as ``num_labels=3``.

    Raises:
        UsageError: if it is none of these, or transformers is not installed.

    >>> transformers_model(lambda: torch.nn.Linear(2, 2))()
    Linear(in_features=2, out_features=2, bias=True)
    """
    if hasattr(model, "to_dict"):
        return _of_config(model.to_dict(), architecture, changes)
    if isinstance(model, str | Path):
        try:
            path = Path(model).expanduser()
            stored = json.loads((path / "config.json").read_text("utf-8"))
        except (OSError, ValueError, RuntimeError) as error:
            raise UsageError(
                f"{text(str(model))} is no folder of model.save_pretrained(folder): {text(str(error))}. A model of a "
                "hub is downloaded first: AutoModel.from_pretrained(name).save_pretrained(folder)."
            ) from error
        return _of_config(stored, architecture, changes, str(path))
    if callable(model) and not isinstance(model, nn.Module) and architecture is None and not changes:
        made: Callable[[], nn.Module] = model
        return made
    raise UsageError(
        "A model of transformers is a folder of save_pretrained, a configuration, such as transformers.BertConfig(), "
        f"with architecture={EXAMPLE!r}, or alone a function that builds it; got {text(model)}."
    )


def _of_config(stored: dict[str, Any], architecture: str | None, changes: dict[str, Any], folder: str = "") -> Any:
    # num_labels is no entry of its own: the names of the labels are.
    config = config_of(stored | changes | ({} if "num_labels" not in changes else {"id2label": None, "label2id": None}))
    named = architecture or next(iter(config.architectures or []), None)
    if named is None:
        raise UsageError(f"The configuration names no architecture: say which, architecture={EXAMPLE!r}.")
    plain = {n: value for n, value in config.to_dict().items() if n not in PASSING}
    return HuggingFace(named, json.dumps(plain, sort_keys=True, default=str), folder)


def config_of(stored: dict[str, Any]) -> Any:
    """A configuration of the kind that its entry ``model_type`` names."""
    kinds = _transformers().CONFIG_MAPPING
    if stored.get("model_type") not in kinds:
        raise UsageError(f"transformers knows no model_type {stored.get('model_type')!r}.")
    kept = {name: value for name, value in stored.items() if name not in PASSING and value is not None}
    return kinds[stored["model_type"]].from_dict(kept)


def _transformers() -> Any:
    try:
        import transformers
    except (ImportError, RuntimeError, OSError) as error:
        raise UsageError(
            f"This model needs transformers, which cannot be imported here ({str(error).splitlines()[0]}). "
            "Install it: pip install 'lotto-tickets[transformers]'."
        ) from error
    return transformers
