"""Pages from templates: every report is one file that opens offline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from lotto.report.colours import DARK, LIGHT, rules
from lotto.report.inline import Inline


def render(template: str, figures: Sequence[Inline] = (), **values: Any) -> str:
    """Fill a template of this folder; text is escaped, a missing value is an error.

    Args:
        template: its name.
        figures: those of the page, whose colours it has to know.
        values: what the template asks for.
    """
    colours = sorted({colour for figure in figures for colour in figure.colours})
    environment = Environment(
        loader=PackageLoader("lotto.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        light=LIGHT, dark=DARK, light_colours=rules(colours, LIGHT), dark_colours=rules(colours, DARK), **values
    )
