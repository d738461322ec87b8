from __future__ import annotations

import pytest
import torch

from lotto.core.errors import UsageError
from lotto.models import build
from lotto.models.gru import Gru
from lotto.pruning import masks


def by_hand(net: Gru, series: torch.Tensor) -> torch.Tensor:
    """Class scores of one series, shape (moments, signals), moment by moment."""
    w = dict(net.named_parameters())
    state, outputs = torch.zeros(net.gru.hidden_size, dtype=series.dtype), []
    for x in series:
        a = (w["gru.weight_ih_l0"] @ x + w["gru.bias_ih_l0"]).chunk(3)
        b = (w["gru.weight_hh_l0"] @ state + w["gru.bias_hh_l0"]).chunk(3)
        reset, update = torch.sigmoid(a[0] + b[0]), torch.sigmoid(a[1] + b[1])
        state = (1 - update) * torch.tanh(a[2] + reset * b[2]) + update * state
        outputs.append(state)
    return w["fc.weight"] @ torch.stack(outputs).mean(0) + w["fc.bias"]


def test_scores_are_those_of_each_series_alone_whatever_stands_behind_its_end():
    torch.manual_seed(0)
    net = Gru(4, 5, 8).double()
    lengths = [9, 1, 4]
    x = torch.randn(3, 4, 9, dtype=torch.float64)
    x[:, -1] = (torch.arange(9) < torch.tensor(lengths)[:, None]).double()
    expected = torch.stack([by_hand(net, row[:-1, :n].T) for row, n in zip(x, lengths, strict=True)])
    torch.testing.assert_close(net(x), expected, rtol=1e-10, atol=1e-10)
    x[1] = 0
    assert torch.isfinite(net(x)).all(), "a series without a moment"


def test_recurrent_matrices_are_pruned():
    net = build("gru-32", (13, 29), 9)
    assert {n: tuple(m.shape) for n, m in masks.ones(net).items()} == {
        "gru.weight_ih_l0": (96, 12), "gru.weight_hh_l0": (96, 32), "fc.weight": (9, 32),
    }  # fmt: skip
    for shape in ((40,), (1, 29), (3, 32, 32)):
        with pytest.raises(UsageError, match="'gru-32' cannot read inputs of shape"):
            build("gru-32", shape, 9)
