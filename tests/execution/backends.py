"""The engines that hold the same contract: ours, and one that knows no more of lotto than it says."""

from __future__ import annotations

from piped import Piped

from lotto.execution.processes import Processes
from lotto.execution.serial import Serial

ENGINES = {
    "serial": Serial,
    "processes": lambda store: Processes(store, 2),
    "piped": lambda store: Piped(store, workers=2),
}
REMOTE = ["processes", "piped"]
"""Those whose workers are other processes."""
