"""Errors that a user can act on: each says in one sentence what cannot be done, before any training."""

from __future__ import annotations

import dataclasses
import difflib
import reprlib
from collections.abc import Iterable, Sequence
from typing import Any

from lotto.core.text import LONGEST, shortened


class LottoError(Exception):
    """A failure the user can act on; its text is the whole message (the command line exits with 2)."""


class UsageError(LottoError, ValueError):
    """An argument that cannot be used: says what was got, what was expected, what to type instead."""


class DataError(LottoError):
    """A data set that could not be obtained or verified; names every source that was tried."""


class DivergedError(LottoError):
    """The loss became NaN or infinite; names the step, the learning rate and what to try.

    Attributes:
        step: at which it did; None if that is not known any more.
    """

    def __init__(self, message: str, step: int | None = None) -> None:
        super().__init__(message)
        self.step = step


class StorageError(LottoError):
    """A result that could not be written (full disk, permissions) or read."""


class WorkerError(LottoError):
    """A worker process died twice on the same job."""


class NotCacheableError(Exception):
    """What a value computes cannot be fingerprinted: it is computed and not stored; the text says why."""


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


class _Short(reprlib.Repr):
    """Values as they would be typed, the large ones by their size."""

    def __init__(self) -> None:
        super().__init__()
        self.maxother = self.maxlong = LONGEST

    def repr_str(self, x: str, level: int) -> str:
        return repr(str(x[:LONGEST]))

    def repr_instance(self, x: Any, level: int) -> str:
        try:
            return repr(x)
        except Exception:  # a text is of the user's making
            return f"<{type(x).__name__}>"

    def repr_int(self, x: int, level: int) -> str:
        return repr(x) if abs(x) < 10**LONGEST else "a whole number of hundreds of digits"

    def repr_Tensor(self, x: Any, level: int) -> str:
        return f"a tensor of shape {tuple(x.shape)} and type {str(x.dtype).removeprefix('torch.')}"

    def repr_ndarray(self, x: Any, level: int) -> str:
        return f"an array of shape {x.shape} and type {x.dtype}" if x.size > 8 else repr(x)

    def repr_DataFrame(self, x: Any, level: int) -> str:
        return f"a table of shape {x.shape}"

    repr_str_ = repr_str
    repr_OrderedDict = reprlib.Repr.repr_dict
    repr_Parameter = repr_Tensor
    repr_Series = repr_ndarray


def text(value: object) -> str:
    """A value in a sentence: as it would be typed, on one line, at most `LONGEST` characters.

    >>> text("500it"), len(text("x" * 10_000))
    ("'500it'", 200)
    """
    return shortened(_Short().repr(value))


def nearest(got: str, choices: Iterable[str]) -> str:
    """Return a sentence that lists ``choices`` and suggests the one nearest to ``got``."""
    names = sorted(choices)
    match = difflib.get_close_matches(got[:LONGEST], names, n=1, cutoff=0.5)
    hint = f" Did you mean {match[0]!r}?" if match else ""
    return f"Choices: {', '.join(names)}.{hint}"


def unknown(kind: str, got: object, choices: Iterable[str]) -> UsageError:
    """The error for a name that is not one of ``choices``."""
    return UsageError(f"Unknown {kind} {text(got)}. {nearest(got if isinstance(got, str) else '', choices)}")
