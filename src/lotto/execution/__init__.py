"""Where jobs and tasks run and what is remembered of them: engines, the store."""

from __future__ import annotations

from lotto.core.faces import lazy_face

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lotto.core.errors import WorkerError
    from lotto.core.signals import held
    from lotto.execution.assignment import Assignment
    from lotto.execution.engine import Engine
    from lotto.execution.events import (
        JobAdvanced,
        JobFinished,
        JobStarted,
        KernelsCompiled,
        KernelsCompiling,
        Progress,
        StageAdvanced,
    )
    from lotto.execution.factory import available_cores, make
    from lotto.execution.procedures import Procedure, gather
    from lotto.execution.processes import Processes
    from lotto.execution.serial import Serial
    from lotto.execution.store import Store
    from lotto.execution.trackers import tracker
    from lotto.execution.worker import compute_parcel, initializer

__all__ = [
    "Assignment",
    "Engine",
    "JobAdvanced",
    "JobFinished",
    "JobStarted",
    "KernelsCompiled",
    "KernelsCompiling",
    "Procedure",
    "Processes",
    "Progress",
    "Serial",
    "StageAdvanced",
    "Store",
    "WorkerError",
    "available_cores",
    "compute_parcel",
    "gather",
    "held",
    "initializer",
    "make",
    "tracker",
]

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "assignment": ["Assignment"],
        "engine": ["Engine", "WorkerError", "held"],
        "events": [
            "JobAdvanced",
            "JobFinished",
            "JobStarted",
            "KernelsCompiled",
            "KernelsCompiling",
            "Progress",
            "StageAdvanced",
        ],
        "factory": ["available_cores", "make"],
        "procedures": ["Procedure", "gather"],
        "processes": ["Processes"],
        "serial": ["Serial"],
        "store": ["Store"],
        "trackers": ["tracker"],
        "worker": ["compute_parcel", "initializer"],
    },
)
