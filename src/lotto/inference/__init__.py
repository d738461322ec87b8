"""Trained subnetworks made small and fast for use.

Importing this package makes the operator of `sparse_network` known, so that `torch.export.load` reads its programs.
"""

from __future__ import annotations

from lotto.inference.compaction import compact
from lotto.inference.convolutions import sparse_convolutions
from lotto.inference.kept_weights import sparse_network
from lotto.inference.rows import sparse_rows

__all__ = ["compact", "sparse_convolutions", "sparse_network", "sparse_rows"]
