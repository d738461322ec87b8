"""Whatever is typed or found in a file is taken, or refused in one sentence: no raw error, no echo of pages."""

from __future__ import annotations

import logging
import random
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import damage
import surface

SLOW = (
    "imp",
    "instability",
    "stability",
    "save_",
    "data.load",
    "experiment.run",
    "write_",
    "make_plan",
    "engine.",
    "sweep",
)
"""Callables that train or draw."""


@pytest.fixture(scope="module", autouse=True)
def context(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("LOTTO_STORE", str(folder / "default"))
        logging.disable(logging.WARNING)
        surface.Context.shared = surface.Context(folder)
        yield surface.Context.shared
        logging.disable(logging.NOTSET)


def broken(tried):
    return [f"{name}: {said}" for name, (kind, said) in tried if kind in ("raw", "unclean")]


def test_a_sample_of_wrong_arguments_is_refused_in_a_sentence():
    chosen = [case for case in surface.cases() if not case[0].startswith(SLOW)]
    chosen = random.Random(0).sample(chosen, 500)
    assert not broken((f"{n}({a}={v})", surface.tried(n, a, v)) for n, a, v in chosen)


def test_a_sample_of_damaged_files_is_refused_in_a_sentence(context):
    chosen = [case for case in damage.cases(context) if not case[0].startswith("lotto ")]
    chosen = random.Random(0).sample(chosen, 60)
    assert not broken((f"{name} {kind}", surface.outcome(attempt)) for name, kind, attempt in chosen)


@pytest.mark.extras
def test_every_wrong_argument_is_refused_in_a_sentence():
    assert not broken((f"{n}({a}={v})", surface.tried(n, a, v)) for n, a, v in surface.cases())


@pytest.mark.extras
def test_a_sixth_of_all_damaged_files_is_refused_in_a_sentence(context):
    cases = [*damage.cases(context)][::6]  # all of them take five minutes: python tests/fuzz/damage.py
    assert not broken((f"{name} {kind}", surface.outcome(attempt)) for name, kind, attempt in cases)


def test_numbers_of_numpy_and_torch_lists_and_paths_are_taken(context):
    import lotto

    recipe = lotto.Recipe(
        "mlp-5-4", context.arrays, lotto.SGD(np.float32(0.5), np.float64(0.5)), batch_size=np.int64(8), steps="4it",
        schedule=lotto.MultiStep(["1it", np.int64(3)]), evaluations=torch.tensor(1), pruning=lotto.pruning.Pruning(exclude=["fc3"]),
    )  # fmt: skip
    assert recipe.optimizer == lotto.SGD(0.5, 0.5)
    assert type(recipe.batch_size) is int
    assert recipe.schedule.milestones == ("1it", 3)
    assert recipe.pruning.exclude == ("fc3",)
    run = lotto.train(recipe, keep="2it", store=context.folder / "other")
    assert sorted(run.states) == [2, 4]
    mask = {name: keep.numpy().tolist() for name, keep in lotto.pruning.masks.ones(recipe).items()}
    assert lotto.pruning.masks.count(mask) == 5 * 6 + 4 * 5


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (lambda lotto, c: lotto.imp("mnist"), "recipe is a Recipe, such as lotto.Recipe.*; got 'mnist'"),
        (lambda lotto, c: lotto.imp(c.recipe, lvels=3), "imp has no argument 'lvels'.*Did you mean 'levels'"),
        (lambda lotto, c: lotto.Recipe("mlp-5"), "Recipe: missing a required argument: 'data'"),
        (lambda lotto, c: lotto.evaluate(c.recipe, c.run), r"weights is a dict of tensors by name.*: pass its \.weights"),
        (lambda lotto, c: lotto.pruning.masks.count(c.ticket), r"mask is a mask.*: pass its \.mask"),
        (lambda lotto, c: lotto.train(c.recipe, keep=["3ti"]), "A step is text such as"),
        (lambda lotto, c: lotto.data.Arrays(c.x, c.y, None, None), "x_test is an array.*hold examples out"),
        (lambda lotto, c: lotto.data.Arrays({"x": c.x}, c.y, c.x, c.y), r"x_train is an array.*one of its entries, \['x'\]"),
        (lambda lotto, c: lotto.data.Arrays(c.x, (c.y, c.y), c.x, c.y), "y_train is one array; got a tuple of 2"),
        (lambda lotto, c: lotto.data.Arrays(c.x, np.array(["a", "b", "c"])[c.y], c.x, c.y), "y_train holds text such as 'a'.*numpy.unique"),
    ],
)  # fmt: skip
def test_a_sentence_says_what_to_type(typed, said, context):
    import lotto

    with pytest.raises(lotto.LottoError, match=said):
        typed(lotto, context)


@pytest.mark.parametrize(
    ("dtype", "taken"),
    [("float16", "float32"), ("float64", "float32"), (">f4", "float32"), ("bool", "float32"), ("int8", "int64"),
     ("uint16", "int64"), ("uint64", "int64"), ("uint8", "uint8")],
)  # fmt: skip
def test_inputs_of_any_width_are_converted_without_loss(dtype, taken, context):
    from lotto.data.convert import inputs_from

    x = np.arange(6).reshape(3, 2).astype(dtype)
    found = inputs_from(x, "x")
    assert str(found.dtype) == f"torch.{taken}"
    assert found.tolist() == x.astype("float64").tolist()


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_found_wherever_it_is_before_training(label, split, context):
    import lotto

    y = {"train": context.y[:32].copy(), "test": context.y[32:].copy()}
    y[split][-1] = label
    data = lotto.data.Arrays(context.x[:32], y["train"], context.x[32:], y["test"])
    events: list = []
    recipe = lotto.Recipe(lambda: torch.nn.Linear(6, 3), data, batch_size=8, steps="2it")
    with pytest.raises(lotto.LottoError, match=f"y_{split} holds the label {label} at {len(y[split]) - 1} .1 such."):
        lotto.train(recipe, progress=events.append)
    assert not events
    ignoring = recipe.replace(loss=torch.nn.CrossEntropyLoss(ignore_index=label))
    lotto.train(ignoring, store=context.folder / "ignoring")


def test_targets_that_would_be_broadcast_are_refused(context):
    import lotto

    y = context.y.astype("float32")
    data = lotto.data.Arrays(context.x[:32], y[:32], context.x[32:], y[32:])
    recipe = lotto.Recipe(lambda: torch.nn.Linear(6, 1), data, loss=torch.nn.MSELoss(), batch_size=8, steps="2it")
    with pytest.raises(lotto.LottoError, match=r"give both one shape, such as y\[:, None\]"):
        lotto.train(recipe)
