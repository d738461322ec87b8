"""TorchScript: equal to the network for batches of any size, or refused in a sentence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import lotto
from lotto.core.errors import UsageError
from lotto.inference import to_torchscript
from lotto.inference.torchscript import loaded, torchscript_of


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_what_is_loaded_computes_what_the_network_does(tmp_path):
    module = network().train()
    path = to_torchscript(module, torch.randn(1, 12), tmp_path / "network.ts")
    assert module.training
    found = torch.jit.load(path)
    for size in (1, 3, 65):
        x = torch.randn(size, 12)
        torch.testing.assert_close(found(x), module.eval()(x).detach(), rtol=1e-4, atol=1e-5)


def test_sparse_forms_survive():
    module, x = network().eval(), torch.randn(3, 12)
    module[0].weight.data[:, 2:] = 0
    for sparse in (lotto.inference.sparse_network(module, x), lotto.inference.sparse_rows(module, below=0.2)):
        torch.testing.assert_close(loaded(torchscript_of(sparse, x))(x), module(x).detach(), rtol=1e-4, atol=1e-5)


class Named(nn.Module):
    def forward(self, a, b):
        return {"sum": a + b}


def test_inputs_by_name():
    x = {"a": torch.ones(2, 3), "b": torch.ones(2, 3)}
    with pytest.raises(UsageError, match=r"torch\.jit cannot trace"):  # outputs by name it has not
        torchscript_of(Named(), x)


class Branching(nn.Module):
    def forward(self, x):
        return x + 1 if len(x) > 2 else x


def test_a_network_that_looks_at_the_size_of_its_batch_is_refused(tmp_path):
    with pytest.raises(UsageError, match="cannot be made TorchScript: on the example the outputs differ by up to 1"):
        to_torchscript(Branching(), torch.ones(4, 2), tmp_path / "network.ts")
    assert not (tmp_path / "network.ts").exists()
