"""Without an optional package its module says what to install."""

from __future__ import annotations

import sys
from importlib import import_module

import pytest

from lotto.core.errors import UsageError


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("lightning", "lightning.pytorch", "lightning"),
        ("huggingface", "transformers", "transformers"),
        ("trackers.tensorboard", "torch.utils.tensorboard", "tensorboard"),
        ("trackers.mlflow", "mlflow", "mlflow"),
        ("trackers.wandb", "wandb", "wandb"),
    ],
)
def test_a_missing_package_is_named(name, package, extra, monkeypatch):
    monkeypatch.delitem(sys.modules, f"lotto.integrations.{name}", raising=False)
    for missing in {package, package.partition(".")[0]} - {"torch"}:
        monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(UsageError, match=rf"pip install 'lotto-tickets\[{extra}\]'"):
        import_module(f"lotto.integrations.{name}")
