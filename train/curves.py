"""The curves of a run as `curves.png` and as `curves.html`, one page without links that leave it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from ..pages import CHART_STYLE, COLOURS, GRID, MUTED, inline_svg, render
from ..store.atomic import read_json, write_atomic
from .curve_panels import Panel, panels
from .log import RUN, read_log

WIDTH_IN, HEIGHT_IN, DPI = 4.4, 2.5, 130
COLUMNS = 3
STYLE = {**CHART_STYLE, "xtick.color": MUTED, "ytick.color": MUTED}


def write_curves(folder: Path) -> Path | None:
    """Draw what the log of a run holds.

    Args:
        folder: of the run, with `log.jsonl` and `run.json`.

    Returns:
        The page; None where no step was done yet.
    """
    import matplotlib as mpl

    rows = read_log(folder)
    found = panels(rows)
    if not found:
        return None
    with mpl.rc_context(STYLE):
        write_atomic(folder / "curves.png", _png(found))
    charts = [(panel.title, panel_svg(panel)) for panel in found]
    path = folder / "curves.html"
    write_atomic(path, _page(folder, rows, charts).encode())
    return path


def _png(found: Sequence[Panel]) -> bytes:
    from matplotlib.figure import Figure

    down, across = -(-len(found) // COLUMNS), min(COLUMNS, len(found))
    figure = Figure(figsize=(WIDTH_IN * across, HEIGHT_IN * 1.1 * down), layout="constrained")
    for number, panel in enumerate(found):
        axes = figure.add_subplot(down, across, number + 1)
        _draw(axes, panel)
        axes.set_title(panel.title, fontsize=9.5, fontweight="bold", loc="left")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def panel_svg(panel: Panel) -> str:
    """A panel as an inline `<svg>` element."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
        _draw(figure.add_subplot(), panel)
        return inline_svg(figure)


def _draw(axes, panel: Panel) -> None:
    from matplotlib.ticker import MaxNLocator

    for line in panel.lines:
        colour = COLOURS[line.colour % len(COLOURS)]
        marks = (
            {"marker": "o", "markersize": 4, "markeredgecolor": "white"}
            if line.dots or len(line.steps) == 1
            else {}
        )
        axes.plot(line.steps, line.mean, color=colour, linewidth=1.4, label=line.label or None, **marks)
        axes.fill_between(line.steps, line.low, line.high, color=colour, alpha=0.15, linewidth=0)
    if panel.logarithmic:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        axes.yaxis.set_minor_formatter("")
    if len(panel.lines) > 1:
        axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("step")
    axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True, steps=[1, 2, 5, 10]))
    if all(not line.high.any() and not line.low.any() for line in panel.lines):
        axes.set_ylim(-0.05, 1)  # else as much is drawn below a line at zero as above
    axes.grid(color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, which="both")
    axes.spines[["top", "right", "left"]].set_visible(False)


def _page(folder: Path, rows: Sequence[Mapping[str, Any]], charts: Sequence[tuple[str, str]]) -> str:
    run = read_json(folder / RUN)
    validations = [row for row in rows if row["kind"] == "validation"]
    names = dict.fromkeys(name for row in validations for name in row)
    return render(
        __package__ or "strata.train",
        "curves.html",
        {"score": _score, "breakable": _breakable, "word": _word},
        name=folder.resolve().name,
        tiles=_tiles(rows, validations),
        charts=charts,
        validations=validations,
        metrics=[name for name in names if name not in ("kind", "step", "epoch")],
        skipped=[row for row in rows if "skipped" in row],
        command=run["command"],
        options=run["options"],
    )


def _tiles(
    rows: Sequence[Mapping[str, Any]], validations: Sequence[Mapping[str, Any]]
) -> list[tuple[str, str]]:
    steps = [row for row in rows if row["kind"] == "step"]
    losses = [row["loss"] for row in steps if row.get("loss") is not None]
    speeds = sorted(row["items_per_s"] for row in steps)
    tiles = [("steps", f"{len(steps):,}"), ("items per second", _score(speeds[len(speeds) // 2]))]
    if losses:
        tiles.insert(1, ("loss, first to last", f"{_score(losses[0])} → {_score(losses[-1])}"))
    metrics = validations[-1] if validations else {}
    shown = [(name, value) for name, value in metrics.items() if name not in ("kind", "step", "epoch")]
    return [*tiles, *((f"{name}, validation", _score(value)) for name, value in shown[:4])]


def _score(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}"


def _breakable(name: str) -> Any:
    """A name whose line may end behind `_` and `/`, as HTML."""
    from markupsafe import Markup, escape

    return Markup(re.sub("([_/])", r"\1<wbr>", str(escape(name))))


def _word(value: Any) -> str:
    """An option's value as it is written behind `name=`."""
    if isinstance(value, list):
        return ",".join(map(_word, value)) or "[]"
    return str(value).lower() if value is None or isinstance(value, bool) else str(value)
