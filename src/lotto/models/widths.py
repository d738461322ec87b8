"""How wide a model is whose name says it, and the same model in another width."""

from __future__ import annotations

import math
import re

from lotto.core.errors import UsageError


def widened(model: str, factor: float) -> str:
    """The name of a model that is so many times as wide: ``resnet-20-w8``, ``mlp-256-256``, ``lenet-300-100``.

    Raises:
        UsageError: if its name does not say how wide it is, or it would have no width.

    >>> widened("resnet-20-w8", 2), widened("mlp-24-16", 0.5)
    ('resnet-20-w16', 'mlp-12-8')
    """

    def times(number: int) -> str:
        width = round(number * factor) if math.isfinite(factor) else 0
        if width < 1:
            raise UsageError(f"A network is at least one unit wide; got the factor {factor} of {model!r}.")
        return str(width)

    kind, numbers = _parts(model)
    return kind + "-".join(map(times, numbers))


def widths(model: str) -> tuple[int, ...]:
    """The widths in a model's name.

    Raises:
        UsageError: if it has none.

    >>> widths("resnet-20-w8"), widths("lenet-300-100")
    ((8,), (300, 100))
    """
    return _parts(model)[1]


def _parts(model: str) -> tuple[str, tuple[int, ...]]:
    for pattern in (r"((?:mlp|lenet)-)(\d+(?:-\d+)*)", r"(.*-w)(\d+)"):
        if found := re.fullmatch(pattern, model):
            return found[1], tuple(map(int, found[2].split("-")))
    raise UsageError(
        f"Widths are those of mlp-256-256 and resnet-20-w8, whose names say them; got the model {model!r}."
    )
