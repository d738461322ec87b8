"""``lotto work``: a worker of a store's queue."""

from __future__ import annotations

import sys
from pathlib import Path

from tyro.conf import Positional

from lotto.cli.screen import say
from lotto.cli.stopping import stopping
from lotto.core.errors import UsageError


def work(
    store: Positional[Path], /, *, idle_timeout: str | None = None, lease: str = "90s", gpus: int = 0, threads: int = 1
) -> None:
    """Work on the queue of a store: take jobs that `--backend queue` has put there, on whichever machine.

    Start one for each GPU, or for each processor, once: they take whatever comes, in turn. Each says every few seconds
    that it lives; what one had that is silent for the length of a lease, another goes on with. Ctrl-C or `kill` gives
    the job back. Modules of yours must be importable here as where the experiment runs.

    Args:
        store: folder where runs are remembered, on a file system that all see.
        idle_timeout: end after so long without work: 90s, 10min, 2h; default: never.
        lease: silence after which another's job is taken over; longer than the file system caches what it has seen.
        gpus: GPUs that must be there.
        threads: threads until a job comes, which says its own.
    """
    from lotto.core.seconds import seconds_of

    idle = None if idle_timeout is None else seconds_of(idle_timeout)
    silence = seconds_of(lease)
    import torch

    from lotto.execution.pilot import Pilot
    from lotto.execution.queue_folder import BEAT_SECONDS

    if gpus > torch.cuda.device_count():
        raise UsageError(f"{gpus} GPUs are wanted, and torch sees {torch.cuda.device_count()} here.")
    if threads < 1:
        raise UsageError(f"threads is a whole number from 1; got {threads}.")
    beat = min(BEAT_SECONDS, silence / 4)
    if silence <= 0:
        raise UsageError(f"A lease is longer than 0 seconds; got {lease}.")
    torch.set_num_threads(threads)
    sys.path.insert(0, str(Path.cwd()))  # as where `lotto imp my_package.model:recipe` is typed
    stopping.unwind()
    say(f"Working on the queue of {store}.")
    count = Pilot(store, silence, idle, beat).work()
    say(f"{'1 job' if count == 1 else f'{count} jobs'} done.")
