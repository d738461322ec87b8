"""How small and how quick: the tables, the sentences and the figure of a sweep."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Sequence
from itertools import takewhile
from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from rich.console import Console

from lotto.core import files
from lotto.core.errors import unknown
from lotto.core.shown import table as html_table
from lotto.core.text import size_words
from lotto.inference.all_forms import BFLOAT16, TORCHSCRIPT
from lotto.inference.density_sweep import Sweep
from lotto.inference.variants import DENSE, SPARSE
from lotto.report.fitting import FittedTable, cell
from lotto.report.plots import DASHES, density_axis, error_axis, panels, ramp, svg
from lotto.report.table import percent, spread
from lotto.report.texts import FORMS

WIDTH = 80
NONE = "–"
CSV, FIGURE = "sweep.csv", "sweep.svg"
HOW = (
    "Left: of the prunable weights; of all: of all parameters. Dense: pruned weights are zeros that are multiplied; "
    "compact: without units that are cut off; sparse: kept weights and their places alone, which one thread computes; "
    "bf16: compact in bfloat16. Quickest: the form of the least median, or a simpler one than which that was not "
    "quicker in more turns than chance allows."
)

Columns = list[tuple[str, list[str]]]


def as_text(sweep: Sweep, form: str) -> str:
    """The table of a sweep; see `Sweep.table_as`."""
    if form == "csv":
        return sweep.frame.to_csv(index=False)
    if form == "text":
        buffer = io.StringIO()
        show(sweep, Console(file=buffer, width=WIDTH, color_system=None))
        return buffer.getvalue()
    check_form(form)
    found = columns(sweep)
    rows = [list(row) for row in zip(*(cells for _, cells in found), strict=True)]
    text: str = FORMS[form]([title for title, _ in found], rows, f"{sweep.about} {HOW} {summary(sweep)}")
    return text


def check_form(form: str) -> None:
    """Raise ``UsageError`` unless a table can have this form."""
    if form not in ("text", *FORMS, "csv"):
        raise unknown("format of a table", form, ("text", *FORMS, "csv"))


def as_html(sweep: Sweep) -> str:
    """For notebooks."""
    found = columns(sweep)
    rows = [list(row) for row in zip(*(cells for _, cells in found), strict=True)]
    return html_table([title for title, _ in found], rows, f"{sweep.name}. {summary(sweep)}")


def show(sweep: Sweep, console: Console) -> None:
    """Print the tables, one of sizes and errors and one for each batch size, and what comes of them."""
    labels = _labels(sweep)
    whole = size_words(int(sweep.frame[f"{DENSE}_bytes"].iloc[0]))
    parts = [(f"{sweep.name}: what is left, and its error", _errors(sweep))]
    parts += [(f"On disk (dense: {whole})", _sizes(sweep)[1:])]
    parts += [(f"Batches of {batch}, ms", _times(sweep, batch)) for batch in sweep.batches]
    for title, found in parts:
        console.print(cell(title))
        console.print(FittedTable([*labels, *found], "", [None] * len(sweep.frame), CSV))
    for line in (sweep.about, HOW, *_missing(sweep), summary(sweep)):
        console.print(cell(line))


def columns(sweep: Sweep) -> Columns:
    """Titles and cells of the whole table."""
    times = [
        (f"{title}, batch of {batch}, ms", cells) for batch in sweep.batches for title, cells in _times(sweep, batch)
    ]
    return [*_labels(sweep), *_errors(sweep), *_sizes(sweep), *times]


def _labels(sweep: Sweep) -> Columns:
    frame = sweep.frame
    level = [("level", [str(int(value)) for value in frame["level"]])] if "level" in frame else []
    return [*level, ("left", [percent(value) for value in frame["density"]])]


def _errors(sweep: Sweep) -> Columns:
    """How much is left, and how good it is."""
    frame = sweep.frame
    found: Columns = [
        ("of all", [percent(value) for value in frame["parameter_fraction"]]),
        ("parameters", [f"{int(value):,}" for value in frame["parameters"]]),
    ]
    if frame["error"].notna().any():
        deviation = frame["error_std"] if "error_std" in frame else pd.Series(math.nan, frame.index)
        title = sweep.error_title if sweep.error_unit else f"error, {sweep.error_title}"
        found.append((title, [spread(*pair) for pair in zip(frame["error"], deviation, strict=True)]))
        found.append(("gap", _gaps(sweep)))
    if _bfloat16_helps(sweep) and frame[f"error_{BFLOAT16}"].notna().any():
        found.append(("in bfloat16", _cells(frame, f"error_{BFLOAT16}", lambda v: spread(v, math.nan))))
    return found


def _sizes(sweep: Sweep) -> Columns:
    """What each form takes on disk."""
    return [(_short(form), _cells(sweep.frame, f"{form}_bytes", lambda v: size_words(int(v)))) for form in sweep.forms]


def _short(form: str) -> str:
    return {BFLOAT16: "bf16", TORCHSCRIPT: "script"}.get(form, form)


def _gaps(sweep: Sweep) -> list[str]:
    frame, digits = sweep.frame, "+.2f" if sweep.error_unit else "+.3g"
    widths = frame["gap_high"] - frame["gap"] if "gap_high" in frame else pd.Series(math.nan, frame.index)
    found = []
    for number, (gap, width) in enumerate(zip(frame["gap"], widths, strict=True)):
        is_first = frame["level"].iloc[number] == 0 if "level" in frame else not number
        bound = "" if math.isnan(width) else f" ± {width:{digits[1:]}}"
        found.append(NONE if math.isnan(gap) or is_first else f"{gap:{digits}}{bound}")
    return found


def _bfloat16_helps(sweep: Sweep) -> bool:
    """Whether it is quicker than float32 anywhere: else its times are in the CSV alone."""
    return f"error_{BFLOAT16}" in sweep.frame


def _times(sweep: Sweep, batch: int) -> Columns:
    """Milliseconds, which form is the quickest, and how many times as quick as the dense network that is."""
    frame = sweep.frame
    shown = [form for form in sweep.forms if form != BFLOAT16 or _bfloat16_helps(sweep)]
    found = [(_short(form), _cells(frame, f"{form}_ms_{batch}", lambda v: f"{v:.3g}")) for form in shown]
    quickest = []
    for _, row in frame.iterrows():
        form = row[f"quickest_{batch}"]
        ratio = "" if form == DENSE else f" {row[f'{DENSE}_ms_{batch}'] / row[f'{form}_ms_{batch}']:.2f}×"
        quickest.append(f"{_short(form)}{ratio}")
    return [*found, ("quickest", quickest)]


def _cells(frame: pd.DataFrame, column: str, say: Callable[[float], str]) -> list[str]:
    return [NONE if math.isnan(value) else say(value) for value in frame[column]]


def _missing(sweep: Sweep) -> list[str]:
    said = [f"No {form} network where a row has none: {why}." for form, why in sweep.missing.items()]
    if BFLOAT16 in sweep.forms and not _bfloat16_helps(sweep):
        said.append("bfloat16 is nowhere quicker than float32 here.")
    return said


def summary(sweep: Sweep) -> str:
    """How small, and for each batch size whether sparsity pays."""
    pays = "; ".join(f"batches of {batch}: {_what_pays(sweep, batch)}" for batch in sweep.batches)
    return f"{_smallest(sweep)}{pays[0].upper()}{pays[1:]}."


def _smallest(sweep: Sweep) -> str:
    """What the sparsest network takes on disk; of a result the sparsest that is shown to match."""
    frame, row, named = sweep.frame, len(sweep.frame) - 1, "Sparsest here"
    if "verdict" in frame:
        # Levels are tested from dense to sparse; of those that are shown the first that does not match ends it.
        row = len([*takewhile(lambda verdict: verdict in ("dense", "matching"), frame["verdict"])]) - 1
        named = "Sparsest level shown to match"
        if row < 0 or frame["verdict"].iloc[row] == "dense":
            return "No pruned level is shown to match. "
    at = frame.iloc[row]
    sizes = {form: at[f"{form}_bytes"] for form in sweep.forms if not math.isnan(at[f"{form}_bytes"])}
    least = min(sizes, key=sizes.__getitem__)
    ratio = sizes[DENSE] / sizes[least]
    times = f"{ratio:,.0f}" if ratio >= 10 else f"{ratio:.1f}"
    smaller = f" as {least}, {times} times smaller than dense" if least != DENSE else ""
    return f"{named}: {percent(at['density'])} left, {size_words(int(sizes[least]))} on disk{smaller}. "


def _what_pays(sweep: Sweep, batch: int) -> str:
    """At which densities the sparse network is quicker than every other form."""
    if SPARSE not in sweep.forms:
        return "there is no sparse network"
    frame = sweep.frame
    sparse = frame[f"{SPARSE}_ms_{batch}"]
    others = frame[[f"{form}_ms_{batch}" for form in sweep.forms if form != SPARSE]].min(axis=1)
    ratios = (others / sparse).dropna()
    best = ratios.idxmax()
    at_best = f"at best {ratios[best]:.2f}× the quickest other form's speed, at {percent(frame['density'][best])} left"
    wins = [number for number in ratios.index if frame[f"quickest_{batch}"][number] == SPARSE]
    if not wins:
        return f"sparsity does not pay ({at_best})"
    if wins == [number for number in ratios.index if number >= wins[0]]:
        where = f"from {percent(frame['density'][wins[0]])} left down"
    else:
        where = f"at {', '.join(percent(frame['density'][number]) for number in wins)} left alone"
    above = "" if len(wins) == len(ratios) else ", elsewhere it does not"
    return f"sparsity pays {where}{above} ({at_best})"


def draw(sweep: Sweep) -> Figure:
    """Error, bytes on disk and times of batches against density."""
    frame = sweep.frame
    has_errors = bool(frame["error"].notna().any())
    made, axes = panels(has_errors + 1 + len(sweep.batches))
    left = list(axes)
    if has_errors:
        axis = left.pop(0)
        deviation = frame["error_std"].fillna(0) if "error_std" in frame else None
        axis.errorbar(frame["density"], frame["error"], yerr=deviation, marker="o", ms=4, lw=1.5, capsize=2)
        error_axis(axis, frame["error"].dropna())
        axis.set_ylabel(f"test {sweep.error_title}", parse_math=False)
    _lines(left.pop(0), sweep, "bytes", "bytes on disk")
    for axis, batch in zip(left, sweep.batches, strict=True):
        _lines(axis, sweep, f"ms_{batch}", f"ms, batch of {batch}")
    for axis in axes:
        density_axis(axis, list(frame["density"]))
    axes[-1].legend(frameon=False, fontsize=8)
    return made


def _lines(axis: Axes, sweep: Sweep, what: str, title: str) -> None:
    for number, form in enumerate(sweep.forms):
        style = {"color": ramp(number, len(sweep.forms)), "ls": DASHES[number % len(DASHES)], "marker": "o", "ms": 3}
        axis.plot(sweep.frame["density"], sweep.frame[f"{form}_{what}"], label=form, lw=1.4, **style)
    axis.set_yscale("log")
    axis.yaxis.set_major_locator(LogLocator(10, subs=(1, 2, 5)))
    axis.yaxis.set_major_formatter(FuncFormatter(lambda v, _: size_words(int(v)) if what == "bytes" else f"{v:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())
    axis.set_ylabel(title)


def save(sweep: Sweep, folder: Path) -> Sequence[Path]:
    """Write the table and the figure into a folder; returns their paths."""
    files.write_text(folder / CSV, as_text(sweep, "csv"))
    files.write_text(folder / FIGURE, svg(draw(sweep)))
    return folder / CSV, folder / FIGURE
