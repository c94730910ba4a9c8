"""The report as one HTML page: nothing from outside, no text of a run taken for markup, equal bytes for equal runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from quant.report import svg, tables
from quant.report.blocks import image
from quant.report.markdown import MARKS
from quant.report.material import Material
from quant.report.sections import sections

if TYPE_CHECKING:
    from markupsafe import Markup

TEMPLATE = "page.html.j2"
STACKED = 4
"""Tables of so many columns become lists on a phone: it is too narrow for them."""
MANY = 6
"""Tables of so many columns are set closer."""


def page(material: Material) -> str:
    """The whole page.

    Args:
        material: a finished run.

    Returns:
        HTML, UTF-8 when written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("quant.report", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.globals |= {"marks": MARKS, "shape": _shape, "stacked": STACKED, "many": MANY}
    return environment.get_template(TEMPLATE).render(
        name=tables.checkpoint(material),
        lead=tables.lead(material),
        verdict=material.verdict,
        reasons=tables.reasons(material.verdict),
        against=tables.against(material.verdict),
        figures=tables.key_figures(material),
        sections=sections(material),
    )


def _shape(index: int) -> Markup:
    """The shape of a series, as large as a letter."""
    return image(svg.tag("svg", svg.marker(index, 7, 7, 4.5), viewBox="0 0 14 14", class_="key", aria_hidden="true"))
