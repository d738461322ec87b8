"""What ran, in one sentence."""

from __future__ import annotations

from lotto.report.arithmetic import trained_by


def test_every_kind_is_said_once():
    kinds = ["convolutions, 0 of 21 layers sparse", *["autograd (no kernels: gelu)"] * 2]
    assert trained_by(kinds) == "Trained by convolutions, 0 of 21 layers sparse; autograd (no kernels: gelu)."
    assert trained_by([f"perceptron, {n} of 3 layers sparse" for n in (2, 0, 1)]) == (
        "Trained by perceptron, 0 to 2 of 3 layers sparse."
    )
    assert trained_by(["", ""]) == ""
    assert trained_by([]) == ""


def test_layers_of_different_networks_are_not_one():
    kinds = ["convolutions, 1 of 21 layers sparse", "convolutions, 3 of 8 layers sparse"]
    assert trained_by(kinds) == "Trained by convolutions, 1 of 21 layers sparse; convolutions, 3 of 8 layers sparse."
