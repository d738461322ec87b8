"""Trackers: functions of engine events that installed packages have given names; they watch and change nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable

from lotto.core import registry
from lotto.core.errors import UsageError, text
from lotto.execution.events import Progress

log = logging.getLogger(__name__)

ENTRY_POINTS = "lotto.trackers"


def tracker(name: str) -> Progress:
    """A tracker by its name, an entry point ``lotto.trackers`` of a package, or by ``package.module:name``.

    It is a function of an event (`JobStarted`, `JobAdvanced`, `JobFinished`, `lotto.lottery.LevelFinished`, ...), or a
    class without arguments whose objects are. What it raises is logged once, and it is called no more: whatever
    watches a training has no part in it.

    Raises:
        UsageError: if there is none of that name; lists those there are.

    >>> tracker("builtins:print")("an event")  # as in lotto.imp(recipe, progress=tracker("my-tracker"))
    an event
    """
    found = registry.find("tracker", name, {}, ENTRY_POINTS)
    return guarded(name, found() if isinstance(found, type) else found)


def guarded(name: str, watch: Callable[[object], object]) -> Progress:
    """A function of events that is called no more once it has raised something.

    Raises:
        UsageError: for what is no function.
    """
    if not callable(watch):
        raise UsageError(f"A tracker is a function of an event, or a class of such; {name!r} is {text(watch)}.")
    failed = False

    def call(event: object) -> None:
        nonlocal failed
        if failed:
            return
        try:
            watch(event)
        except Exception as error:  # whatever someone else's code may raise
            failed = True
            log.warning("The tracker %r failed and is called no more: %s: %s", name, type(error).__name__, error)

    return call


def together(*watching: Progress) -> Progress:
    """One function of an event for several."""

    def call(event: object) -> None:
        for watch in watching:
            watch(event)

    return call
