"""Errors that a user can act on: each says in one sentence what cannot be done, before any training."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterable, Sequence


class LottoError(Exception):
    """A failure the user can act on; its text is the whole message (the command line exits with 2)."""


class UsageError(LottoError, ValueError):
    """An argument that cannot be used: says what was got, what was expected, what to type instead."""


class DataError(LottoError):
    """A data set that could not be obtained or verified; names every source that was tried."""


class DivergedError(LottoError):
    """The loss became NaN or infinite; names the step, the learning rate and what to try."""


class StorageError(LottoError):
    """A result that could not be written (full disk, permissions) or read."""


class WorkerError(LottoError):
    """A worker process died twice on the same job."""


def check_positional(kind: type, given: int, allowed: Sequence[str]) -> None:
    """Raise ``UsageError`` if a class of ours is given more than the ``allowed`` arguments by position.

    Others could change their place or be taken for one another: a momentum for a weight decay.
    """
    if given > len(allowed) and kind.__module__.startswith("lotto."):
        named = [f.name for f in dataclasses.fields(kind) if f.name not in allowed]
        by_position = " and ".join(allowed) or "nothing"
        raise UsageError(
            f"{kind.__name__} takes {by_position} by position and the rest by name "
            f"({', '.join(f'{name}=...' for name in named)}); got {given} arguments by position."
        )


def nearest(got: str, choices: Iterable[str]) -> str:
    """Return a sentence that lists ``choices`` and suggests the one nearest to ``got``."""
    names = sorted(choices)
    match = difflib.get_close_matches(got, names, n=1, cutoff=0.5)
    hint = f" Did you mean {match[0]!r}?" if match else ""
    return f"Choices: {', '.join(names)}.{hint}"


def unknown(kind: str, got: object, choices: Iterable[str]) -> UsageError:
    """The error for a name that is not one of ``choices``."""
    return UsageError(f"Unknown {kind} {got!r}. {nearest(str(got), choices)}")
