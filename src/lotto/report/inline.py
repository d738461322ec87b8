"""A figure inside a page: texts that can be read out, colours for light and dark, values to point at, a table of them.

Without a script it is a still picture whose points have titles; `script.html` shows these at once, by keys too.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import escape
from matplotlib.figure import Figure

from lotto.report import plots
from lotto.report.colours import HEX, used
from lotto.report.points import NONE, Point, merged, panels_of, points_of, titles_of

MOST = 600
"""Points of a figure that can be pointed at; of more, every second, third, ..."""
NARROW = 4.6, 4.4
"""Inches of a figure on a phone, whose words are then as large as those beside it."""
LEFT_OUT = re.compile(r"<metadata>.*?</metadata>|<!--.*?-->|<style[^>]*>.*?</style>", re.DOTALL)
ROOT = re.compile(r"<svg[^>]*>")
NAMED, ASKED = re.compile(r' id="([^"]*)"'), re.compile(r'(?:url\(#|href="#)([^")]*)')
TAGS, LONG, BETWEEN = re.compile(r"<[^>]*>"), re.compile(r"(?<=\d)(\.\d\d)\d+"), re.compile(r">\s+<")
IDS = re.compile(r'\bid="|url\(#|href="#')
WORDS = re.compile(r"<text[^>]*>")


@dataclass(frozen=True)
class Numbers:
    """The values of one panel.

    Attributes:
        title: of the panel, and what its values are.
        columns: a name for the first column, then those of the lines.
        rows: a place, then the value of each line at it.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Inline:
    """What a page shows of a figure.

    Attributes:
        svgs: the ``<svg>`` element; for figures of one panel a second, for narrow screens.
        numbers: its values as tables, one for each panel.
        as_drawn: whether it is on white paper always, for its colours are areas that words stand on.
        colours: as they are on white, which the page gives for its own paper; see `colours.rules`.
    """

    svgs: Sequence[str]
    numbers: Sequence[Numbers]
    as_drawn: bool
    colours: Sequence[str]


def inline(figure: Figure, name: str, title: str) -> Inline:
    """A figure for a page.

    Args:
        figure: what is drawn.
        name: begins all names in it, so that no two figures of a page have one in common.
        title: what a reader is told who does not see it.

    >>> figure, axis = plots.figure()
    >>> lines = axis.plot([0, 1], [2, 3], label="IMP")
    >>> made = inline(figure, "first", "Two points")
    >>> made.svgs[0].count("<circle"), made.numbers[0].columns[1:], [list(row) for row in made.numbers[0].rows]
    (2, ['IMP'], [['0', '2'], ['1', '3']])
    """
    broad = plots.svg(figure, words=True)
    found = points_of(figure)
    numbers, size = numbers_of(figure, found), figure.get_size_inches()
    is_wide = len(panels_of(figure)) > 1
    as_drawn = any(axis.get_label() == "<colorbar>" or axis.images for axis in figure.axes)
    svgs = [_in_page(broad, figure, found, name, title, as_drawn)]
    if not is_wide:
        figure.set_size_inches(*NARROW)
        narrow = plots.svg(figure, words=True)
        svgs.append(_in_page(narrow, figure, points_of(figure), f"{name}-narrow", title, as_drawn))
        figure.set_size_inches(*size)
    colours = [] if as_drawn else used(broad)
    return Inline(svgs, numbers, as_drawn, colours)


def _in_page(svg: str, figure: Figure, found: Sequence[Point], name: str, title: str, as_drawn: bool) -> str:
    """A drawing with names of its own, words for those who do not see it, and points to point at."""
    text = IDS.sub(lambda match: f"{match[0]}{name}-", _shorter(LEFT_OUT.sub("", svg)))
    text = text if as_drawn else _with_variables(text)
    shown = merged(found)
    shown = shown[:: math.ceil(len(shown) / MOST)] if shown else shown
    root = (
        f'<svg role="img" aria-labelledby="{name}-title {name}-desc" '
        f'viewBox="0 0 {figure.bbox.width:g} {figure.bbox.height:g}">\n'
        f'<title id="{name}-title">{escape(title)}</title>\n'
        f'<desc id="{name}-desc">{escape(described(figure, found))}</desc>\n'
    )
    text = ROOT.sub(lambda _: root, text, count=1)
    return text.replace("</svg>", f'<g class="points">\n{"".join(map(_circle, shown))}</g>\n</svg>')


def _shorter(svg: str) -> str:
    """The same drawing with hundredths of its unit, and without names that nothing refers to."""
    asked = set(ASKED.findall(svg))
    svg = NAMED.sub(lambda match: match[0] if match[1] in asked else "", svg)
    svg = TAGS.sub(lambda tag: LONG.sub(lambda number: number[1], tag[0]), svg)
    return BETWEEN.sub(">\n<", svg)


def described(figure: Figure, points: Sequence[Point]) -> str:
    """The figure in words: what is against what in each panel, from where to where, and the names of its lines."""
    said = []
    for number, axis in enumerate(panels_of(figure)):
        here = [point for point in points if point.panel == number]
        if not here:
            continue
        x, _, y, _ = titles_of(axis)
        names = list(dict.fromkeys(point.series for point in here if point.series))
        ends = sorted(here, key=lambda point: point.left)
        span = f" from {ends[0].x} to {ends[-1].x}"
        lines = f"; {', '.join(names)}" if names else ""
        said.append(" ".join(f"{y or 'Values'} against {x or 'their place'}{span}{lines}.".split()))
    return " ".join(said)


def numbers_of(figure: Figure, points: Sequence[Point]) -> list[Numbers]:
    """The values of each panel, a column for each line, from left to right."""
    found = []
    for number, axis in enumerate(panels_of(figure)):
        here = [point for point in points if point.panel == number]
        if not here:
            continue
        names = list(dict.fromkeys(point.series for point in here))
        x, x_unit, y, y_unit = titles_of(axis)
        places: dict[str, dict[str, str]] = {}
        for point in sorted(here, key=lambda point: point.left):
            at = places.setdefault(point.x, {})
            at[point.series] = f"{at[point.series]}; {point.y}" if point.series in at else point.y
        title = ", ".join(dict.fromkeys(filter(None, (axis.get_title(), _with_unit(y, y_unit)))))
        rows = [[place, *(at.get(name, NONE) for name in names)] for place, at in places.items()]
        found.append(Numbers(title, [_with_unit(x, x_unit), *names], rows))
    return found


def _with_unit(name: str, unit: str) -> str:
    return ", ".join(filter(None, (name, unit)))


def _with_variables(svg: str) -> str:
    """Each colour as a variable of the page, which may be on other paper; see `colours.rules`."""
    svg = WORDS.sub(lambda tag: HEX.sub(lambda colour: f"var(--w{colour[0][1:]})", tag[0]), svg)
    return re.sub(r"(fill|stroke): (#[0-9a-f]{6})\b", lambda part: f"{part[1]}: var(--l{part[2][1:]})", svg)


def _circle(point: Point) -> str:
    return (
        f'<circle cx="{point.left:g}" cy="{point.top:g}" r="6" data-series="{point.panel} {escape(point.series)}">'
        f"<title>{escape(point.text)}</title></circle>\n"
    )
