"""Where jobs and tasks run and what is remembered of them: engines, the store."""

from __future__ import annotations

from functools import partial

from lotto.core.moved import renamed_name
from lotto.execution.engine import Engine
from lotto.execution.events import JobAdvanced, JobFinished, JobStarted, Progress
from lotto.execution.factory import available_cores, make
from lotto.execution.procedures import Procedure, gather
from lotto.execution.processes import Processes
from lotto.execution.serial import Serial
from lotto.execution.store import Store
from lotto.execution.trackers import tracker

__all__ = [
    "Engine",
    "JobAdvanced",
    "JobFinished",
    "JobStarted",
    "Procedure",
    "Processes",
    "Progress",
    "Serial",
    "Store",
    "available_cores",
    "gather",
    "make",
    "tracker",
]


__getattr__ = partial(renamed_name, __name__)  # names of the first edition
