"""What changes the bits of a result and has no part in its key: recorded with it, and said where it differs.

The same computation has one key on all machines. Its last bits depend on what computed it: the versions of the
libraries, the number of threads (sums are split among them), the processor. A warning says so to whoever compares runs
to the bit.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from typing import Any

import torch

from lotto.core.errors import UsageError
from lotto.core.jit import can_compile
from lotto.core.ranks import Launch
from lotto.core.rounding import LEGACY, Rounding
from lotto.recipe.recipe import Recipe
from lotto.training.job import Crossovers
from lotto.training.network import device_of

log = logging.getLogger(__name__)

ENTRY = "computed_with"
"""Its name in a manifest's ``execution`` and in a checkpoint's metadata."""

CROSSOVERS = "crossovers"
"""In the same places, what a training chose by measuring; see `training.job.Crossovers`."""

WORDS = {
    "torch": "torch {}",
    "device": "the device {}",
    "threads": "{} threads",
    "matmul": "{} precision of float32 products",
    "convolutions": "float32 convolutions computed in {}",
    "recurrent": "float32 recurrent layers computed in {}",
    "deterministic": "deterministic algorithms: {}",
    "kernels": "compiled kernels: {}",
    "cpu": "the instruction set {}",
    "ranks": "{} ranks",
}


def arithmetic_of(recipe: Recipe, *, together: bool = False) -> dict[str, Any]:
    """What changes the bits of what this process would compute for a recipe now, in plain values.

    Args:
        recipe: what is computed.
        together: whether the processes of one launch, if there are several, compute it together: a training.
    """
    device, launch = device_of(recipe), Launch.here() if together else None
    rounding = Rounding.of_this_process().of_device(device.type)
    return {
        "torch": str(torch.__version__),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "threads": torch.get_num_threads(),
        "matmul": LEGACY[rounding["products"]],  # the words of torch's older switch, as formerly stored
        "convolutions": rounding["convolutions"],
        "recurrent": rounding["recurrent layers"],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "kernels": _kernels(),
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "ranks": 1 if launch is None else launch.size,
    }


def crossovers_from(value: Any) -> Crossovers:
    """What a file says that a training chose; what earlier versions wrote says nothing.

    Raises:
        ValueError: if it says something else.
    """
    if value is None or value is False:
        return value
    if isinstance(value, Mapping) and all(isinstance(number, int | float) for number in value.values()):
        return {str(name): float(number) for name, number in value.items()}
    raise ValueError(f"{CROSSOVERS} are densities by layer")


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """What differs, in words; empty if nothing does. What one of them does not say is not compared."""
    return "; ".join(
        f"{words.format(there[name])} there, {words.format(here[name])} here"
        for name, words in WORDS.items()
        if name in there and name in here and there[name] != here[name]
    )


def say_if_other(recipe: Recipe, there: Any, what: str, *, together: bool = False) -> None:
    """Say once in this process if what is handed out was computed with other arithmetic than this process's.

    Args:
        recipe: what was computed.
        there: `arithmetic_of` then; anything else says nothing.
        what: a sentence that begins the message.
        together: see `arithmetic_of`.
    """
    if not isinstance(there, Mapping):
        return
    try:
        here = arithmetic_of(recipe, together=together)
    except UsageError:  # a device that is not here computes nothing here
        return
    if found := differences(there, here):
        _say_once(f"{what} ({found}).")


@cache
def _say_once(sentence: str) -> None:
    log.warning("%s", sentence)


def _kernels() -> str:
    if not can_compile() or os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return "none"
    return _numba()


@cache
def _numba() -> str:
    return f"numba {version('numba')}"
