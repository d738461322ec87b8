"""Which weights of a training count: what may be asked."""

from __future__ import annotations

from lotto.core.errors import UsageError, unknown

REPORTED = ("last", "ema", "best")
BY_VALIDATION = (
    "weights='best' chooses by held-out examples, of which there are none: hold some out, such as validation=1000 (or "
    "let the data source give a validation split)."
)


def check_reported(weights: str | None, ema: float | None, patience: int | None) -> None:
    """Raise ``UsageError`` for fields of a recipe that do not go together."""
    if weights is not None and weights not in REPORTED:
        raise unknown("choice of weights", weights, REPORTED)
    if weights == "ema" and ema is None:
        raise UsageError("weights='ema' is an average of weights: say how slow it is, such as ema=0.999.")
    if weights == "last" and ema is not None:
        raise UsageError(f"ema={ema} averages weights that weights='last' does not read: leave one of them out.")
    if patience is not None and weights != "best":
        raise UsageError(
            f"patience={patience} stops a training that gets no better on held-out examples, of which the best weights "
            "count: it goes with weights='best'."
        )
