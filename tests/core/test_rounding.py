"""torch's switches of how float32 is rounded, of both generations, are read, carried and put back."""

from __future__ import annotations

import pytest
import torch

from lotto.core.rounding import Rounding, _holder

NEWER = _holder("mkldnn.matmul") is not None
newer = pytest.mark.skipif(not NEWER, reason="this torch has no switches by operation")


@pytest.fixture(autouse=True)
def put_back():
    before = Rounding.of_this_process()
    yield
    for name, value in before.switches:
        _holder(name).fp32_precision = value
    torch.set_float32_matmul_precision(before.matmul)
    for name, value in before.switches:
        _holder(name).fp32_precision = value
    assert Rounding.of_this_process() == before


@pytest.mark.parametrize(("word", "products"), [("highest", "float32"), ("high", "tf32"), ("medium", "bf16")])
def test_the_older_switch_says_how_products_are_rounded(word, products):
    torch.set_float32_matmul_precision(word)
    found = Rounding.of_this_process()
    assert found.matmul == word
    assert found.of_device("cpu")["products"] == products
    assert found.of_device("cpu")["convolutions"] == "float32"


def test_a_card_rounds_convolutions_unless_told_not_to():
    assert Rounding.of_this_process().of_device("cuda")["convolutions"] == "tf32"
    torch.backends.cudnn.allow_tf32 = False
    assert Rounding.of_this_process().of_device("cuda")["convolutions"] == "float32"
    torch.backends.cudnn.allow_tf32 = True


@newer
@pytest.mark.parametrize("name", ["mkldnn.matmul", "mkldnn.conv", "mkldnn.rnn", "cuda.matmul", "cudnn.conv"])
def test_switches_of_single_operations_are_carried_and_put_back(name):
    before = Rounding.of_this_process()
    value = "ieee" if name == "cudnn.conv" else "tf32"
    _holder(name).fp32_precision = value
    changed = Rounding.of_this_process()  # torch's older question raises an error here
    before.set()
    assert Rounding.of_this_process().of_device("cpu") == before.of_device("cpu")
    assert Rounding.of_this_process().of_device("cuda") == before.of_device("cuda")
    changed.set()
    assert Rounding.of_this_process().of_device("cpu") == changed.of_device("cpu")
    assert Rounding.of_this_process().of_device("cuda") == changed.of_device("cuda")
    assert changed.of_device("cpu") != before.of_device("cpu") or changed.of_device("cuda") != before.of_device("cuda")


@newer
def test_what_is_said_of_all_operations_holds_for_each():
    for part in ("matmul", "conv", "rnn"):  # what is said of one comes before what is said of all
        _holder(f"mkldnn.{part}").fp32_precision = "none"
    torch.backends.mkldnn.fp32_precision = "tf32"
    try:
        assert set(Rounding.of_this_process().of_device("cpu").values()) == {"tf32"}
    finally:
        torch.backends.mkldnn.fp32_precision = "none"


def test_a_torch_without_newer_switches_is_read_by_its_older_ones():
    former = Rounding("high", True, ())
    assert former.of_device("cpu") == {"products": "tf32", "convolutions": "float32", "recurrent layers": "float32"}
    assert former.of_device("cuda") == {"products": "tf32", "convolutions": "tf32", "recurrent layers": "tf32"}
