"""``lotto slurm``: workers of a store's queue as one array of Slurm's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from tyro.conf import Positional

from lotto.cli.screen import say
from lotto.cli.stopping import stopping
from lotto.core.errors import UsageError, text


def slurm(
    store: Positional[Path],
    /,
    *,
    workers: int = 4,
    gpus: int = 0,
    cpus: int = 1,
    memory: float = 8.0,
    time: str = "4h",
    partition: str | None = None,
    idle_timeout: str = "10min",
    local: bool = False,
    logs: Path | None = None,
) -> None:
    """Submit workers of a store's queue to Slurm as one array; `--backend queue` gives them jobs.

    A worker takes one job after another, so that Slurm's queue is waited in once. It ends when there has been nothing
    to do for a while, or its time is over; then its job goes on elsewhere.

    Args:
        store: folder where runs are remembered, on a file system that all machines see.
        workers: how many.
        gpus: GPUs of each.
        cpus: processors of each.
        memory: gigabytes of each.
        time: of each, at most: 90min, 4h, 2d.
        partition: Slurm's.
        idle_timeout: a worker ends after so long without work.
        local: start them on this machine instead, as a rehearsal.
        logs: folder of the script and what workers print (default: in the store's queue).
    """
    from lotto.core.seconds import seconds_of

    seconds, _ = seconds_of(time), seconds_of(idle_timeout)
    if workers < 1 or cpus < 1 or gpus < 0 or memory <= 0 or seconds < 60:
        raise UsageError("Workers and cpus are whole numbers from 1, gpus from 0, memory is above 0, time from 1min.")
    try:
        import submitit
    except ImportError as missing:
        raise UsageError(f"lotto slurm needs submitit ({missing}): pip install 'lotto-tickets[slurm]'.") from missing
    from lotto.execution.queue_folder import QueueFolder

    folder = logs or QueueFolder(store.absolute()).root / "logs"
    stopping.unwind()
    command = [sys.executable, "-m", "lotto", "work", str(store.absolute()), "--idle-timeout", idle_timeout]
    command += ["--gpus", str(gpus)] * bool(gpus)
    try:
        executor = submitit.AutoExecutor(folder, cluster="local" if local else "slurm")
    except RuntimeError as error:
        raise UsageError(
            f"Slurm's commands are not here ({text(str(error))}): submit from a login node, or --local."
        ) from error
    parameters: dict[str, Any] = {
        "name": "lotto", "timeout_min": round(seconds / 60), "gpus_per_node": gpus, "cpus_per_task": cpus,
        "tasks_per_node": 1, "nodes": 1, "mem_gb": memory,
    }  # fmt: skip
    if not local:
        parameters["slurm_array_parallelism"] = workers
        parameters |= {"slurm_partition": partition} if partition else {}
    executor.update_parameters(**parameters)
    try:
        with executor.batch():
            jobs = [executor.submit(submitit.helpers.CommandFunction(command)) for _ in range(workers)]
    except Exception as error:  # submitit passes on whatever sbatch said
        raise UsageError(f"Slurm has refused the workers: {text(str(error))}") from error
    say(f"{workers} workers are submitted ({', '.join(str(job.job_id) for job in jobs[:4])}{', …' * (workers > 4)}).")
    say(f"What they print: {folder}")
    say(f"Give them jobs: lotto imp RECIPE --backend queue --store {store}")
