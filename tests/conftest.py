"""Small recipes on real or procedural data, and a store of its own for every test."""

from __future__ import annotations

import os
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # several processes test at once, and theirs; before numpy reads it
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or every interpreter that a test starts reads all of lotto anew

import numpy as np
import pytest
import torch
from hypothesis import settings

import lotto
from lotto import SGD, Linear, Recipe, Store

settings.register_profile("lotto", deadline=None)  # the machine may be busy; speed is for the benchmarks
settings.load_profile("lotto")

IMPORTING = (
    "test_from_transformers.py", "test_huggingface.py", "test_huggingface_sets.py", "test_lightning.py", "test_ray.py",
)  # fmt: skip
"""Files of extras alone, whose packages take seconds to import: not collected where no extras run."""


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    return True if collection_path.name in IMPORTING and config.option.markexpr == "not extras" else None


def small_arrays(seed: int = 0, train: int = 240, test: int = 80) -> lotto.data.Arrays:
    """Two noisy rings of six classes in twelve dimensions: learnable in a few dozen steps."""
    generator = np.random.default_rng(seed)
    y = generator.integers(0, 6, train + test)
    centres = np.random.default_rng(7).normal(size=(6, 12)) * 1.5
    x = (centres[y] + generator.normal(size=(train + test, 12))).astype(np.float32)
    return lotto.data.Arrays(x[:train], y[:train], x[train:], y[train:], name="rings")


def small_recipe(**changes: object) -> Recipe:
    base = Recipe(
        model="mlp-24-16",
        data=small_arrays(),
        optimizer=SGD(0.1, momentum=0.9),
        schedule=Linear(),
        batch_size=20,
        steps="40it",
        init="kaiming-normal",
        evaluations=2,
        tolerance=5.0,
        name="small",
    )
    return base.replace(**changes)


@pytest.fixture
def recipe() -> Recipe:
    return small_recipe()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture(autouse=True)
def _isolated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's store."""
    monkeypatch.setenv("LOTTO_STORE", str(tmp_path / "default-store"))


@pytest.fixture(autouse=True)
def _one_thread() -> object:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def same_tensors(a: object, b: object) -> bool:
    """Whether two dicts of tensors agree in names and in every bit."""
    return set(a) == set(b) and all(torch.equal(a[n], b[n]) for n in a)
