"""Colours of figures on light and on dark paper, so that lines and words stand out from both."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterable
from dataclasses import dataclass

LINES, WORDS = 3.0, 4.5
"""Contrasts that lines and words have to have: WCAG 2.2, 1.4.11 and 1.4.3, level AA."""
GREY = 0.04
"""Up to this distance between its red, green and blue a colour is a grey."""
FAINT = 0.85
"""Lines in a grey lighter than this are there to be faint, such as those of a grid; white words are on something."""
HEX = re.compile(r"#[0-9a-f]{6}\b")


@dataclass(frozen=True)
class Scheme:
    """Paper and ink.

    Attributes:
        paper: what is white in a figure.
        ink: what is black in it.
    """

    paper: str
    ink: str


LIGHT, DARK = Scheme("#ffffff", "#1c1f23"), Scheme("#14171b", "#e8eaed")


def contrast(one: str, other: str) -> float:
    """How far two colours are apart, from 1 to 21: WCAG 2.2, "contrast ratio".

    >>> round(contrast("#ffffff", "#000000")), round(contrast("#777777", "#ffffff"), 2)
    (21, 4.48)
    """
    low, high = sorted((_luminance(one), _luminance(other)))
    return (high + 0.05) / (low + 0.05)


def on(scheme: Scheme, colour: str, least: float = LINES) -> str:
    """A figure's colour on other paper: greys go from its paper to its ink, others keep their
    hue.

    Args:
        scheme: the paper.
        colour: as it is on white, ``#1b6ca8``.
        least: contrast with the paper that it has at least, unless it is white or there to be faint.

    >>> on(DARK, "#ffffff"), on(DARK, "#000000"), on(LIGHT, "#1b6ca8")
    ('#14171b', '#e8eaed', '#1b6ca8')
    >>> contrast(on(DARK, "#440154"), DARK.paper) >= LINES > contrast("#440154", DARK.paper)
    True
    """
    parts = _parts(colour)
    if max(parts) - min(parts) <= GREY:
        lightness = sum(parts) / 3
        grey = _mixed(scheme, lightness)
        is_faint = lightness > FAINT if least < WORDS else lightness == 1
        return grey if is_faint else _until(grey, scheme, least)
    return _until(colour, scheme, least)


def used(svg: str) -> list[str]:
    """The colours of a drawing, each once."""
    return sorted(set(HEX.findall(svg)))


def rules(colours: Iterable[str], scheme: Scheme) -> str:
    """CSS variables that give figures' colours on a paper: ``--l1b6ca8`` of lines, ``--w1b6ca8`` of words."""
    return "".join(
        f"--{kind}{colour[1:]}:{on(scheme, colour, least)};"
        for colour in colours
        for kind, least in (("l", LINES), ("w", WORDS))
    )


def _until(colour: str, scheme: Scheme, least: float) -> str:
    """The colour, as much lighter or darker as its contrast with the paper needs."""
    hue, lightness, saturation = colorsys.rgb_to_hls(*_parts(colour))
    step = 0.01 if _luminance(scheme.paper) < 0.5 else -0.01
    while contrast(colour, scheme.paper) < least and 0 < lightness + step < 1:
        lightness += step
        colour = _hex(colorsys.hls_to_rgb(hue, lightness, saturation))
    return colour


def _mixed(scheme: Scheme, lightness: float) -> str:
    ink, paper = _parts(scheme.ink), _parts(scheme.paper)
    return _hex(tuple(lightness * p + (1 - lightness) * i for i, p in zip(ink, paper, strict=True)))


def _parts(colour: str) -> tuple[float, float, float]:
    """Red, green, blue from 0 to 1."""
    red, green, blue = (int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5))
    return red, green, blue


def _hex(parts: Iterable[float]) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in parts)


def _luminance(colour: str) -> float:
    """WCAG 2.2, "relative luminance"."""
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in _parts(colour))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
