"""Pages from templates: every report is one file that opens offline."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """Fill a template of this folder; text is escaped, a missing value is an error."""
    environment = Environment(
        loader=PackageLoader("lotto.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**values)
