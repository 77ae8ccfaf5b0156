"""How pages with charts are made: templates, and matplotlib figures as inline SVG in one style."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import StringIO
from typing import Any

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Of Okabe and Ito, which stay distinct for colour-blind readers."""

INK, MUTED, GRID = "#323f4b", "#616e7c", "#e4e7eb"
CHART_STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "strata",
    "text.parse_math": False,
    "font.size": 9,
    "axes.linewidth": 0.8,
    "text.color": INK,
    "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID,
}
"""For `matplotlib.rc_context`: text stays text, ids are the same in every run, `$` is a dollar."""


def render(package: str, template: str, filters: dict[str, Callable[..., Any]], /, **values: Any) -> str:
    """A template of a package's folder, filled in; what it names and nobody gives is an error.

    Args:
        package: the `__package__` of the caller.
        template: name of the file beside it.
        filters: for the template, by name.
        values: for the template.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader(package, "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(**values)


def inline_svg(figure: Any) -> str:
    """A figure as the bare element: no prolog, no metadata, no sizes, no ids that two charts would share."""
    buffer = StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r' xmlns(:\w+)?="[^"]*"', "", svg)
    return re.sub(r'<svg (?:width|height)="[^"]*" |(?<=pt" )height="[^"]*" ', "<svg ", svg, count=1).strip()
