"""The engines that hold the same contract: ours, and one that knows no more of lotto than it says."""

from __future__ import annotations

import pytest
from piped import Piped

from lotto.execution.processes import Processes
from lotto.execution.serial import Serial

ENGINES = {
    "serial": lambda store, workers=1: Serial(store),
    "processes": lambda store, workers=1: Processes(store, workers),
    "piped": lambda store, workers=1: Piped(store, workers=workers),
}
"""An engine of a store; each worker costs seconds to start, and where one shows what is tested, one it is."""
REMOTE = ["processes", "piped"]
"""Those whose workers are other processes."""
AGAIN = ["serial", "processes", pytest.param("piped", marks=pytest.mark.extras)]
"""For what other tests show of the last one in another way: its workers are new interpreters, which takes seconds."""
