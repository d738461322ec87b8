"""Trained subnetworks made small and fast for use.

Importing this package makes the operator of `sparse_network` known, so that `torch.export.load` reads its programs.
"""

from __future__ import annotations

from lotto.inference.compaction import compact
from lotto.inference.convolutions import sparse_convolutions
from lotto.inference.kept_weights import sparse_network
from lotto.inference.onnx_graphs import to_onnx
from lotto.inference.rows import sparse_rows
from lotto.inference.torchscript import to_torchscript

__all__ = ["compact", "sparse_convolutions", "sparse_network", "sparse_rows", "to_onnx", "to_torchscript"]
