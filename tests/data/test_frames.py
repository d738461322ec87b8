"""Data frames as arrays: what is a number, what is a class, and what is refused."""

import numpy as np
import pandas as pd
import pytest
import torch

import lotto
from lotto.core.errors import UsageError
from lotto.data import from_frames

FRAME = pd.DataFrame(
    {
        "size": np.linspace(20, 200, 40),
        "rooms": np.arange(40) % 5,
        "old": np.arange(40) % 2 == 0,
        "price": np.linspace(1, 9, 40) ** 2,
        "kind": pd.Categorical(np.where(np.arange(40) % 3 == 0, "house", "flat")),
    }
)
PLAIN = ["size", "rooms", "old"]


def split(frame=FRAME):
    return frame[:30], frame[30:]


def test_inputs_are_the_columns_and_classes_are_in_order():
    data = from_frames(*split(), "kind", features=PLAIN)
    expected = np.array([[s, r, o] for s, r, o in FRAME[PLAIN].itertuples(index=False)], dtype=np.float32)
    assert np.array_equal(torch.cat([data.x["train"], data.x["test"]]).numpy(), expected)
    assert data.y["train"].tolist() == [int(k == "house") for k in FRAME["kind"][:30]]
    assert data.classes == 2
    assert from_frames(*split(), "rooms", features=["size"]).y["test"].tolist() == FRAME["rooms"][30:].tolist()
    assert from_frames(*split(), "old", features=["size"]).classes == 2


def test_standardised_by_the_training_frame():
    data = from_frames(*split(), "price", features=["size", "rooms"], standardise=True)
    mean, std = FRAME["size"][:30].mean(), FRAME["size"][:30].std(ddof=0)
    assert data.x["test"][:, 0].tolist() == pytest.approx(((FRAME["size"][30:] - mean) / std).tolist(), rel=1e-6)
    recipe = lotto.Recipe("mlp-8", data, lotto.SGD(0.01), batch_size=10, steps="3ep", loss="mse")
    assert recipe.error_title == "mse"
    assert lotto.train(recipe).steps == (0, 9)


@pytest.mark.parametrize(
    ("change", "arguments", "sentence"),
    [
        ({}, {"target": "cost"}, "The train frame has no column 'cost'. "),
        ({}, {"target": "price"}, r"column 'kind' is of type category, .*get_dummies\(frame, columns=\['kind'\]\)"),
        ({"kind": "a b"}, {"target": "price"}, "The column 'kind' is of type (str|object), and inputs are numbers"),
        ({"rooms": np.where(np.arange(40) == 35, np.nan, 1)}, {"target": "price", "features": PLAIN},
         "The column 'rooms' of the test frame has 1 missing values"),
        ({"rooms": np.arange(40) + 2**25}, {"target": "price", "features": PLAIN}, "whole numbers that float32 cannot"),
        ({"kind": np.where(np.arange(40) > 35, "hut", "flat")}, {"target": "kind", "features": PLAIN},
         "The class 'hut' of 'kind' is in the test frame alone"),
    ],
)  # fmt: skip
def test_what_is_no_number_is_refused_with_what_to_type(change, arguments, sentence):
    with pytest.raises(UsageError, match=sentence):
        from_frames(*split(FRAME.assign(**change)), **arguments)
