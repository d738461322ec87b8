"""How long Python is held up by a copy to the card, and how long the copy takes: from ordinary and pinned memory."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lotto.benchmarks.gpu.clock import wait
from lotto.benchmarks.gpu.networks import Sizes
from lotto.benchmarks.harness import Benchmark, Row, measure
from lotto.data.upload import uploaded

SIDES = {1: 32, 128: 224}
"""Pixels of an image's side, by the least batch that takes so many: those of ImageNet, and small ones for a trial."""
PINNED, ORDINARY = "pinned", "ordinary"


def uploads(device: str, sizes: Sizes) -> list[Row]:
    """A batch of images as bytes: pinned by lotto and not waited for, against torch's ordinary copy."""
    side = max(pixels for least, pixels in SIDES.items() if sizes.batch >= least)
    x, target = torch.zeros(sizes.batch, 3, side, side, dtype=torch.uint8), torch.device(device)
    copies = 20 if sizes.turn_seconds else 1

    def contender(copy: Callable[[Tensor], Tensor], waited: bool) -> Callable[[], None]:
        def run() -> None:
            wait(device)
            for _ in range(copies):
                copy(x)
            if waited:
                wait(device)

        return run

    def pinned(x: Tensor) -> Tensor:
        return uploaded(x, target)

    def ordinary(x: Tensor) -> Tensor:
        return x.to(target, copy=True)

    rows: list[Row] = []
    for what, waited in (("until Python goes on", False), ("until it is there", True)):
        contenders = {PINNED: contender(pinned, waited), ORDINARY: contender(ordinary, waited)}
        benchmark = Benchmark(what, contenders, [(PINNED, ORDINARY, "")], replicates=dict.fromkeys(contenders, copies))
        (row,) = measure("uploads", benchmark, sizes.repetitions)
        kept = {k: v for k, v in row.items() if k not in ("benchmark", "title", "goal")}
        rows.append({"measured": what, "megabytes": x.numel() / 1e6, **kept})
    return rows
