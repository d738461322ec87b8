"""Which pattern the weights that are left have, and which runtimes make use of it."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from lotto.core.errors import UsageError
from lotto.pruning.structured import Block, Channel, Groups, NByM

N_BY_M = {
    "2:4": (
        NByM(2, 4),
        "graphics cards from compute capability 8.0 on multiply it twice as quickly in half precision, by "
        "torch.sparse.to_sparse_semi_structured (sizes a multiple of 64) or TensorRT",
    ),
    "1:4": (NByM(1, 4), "it is a special case of 2:4"),
}
CHANNELS = "lotto export --compact makes a smaller dense network of it, quick with every runtime"
BLOCKS = "torch's to_sparse_bsr(({rows}, {columns})) of a linear layer keeps whole blocks"
ANY = "no runtime but lotto's kernels of kept weights, lotto export --sparse, makes use of that"
SIZES = (32, 16, 8, 4, 2)


def patterns_of(mask: Mapping[str, Tensor]) -> dict[str, str]:
    """The patterns that every layer of a mask has, by name, and who makes use of each.

    Args:
        mask: what is left, by weight; layers that are left whole do not count.

    >>> list(patterns_of({"fc.weight": torch.tensor([[True, False, True, False]] * 2)}))
    ['2:4', 'block:2x1']
    """
    pruned = {name: keep.bool().cpu() for name, keep in mask.items() if not bool(keep.all())}
    if not pruned:
        return {}
    found = {}
    if _all_within(N_BY_M["1:4"][0], pruned):
        found["1:4"] = f"{N_BY_M['1:4'][1]}: {N_BY_M['2:4'][1]}"
    elif _all_within(N_BY_M["2:4"][0], pruned):
        found["2:4"] = N_BY_M["2:4"][1]
    if _all_whole(Channel(), pruned):
        found["channel"] = CHANNELS
    elif (block := _largest_block(pruned)) is not None:
        found[f"block:{block.rows}x{block.columns}"] = BLOCKS.format(rows=block.rows, columns=block.columns)
    return found


def who_uses(mask: Mapping[str, Tensor]) -> str:
    """A sentence on what the pattern of a mask is good for.

    >>> who_uses({"fc.weight": torch.tensor([[True, True], [False, False]])}).partition(":")[0]
    'Pattern channel'
    """
    found = patterns_of(mask)
    if not found:
        return f"Pattern: single weights; {ANY}."
    return " ".join(f"Pattern {name}: {sentence}." for name, sentence in found.items())


def _groups(pattern: NByM | Groups, mask: Mapping[str, Tensor]) -> list[Tensor] | None:
    """The groups of each layer as rows; None if a shape cannot be divided."""
    try:
        return [pattern.rows_of(name, keep) for name, keep in mask.items()]
    except UsageError:
        return None


def _all_within(pattern: NByM, mask: Mapping[str, Tensor]) -> bool:
    """Whether at most n of every m are left everywhere."""
    found = _groups(pattern, mask)
    return found is not None and all(bool((rows.sum(1) <= pattern.n).all()) for rows in found)


def _all_whole(pattern: Groups, mask: Mapping[str, Tensor]) -> bool:
    """Whether every group has gone or is left as a whole."""
    found = _groups(pattern, mask)
    return found is not None and all(bool((rows.all(1) | ~rows.any(1)).all()) for rows in found)


def _largest_block(mask: Mapping[str, Tensor]) -> Block | None:
    sizes = sorted(((r, c) for r in (*SIZES, 1) for c in (*SIZES, 1) if r * c > 1), key=lambda s: -s[0] * s[1])
    return next((Block(r, c) for r, c in sizes if _all_whole(Block(r, c), mask)), None)
