"""ONNX graphs as onnxruntime computes them: equal to the network, smaller for compact ones, or refused in a sentence."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

import lotto
from lotto.core.errors import UsageError
from lotto.inference import to_onnx
from lotto.inference.onnx_graphs import OnnxNetwork, onnx_of

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")


def perceptron(used: int = 8) -> nn.Module:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 3))
    network[2].weight.data[:, used:] = 0
    return network


class Two(nn.Module):
    """Reads two tensors, returns two."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, a, b):
        return self.fc(a) * b, a.sum(1)


@pytest.fixture
def needs_onnx():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package)


@pytest.mark.extras
@pytest.mark.usefixtures("needs_onnx")
def test_onnxruntime_computes_what_the_network_does_for_batches_of_any_size(tmp_path):
    import onnxruntime

    network = perceptron().train()
    path = to_onnx(network, torch.randn(1, 12), tmp_path / "network.onnx")  # of one example, too
    assert network.training
    session = onnxruntime.InferenceSession(path.read_bytes(), providers=["CPUExecutionProvider"])
    for size in (1, 3, 65):
        x = torch.randn(size, 12)
        (found,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        weights = [p.detach().double().numpy() for p in network.parameters()]
        expected = np.maximum(x.double().numpy() @ weights[0].T + weights[1], 0) @ weights[2].T + weights[3]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.extras
@pytest.mark.usefixtures("needs_onnx")
def test_a_compact_network_gives_a_smaller_graph_with_the_same_outputs():
    network, x = perceptron(), torch.randn(5, 12)
    whole = onnx_of(network, x)
    small = onnx_of(lotto.inference.compact(network.eval(), x), x)
    assert len(small) < len(whole) - 4 * 56 * 15  # of 64 units 56 are gone, each with 15 numbers and a bias
    torch.testing.assert_close(OnnxNetwork(small)(x), network(x).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.extras
@pytest.mark.usefixtures("needs_onnx")
def test_networks_with_batchnorm_and_sums_and_of_several_tensors():
    torch.manual_seed(0)
    network, x = lotto.models.build("resnet-8", (3, 8, 8), 10).eval(), torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(OnnxNetwork(onnx_of(network, x))(x), network(x).detach(), rtol=1e-4, atol=1e-5)
    two, a, b = Two(), torch.randn(3, 4), torch.randn(3, 3)
    for given in ((a, b), {"a": a, "b": b}):
        found = OnnxNetwork(onnx_of(two, given))(a, b)
        for one, other in zip(found, two(a, b), strict=True):
            torch.testing.assert_close(one, other.detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.extras
@pytest.mark.usefixtures("needs_onnx")
def test_a_graph_with_other_outputs_is_refused(monkeypatch, tmp_path):
    forward = OnnxNetwork.forward
    monkeypatch.setattr(OnnxNetwork, "forward", lambda self, *given: forward(self, *given) + 1)
    with pytest.raises(UsageError, match="cannot be made an ONNX graph: on the example the outputs differ by up to 1"):
        to_onnx(perceptron(), torch.randn(2, 12), tmp_path / "network.onnx")
    assert not (tmp_path / "network.onnx").exists()


def test_kept_weights_have_no_operator_in_onnx():
    network, x = perceptron().eval(), torch.randn(2, 12)
    for sparse in (lotto.inference.sparse_network(network, x), lotto.inference.sparse_rows(network, below=1.1)):
        with pytest.raises(UsageError, match="ONNX has no operator that skips pruned weights"):
            onnx_of(sparse, x)


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_a_missing_package_is_named(package, monkeypatch, tmp_path):
    for found in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, found, None if found == package else torch)
    with pytest.raises(UsageError, match=r"pip install 'lotto-tickets\[onnx\]'"):
        to_onnx(perceptron(), torch.randn(2, 12), tmp_path / "network.onnx")


@pytest.mark.parametrize("example", [torch.randn(2, 5), torch.empty(0, 12), None, "x"])
def test_an_example_that_the_network_cannot_read_is_one_sentence(example, tmp_path):
    for write in (to_onnx, lotto.inference.to_torchscript):
        with pytest.raises(UsageError, match=r"Sequential cannot read the example.*Give a batch of its inputs\."):
            write(perceptron(), example, tmp_path / "network")
