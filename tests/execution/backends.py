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
"""An engine of a store; where one worker shows what is tested, it has one."""
REMOTE = ["processes", pytest.param("piped", marks=pytest.mark.extras)]
"""Those whose workers are other processes; the tests' own starts interpreters, so that most of its tests are longer."""
ALL = ["serial", *REMOTE]
