"""Charts as inline SVG: one line per encoder with its interval, told apart by colour and marker.

Real encoders get the colours of Okabe and Ito, which stay distinct for colour-blind readers; oracles
and random weights are grey, because they frame the picture and do not compete.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..pages import CHART_STYLE, COLOURS, GRID, MUTED, inline_svg
from .statistics import Interval

MARKERS = ("o", "s", "^", "D", "v", "P")
GREYS = {
    "ceiling": ("#3e4c59", "--"),
    "oracle": ("#7b8794", "-."),
    "random": ("#7b8794", (0, (1, 1))),
    "floor": ("#9aa5b1", ":"),
}
WIDTH_IN, HEIGHT_IN, CHARACTER_IN, LEFT_IN = 5.4, 3.3, 0.075, 0.75
LONGEST_NAME = 24
LEAST_GAP = 0.062
"""Between two labels, as a share of the axis."""

Curve = Mapping[str, Interval]
"""{category on the x axis: interval}, a subset of the chart's categories."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How an encoder is drawn everywhere on the page."""

    colour: str
    dash: str | tuple[int, tuple[int, ...]]
    marker: str


def styles(roles: Mapping[str, str]) -> dict[str, Style]:
    """A style for every encoder; real ones differ in colour, then in marker."""
    found, real = {}, 0
    for encoder, role in roles.items():
        if role in GREYS:
            colour, dash = GREYS[role]
            found[encoder] = Style(colour=colour, dash=dash, marker="")
        else:
            turn = real // len(COLOURS)
            marker = MARKERS[(real + turn) % len(MARKERS)]
            found[encoder] = Style(colour=COLOURS[real % len(COLOURS)], dash="-", marker=marker)
            real += 1
    return found


def line_chart(
    curves: Mapping[str, Curve],
    categories: Sequence[str],
    encoder_styles: Mapping[str, Style],
    *,
    x_label: str,
    y_label: str,
) -> str:
    """An `<svg>` element: equal curves give equal text.

    Args:
        curves: {encoder: curve}; one with a single category becomes a horizontal line.
        categories: the x axis, left to right.
        encoder_styles: a style for every encoder.
        x_label, y_label: written along the axes.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure

    names = _short_names(list(curves))
    right_in = 0.35 + CHARACTER_IN * max(map(len, names.values()))
    plot_in = WIDTH_IN - LEFT_IN - right_in
    with mpl.rc_context(CHART_STYLE):
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN))
        turned = _too_long(categories, plot_in)
        bottom = 0.33 if turned else 0.19
        axes = figure.add_axes((LEFT_IN / WIDTH_IN, bottom, plot_in / WIDTH_IN, 0.97 - bottom))
        for encoder, curve in curves.items():
            _draw(axes, curve, categories, encoder_styles[encoder])
        _frame(axes, categories, x_label, y_label, turned)
        ends = {encoder: list(curve.values())[-1].mean for encoder, curve in curves.items()}
        _name(axes, ends, names, encoder_styles)
        return inline_svg(figure)


def _draw(axes, curve: Curve, categories: Sequence[str], style: Style) -> None:
    x = [categories.index(name) for name in curve]
    low, mean, high = (
        [getattr(interval, part) for interval in curve.values()] for part in ("low", "mean", "high")
    )
    line = {"color": style.colour, "linestyle": style.dash, "linewidth": 1.6}
    if len(x) == 1:
        x, low, mean, high = [-0.5, len(categories) - 0.5], low * 2, mean * 2, high * 2
        axes.plot(x, mean, **line)
    else:
        face = {"markersize": 5, "markeredgecolor": "white", "markeredgewidth": 0.8}
        axes.plot(x, mean, marker=style.marker, **line, **face)
    axes.fill_between(x, low, high, color=style.colour, alpha=0.13, linewidth=0)


def _short_names(encoders: Sequence[str]) -> dict[str, str]:
    """Names that leave room for the plot: without a timm tag and cut, as long as they stay different."""
    cut = {encoder: encoder.partition(".")[0] for encoder in encoders}
    cut = {e: n if len(n) <= LONGEST_NAME else f"{n[: LONGEST_NAME - 1]}…" for e, n in cut.items()}
    return cut if len(set(cut.values())) == len(cut) else {encoder: encoder for encoder in encoders}


def _shown(categories: Sequence[str]) -> range:
    """At most 24 of many layers are named."""
    return range(0, len(categories), -(-len(categories) // 24))


def _too_long(categories: Sequence[str], width_in: float) -> bool:
    return CHARACTER_IN * sum(len(categories[i]) + 2 for i in _shown(categories)) > width_in


def _frame(axes, categories: Sequence[str], x_label: str, y_label: str, turned: bool) -> None:
    axes.set_xlim(-0.5, len(categories) - 0.5)
    shown = _shown(categories)
    turn = {"rotation": 40, "ha": "right", "rotation_mode": "anchor"} if turned else {}
    axes.set_xticks(list(shown), [categories[i] for i in shown], **turn)
    axes.tick_params(length=0, labelcolor=MUTED, pad=5)
    axes.set_xlabel(x_label, labelpad=6)
    axes.set_ylabel(y_label, labelpad=6)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(y=0.08)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _name(
    axes, ends: Mapping[str, float], names: Mapping[str, str], encoder_styles: Mapping[str, Style]
) -> None:
    """The encoders' names at the right end of their lines, pushed apart where they would overlap."""
    bottom, top = axes.get_ylim()
    encoders = sorted(ends, key=lambda encoder: (ends[encoder], encoder))
    places = _spread([(ends[encoder] - bottom) / (top - bottom) for encoder in encoders])
    for encoder, place in zip(encoders, places, strict=True):
        style = encoder_styles[encoder]
        share = (ends[encoder] - bottom) / (top - bottom)
        line = {"color": style.colour, "linewidth": 0.8, "clip_on": False, "transform": axes.transAxes}
        axes.plot([1.0, 1.025], [share, place], **line)
        words = {"va": "center", "size": 8.5, "color": style.colour, "transform": axes.transAxes}
        axes.text(1.035, place, names[encoder], **words)


def _spread(places: list[float]) -> list[float]:
    """Rising places at least `LEAST_GAP` apart, moved up, then down again from the top of the axis."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + LEAST_GAP) if moved else place)
    limit = max(1.0, LEAST_GAP * (len(places) - 1))
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - LEAST_GAP
    return moved
