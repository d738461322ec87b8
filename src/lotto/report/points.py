"""What a figure shows, point by point: read off its lines, bars and dots, whoever has drawn them."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.collections import PathCollection
from matplotlib.colors import to_hex
from matplotlib.container import BarContainer, ErrorbarContainer
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

NONE = "–"
NEAR = 0.5
"""Points so near each other, in units of the drawing, are one."""


@dataclass(frozen=True)
class Point:
    """A value that a figure shows.

    Attributes:
        panel: number of the axes.
        series: what the legend calls its line.
        x, y: as people read them, without names and units: ``35``, ``2.31 ± 0.04``.
        left, top: where it is, in units of the drawing, from its upper left corner.
        text: all that is said of it.
    """

    panel: int
    series: str
    x: str
    y: str
    left: float
    top: float
    text: str


def points_of(figure: Figure) -> list[Point]:
    """The points of a figure that has been drawn at 72 dots per inch; see `plots.svg`.

    ``figure.notes``, where it has them, are more words for each point of a series, by its name.

    >>> from lotto.report import plots
    >>> figure, axis = plots.figure()
    >>> titles = axis.set_xlabel("weights left, %"), axis.set_ylabel("test error, %")
    >>> lines = axis.plot([50, 20], [1.5, 1.75], label="IMP")
    >>> drawn = plots.svg(figure)
    >>> [point.text for point in points_of(figure)]
    ['IMP: weights left 50 %, test error 1.5 %', 'IMP: weights left 20 %, test error 1.75 %']
    """
    notes: Mapping[str, Sequence[str]] = getattr(figure, "notes", {})
    axes = panels_of(figure)
    names = _by_colour(axes)
    found: list[Point] = []
    for number, axis in enumerate(axes):
        for series, colour, values in _series(axis):
            name = series or names.get(colour, "")
            said = notes.get(name, ())
            made = [_point(axis, number, name, *value, said[i] if i < len(said) else "")
                    for i, value in enumerate(values)]  # fmt: skip
            found += [point for point in made if point is not None]
        found += _cells(axis, number)
    return found


def panels_of(figure: Figure) -> list[Axes]:
    """The axes that show values: not those of colour bars, nor places left empty."""
    return [axis for axis in figure.axes if axis.get_visible() and axis.axison and axis.get_label() != "<colorbar>"]


def titles_of(axis: Axes) -> tuple[str, str, str, str]:
    """Name and unit of both axes; of a panel without a name at its side, the one above it."""
    x, x_unit = named_unit(axis.get_xlabel())
    y, y_unit = named_unit(axis.get_ylabel() or axis.get_title())
    return x, x_unit, y, y_unit


def named_unit(title: str) -> tuple[str, str]:
    """Name and unit of an axis's title; what stands in brackets at its end is left out.

    >>> named_unit("weights left, %"), named_unit("test error, points (dotted: another order)"), named_unit("loss")
    (('weights left', '%'), ('test error', 'points'), ('loss', ''))
    """
    name, _, unit = re.sub(r"\s*\([^()]*\)$", "", title.strip()).rpartition(", ")
    return (name, unit) if name and len(unit.split()) == 1 else (name + ", " * bool(name) + unit, "")


Value = tuple[float, float, float, float]
"""x, y, and how far its bar reaches below and above; NaN without one."""


def _series(axis: Axes) -> Iterator[tuple[str, str, list[Value]]]:
    """Name, colour and values of what can be pointed at."""
    grouped: set[Any] = set()
    for container in axis.containers:
        if isinstance(container, ErrorbarContainer):
            line, caps, bars = container.lines
            grouped |= {line, *caps}
            if line is not None:
                yield _public(container), _colour(line.get_color()), _of_line(line, bars if container.has_yerr else ())
        elif isinstance(container, BarContainer):
            widths = [(p.get_x() + p.get_width() / 2, p.get_y() + p.get_height()) for p in container.patches]
            bars = container.errorbar.lines[2] if container.errorbar is not None else ()
            colour = _colour(container.patches[0].get_facecolor()) if container.patches else ""
            yield _public(container), colour, _with_bars(widths, bars)
            grouped |= {container.errorbar.lines[0], *container.errorbar.lines[1]} if container.errorbar else set()
    for line in axis.lines:
        if line not in grouped and line.get_transform() == axis.transData:
            yield _public(line), _colour(line.get_color()), _of_line(line, ())
    for dots in axis.collections:
        if isinstance(dots, PathCollection):
            colours = dots.get_facecolor()
            yield _public(dots), _colour(colours[0]) if len(colours) else "", _with_bars(dots.get_offsets(), ())


def _of_line(line: Any, bars: Sequence[Any]) -> list[Value]:
    return _with_bars(list(zip(line.get_xdata(orig=False), line.get_ydata(orig=False), strict=True)), bars)


def _with_bars(places: Any, bars: Sequence[Any]) -> list[Value]:
    """Places with how far the vertical bars at them reach."""
    ends = {float(end[0][0]): (float(end[0][1]), float(end[1][1]))
            for end in (bars[-1].get_segments() if len(bars) else ()) if len(end) == 2}  # fmt: skip
    found = []
    for x, y in np.asarray(places, dtype=float).reshape(-1, 2).tolist():
        low, high = ends.get(x, (math.nan, math.nan))
        found.append((x, y, y - low, high - y))
    return found


def _public(artist: Any) -> str:
    label = str(artist.get_label())
    return "" if label.startswith("_") else label.replace(" _", "_")


def _colour(colour: Any) -> str:
    return to_hex(colour) if not isinstance(colour, str) or colour != "none" else ""


def _by_colour(axes: Sequence[Axes]) -> dict[str, str]:
    """What a colour means in a figure: lines without a name are of the kind that has their colour elsewhere."""
    found: dict[str, str] = {}
    for axis in axes:
        for series, colour, _ in _series(axis):
            if series:
                found.setdefault(colour, series)
    return found


def _point(
    axis: Axes, panel: int, name: str, x: float, y: float, below: float, above: float, note: str
) -> Point | None:
    """A point with its words; None if it is not to be seen."""
    if not (math.isfinite(x) and math.isfinite(y)):
        return None
    left, bottom = axis.transData.transform((x, y)).tolist()
    (x0, y0), (x1, y1) = axis.bbox.get_points()
    if not (x0 - 1 <= left <= x1 + 1 and y0 - 1 <= bottom <= y1 + 1):
        return None
    x_title, x_unit, y_title, y_unit = titles_of(axis)
    shown, height = _written(axis.xaxis, x), _with_spread(axis.yaxis, y, below, above)
    both = (x_title, shown, x_unit), (y_title, height, y_unit)
    parts = [" ".join(filter(None, part)).replace("\n", " ") for part in both]
    text = f"{name}: " * bool(name) + ", ".join([*parts, *([note] if note else [])])
    return Point(panel, name, shown, height, round(left, 1), round(axis.figure.bbox.height - bottom, 1), text)


def _cells(axis: Axes, panel: int) -> Iterator[Point]:
    """The cells of a matrix, with what its rows and columns are called: a row is a series."""
    x_title, _, y_title, _ = titles_of(axis)
    for image in axis.images:
        cells = image.get_array()
        for (row, column), value in () if cells is None else np.ndenumerate(np.ma.filled(cells, math.nan)):
            if math.isfinite(value):
                left, bottom = axis.transData.transform((column, row)).tolist()
                across, down, shown = _written(axis.xaxis, column), _written(axis.yaxis, row), f"{value:.4g}"
                text = f"{y_title} {down}, {x_title} {across}: {shown}".replace(",  ", ", ").strip()
                top = round(axis.figure.bbox.height - bottom, 1)
                yield Point(panel, down, across, shown, round(left, 1), top, text)


def _with_spread(axis: Axis, y: float, below: float, above: float) -> str:
    text = _written(axis, y)
    if not below + above > 0:
        return text
    if math.isclose(below, above, rel_tol=1e-3):
        return f"{text} ± {_written(axis, above, 2)}"
    return f"{text} ({_written(axis, y - below)} to {_written(axis, y + above)})"


def _written(axis: Axis, value: float, digits: int = 4) -> str:
    """A value as its axis writes it; of bars the name below them."""
    formatter = axis.get_major_formatter()
    rounded = float(f"{value:.{digits}g}")
    if not isinstance(formatter, FuncFormatter):
        return f"{rounded:g}"
    if text := str(formatter(rounded, None)):
        return text
    ticks = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=False)
    names = {float(place): label.get_text() for place, label in ticks}
    return names[min(names, key=lambda place: abs(place - value))]


def merged(points: Sequence[Point]) -> list[Point]:
    """Points to point at: of several at one place one, with the names of all."""
    known: list[Point] = []
    for point in points:
        near = (i for i, other in enumerate(known)
                if abs(other.left - point.left) <= NEAR and abs(other.top - point.top) <= NEAR)  # fmt: skip
        at = next(near, None)
        if at is None:
            known.append(point)
        elif point.series and point.series not in known[at].text:
            first, rest = known[at].series, known[at].text.removeprefix(f"{known[at].series}: ")
            names = known[at].text.removesuffix(rest).removesuffix(": ") or first
            known[at] = replace(known[at], text=f"{names}, {point.series}: {rest}")
    return known
