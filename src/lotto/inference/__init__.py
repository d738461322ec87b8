"""Trained subnetworks made small and fast for use."""

from __future__ import annotations

from lotto.inference.compaction import compact
from lotto.inference.convolutions import sparse_convolutions
from lotto.inference.rows import sparse_rows

__all__ = ["compact", "sparse_convolutions", "sparse_rows"]
