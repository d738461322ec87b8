"""Several processes that train on one card at once, each one network."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import torch
from loky import ProcessPoolExecutor

from lotto.benchmarks.gpu.clock import WARM_STEPS, wait
from lotto.benchmarks.gpu.networks import Setup, products_in
from lotto.benchmarks.harness import Benchmark, Row, measure, timed
from lotto.core.rng import private_rng
from lotto.execution.memory import keep_freed_memory
from lotto.training.network import flushed_denormals

ONE = "one process"


def side_by_side(setup: Setup) -> list[Row]:
    """Seconds per step and network of several processes against one; and memory of the card that all of them hold."""
    counts = setup.sizes.processes
    before = held_on(setup.device)
    with ProcessPoolExecutor(max(counts), timeout=None, initializer=_begin, initargs=(setup,)) as pool:
        try:
            _together(pool, setup, max(counts), WARM_STEPS)  # each of them has begun
            took = timed(partial(_together, pool, setup, 1, WARM_STEPS)) / WARM_STEPS
            steps = max(1, min(setup.recipe.per_epoch, round(setup.sizes.turn_seconds / took)))
            held = held_on(setup.device) - before
            names = {ONE: 1, **{f"{count} processes": count for count in counts}}
            contenders: dict[str, Callable[[], None]] = {
                name: partial(_together, pool, setup, count, steps) for name, count in names.items()
            }
            pairs = [(name, ONE, "") for name in names if name != ONE]
            each = {name: steps * count for name, count in names.items()}
            benchmark = Benchmark(setup.network, contenders, pairs, replicates=each)
            found = measure(setup.network, benchmark, setup.sizes.repetitions)
        finally:
            pool.shutdown(kill_workers=True)
    kept = ("what", "against", "seconds", "seconds_against", "ratio", "ratio_min", "ratio_max", "repetitions")
    beside = {"epoch_steps": setup.recipe.per_epoch, "turn_steps": steps, "card_mebibytes": held}
    trained = {"network": setup.network, "precision": setup.precision}
    return [{**trained, **{k: row[k] for k in kept}, **beside} for row in found]


def held_on(device: str) -> float:
    """MiB of the card that all processes hold, contexts and reserves included; 0 on a processor."""
    if torch.device(device).type != "cuda":
        return 0.0
    free, total = torch.cuda.mem_get_info(device)
    return (total - free) / (1 << 20)


def _together(pool: ProcessPoolExecutor, setup: Setup, count: int, steps: int) -> None:
    for future in [pool.submit(_take, setup, steps) for _ in range(count)]:
        future.result()


def _begin(setup: Setup) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    _take(setup, 1)


def _take(setup: Setup, count: int) -> None:
    with products_in(setup.precision), flushed_denormals(), private_rng():
        _steps_of(setup)(count)
        wait(setup.device)


@cache
def _steps_of(setup: Setup) -> Callable[[int], None]:
    """What a process trains, made once."""
    return setup.steps()
