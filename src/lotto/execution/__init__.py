"""Where jobs and tasks run and what is remembered of them: engines, the store."""

from __future__ import annotations

from lotto.core.faces import lazy_face

TYPE_CHECKING = False
if TYPE_CHECKING:
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

__getattr__, __dir__ = lazy_face(
    __name__,
    {
        "engine": ["Engine"],
        "events": ["JobAdvanced", "JobFinished", "JobStarted", "Progress"],
        "factory": ["available_cores", "make"],
        "procedures": ["Procedure", "gather"],
        "processes": ["Processes"],
        "serial": ["Serial"],
        "store": ["Store"],
        "trackers": ["tracker"],
    },
)
