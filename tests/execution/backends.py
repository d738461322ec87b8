"""The engines that hold the same contract: ours, and one that knows no more of lotto than it says."""

from __future__ import annotations

import os
from importlib.util import find_spec

import pytest
from piped import Piped

from lotto.execution.processes import Processes
from lotto.execution.ray import Ray
from lotto.execution.serial import Serial
from lotto.execution.store import Store


def ray(store: Store, workers: int = 1) -> Ray:
    """Workers of Ray have the environment in which it was started: a test that says something there has one of its own."""
    engine = Ray(store, workers=workers)
    if any(name.startswith("LOTTO_TEST_") for name in os.environ):
        engine.ray.shutdown()
    return engine


ENGINES = {
    "serial": lambda store, workers=1: Serial(store),
    "processes": lambda store, workers=1: Processes(store, workers),
    "piped": lambda store, workers=1: Piped(store, workers=workers),
    "ray": ray,
}
"""An engine of a store; where one worker shows what is tested, it has one."""
RAY = pytest.param(
    "ray", marks=[pytest.mark.extras, pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed")]
)
REMOTE = ["processes", pytest.param("piped", marks=pytest.mark.extras), RAY]
"""Those whose workers are other processes; the tests' own starts interpreters, so that most of its tests are longer."""
ALL = ["serial", *REMOTE]
