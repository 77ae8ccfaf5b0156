"""`strata report`: what probes and trainings wrote, as one page and as tables."""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..configs.schema import ReportConfig
from ..errors import ProbeError, counted, first_few
from ..pages import render
from ..store.atomic import write_atomic, write_json
from .report_charts import Curve, Style, line_chart, styles
from .report_checks import check_pairs, check_sets
from .report_headline import IMAGE_ROLES
from .report_load import Picture, Run, read_runs
from .report_numbers import Numbers, depth_order
from .report_ranking import MEASURES
from .report_tables import Section, other_rows, sections
from .report_text import csv_text, json_document, latex, markdown, selections
from .report_training import (
    TrainingRun,
    change_of,
    figure,
    is_training,
    metrics_of,
    read_training,
    training_charts,
)

if TYPE_CHECKING:
    from rich.console import Console


def report(dirs: list[str], config: ReportConfig, console: Console) -> int:
    """Write report.html, .md, .tex, .csv and .json about these run folders into `config.out`.

    Equal records give equal files; the page holds no date but those of the runs.

    Returns:
        The exit code, 0.

    Raises:
        ProbeError: a folder is no run, a line is malformed, runs are not comparable, or nothing is
            left to show.
    """
    if not dirs:
        raise ProbeError(
            "no folder is given.",
            where="strata report",
            fix="give folders that a probe or a training wrote: strata report runs/correspondence",
        )
    training = read_training([folder for folder in dirs if is_training(folder)])
    runs = read_runs(folder for folder in dirs if not is_training(folder))
    if not config.allow_mixed_sets:
        check_pairs(runs)
        check_sets(runs)
    numbers = Numbers(runs)
    found = sections(numbers, runs)
    out = Path(config.out)
    texts = {
        "report.html": page(numbers, found, runs, training, mixed_sets=config.allow_mixed_sets),
        "report.md": markdown(found, runs, training),
        "report.tex": latex(found),
        "report.csv": csv_text(numbers),
    }
    for name, text in texts.items():
        write_atomic(out / name, text.encode())
    write_json(out / "report.json", json_document(numbers, found, runs, training))
    for line in _summary(found, training, out):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    return 0


def _data_uri(png: bytes) -> str:
    """A picture as it lies in the page: WebP, a tenth of the PNG beside the records.

    What is no picture is embedded as it is, and the browser says so in its place.
    """
    from PIL import Image, UnidentifiedImageError

    buffer = io.BytesIO()
    try:
        Image.open(io.BytesIO(png)).convert("RGB").save(buffer, "WEBP", quality=82, method=4)
    except (UnidentifiedImageError, OSError):
        return f"data:image/png;base64,{base64.b64encode(png).decode()}"
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


_FILTERS: dict[str, Callable[..., Any]] = {
    "score": lambda value: f"{value:.3f}".replace("-", "−"),
    "pretty": lambda value: json.dumps(value, indent=2, ensure_ascii=False),
    "data_uri": _data_uri,
    "figure": figure,
    "counted": counted,
}


def page(
    numbers: Numbers,
    found: Sequence[Section],
    runs: Sequence[Run],
    training: Sequence[TrainingRun],
    *,
    mixed_sets: bool = False,
) -> str:
    """The self-contained HTML page: no script, no link that leaves it."""
    from markupsafe import Markup

    return render(
        __package__ or "strata.probes",
        "report.html",
        _FILTERS,
        **_charts(found),
        sections=found,
        measures=MEASURES,
        axes=[_axis(section) for section in found],
        others=other_rows(numbers),
        runs=[{"run": run, "selections": first_few(selections(run), most=8)} for run in runs],
        keys=numbers.keys,
        counts=_counts(numbers, runs),
        pictures=_pictures(numbers, runs),
        mixed_sets=mixed_sets,
        training=training,
        training_metrics=metrics_of(training),
        change_of=change_of,
        training_charts=[(title, Markup(svg)) for title, svg in training_charts(training)],
        command=_command([run.folder for run in [*runs, *training]], mixed_sets),
    )


def _charts(found: Sequence[Section]) -> dict[str, Any]:
    """The charts of every section, and the look that each encoder has in all of them."""
    from markupsafe import Markup

    looks = styles({row.encoder: row.role for section in found for row in section.headline})
    title = "corr at the best layer"
    return {
        "looks": looks,
        "layer_charts": [Markup(_layer_chart(section, looks)) for section in found],
        "angle_charts": [
            Markup(_angle_chart(section.angles, title, looks)) if section.angles else "" for section in found
        ],
        "ranked": [
            (section, [Markup(chart) for chart in _ranking_charts(section, looks)])
            for section in found
            if section.ranking.layers
        ],
    }


@dataclass(frozen=True, kw_only=True)
class Axis:
    """The common scale of the interval marks in one table: from value to percent of the width."""

    low: float
    high: float

    def percent(self, value: float) -> str:
        return f"{100 * (value - self.low) / (self.high - self.low):.2f}"


def _axis(section: Section) -> Axis:
    gaps = [row.gap for row in section.headline]
    low, high = min(0.0, *(gap.low for gap in gaps)), max(0.0, *(gap.high for gap in gaps))
    pad = 0.03 * (high - low) or 1.0
    return Axis(low=low - pad, high=high + pad)


def _layer_chart(section: Section, looks: dict[str, Style]) -> str:
    curves = {e: {row.layer: row.gap for row in rows} for e, rows in section.layers.items()}
    return _by_layer(curves, "gap = corr − noncorr", looks)


def _ranking_charts(section: Section, looks: dict[str, Style]) -> list[str]:
    """recall@1 by layer and, where there are bins, by angle."""
    ranking = section.ranking
    curves = {e: {row.layer: row.measures["recall_1"] for row in rows} for e, rows in ranking.layers.items()}
    by_angle = [_angle_chart(ranking.angles, "recall@1 at the best layer", looks)] if ranking.angles else []
    return [_by_layer(curves, "recall@1", looks), *by_angle]


def _by_layer(curves: Mapping[str, Curve], y_label: str, looks: dict[str, Style]) -> str:
    layers = sorted({layer for curve in curves.values() for layer in curve}, key=depth_order)
    return line_chart(curves, layers, looks, x_label="layer", y_label=y_label)


def _angle_chart(angles: Mapping[str, Curve], y_label: str, looks: dict[str, Style]) -> str:
    names = {name for bins in angles.values() for name in bins}
    order = sorted(names, key=lambda name: int(name.partition("-")[0]))
    shown = {name: f"{name.replace('-', '–')}°" for name in order}
    curves = {e: {shown[name]: i for name, i in bins.items()} for e, bins in angles.items()}
    axis = {"x_label": "angle between the viewing rays", "y_label": y_label}
    return line_chart(curves, list(shown.values()), looks, **axis)


def _pictures(numbers: Numbers, runs: Sequence[Run]) -> list[Picture]:
    """Those of image encoders first, else in the order of the runs."""
    pictures = [picture for run in runs for picture in run.pictures]
    return sorted(pictures, key=lambda picture: numbers.roles.get(picture.encoder, "real") not in IMAGE_ROLES)


def _counts(numbers: Numbers, runs: Sequence[Run]) -> dict[str, Any]:
    records = [record for run in runs for record in run.records]
    return {
        "encoders": len(numbers.keys),
        "scenes": len({record.scene for record in records}),
        "sets": len({(record.scene, record.set) for record in records if record.set}),
        "datasets": sorted({record.dataset for record in records if record.dataset}),
        "records": len(records),
        "left_out": numbers.missing.total(),
    }


def _command(folders: Sequence[str], mixed_sets: bool) -> str:
    return shlex.join(["strata", "report", *folders, *["allow_mixed_sets=true"] * mixed_sets])


def _summary(found: Sequence[Section], training: Sequence[TrainingRun], out: Path) -> list[str]:
    lines = [f"training   {run.name}, {run.progress}" for run in training]
    for section in found:
        if row := section.leader:
            lines.append(
                f"{section.protocol:<10} best real encoder {row.encoder} at {row.layer}: "
                f"gap {row.gap.mean:.3f} [{row.gap.low:.3f}, {row.gap.high:.3f}]"
            )
    return [*lines, f"report     {out / 'report.html'}"]
