"""A report as plain files: markdown, LaTeX, CSV and JSON."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import asdict
from io import StringIO
from typing import Any

from .report_headline import Row
from .report_load import Run
from .report_numbers import Numbers
from .report_ranking import MEASURES
from .report_tables import Section, flat_rows
from .report_training import TrainingRun, training_document, training_markdown
from .statistics import Interval

COLUMNS: tuple[str, ...] = (
    *("probe", "protocol", "encoder", "key", "role", "layer", "metric"),
    *("mean", "low", "high", "scenes", "units", "missing"),
)


def csv_text(numbers: Numbers) -> str:
    """One line per probe, protocol, encoder, layer and metric."""
    buffer = StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat_rows(numbers))
    return buffer.getvalue()


def json_document(
    numbers: Numbers, sections: Sequence[Section], runs: Sequence[Run], training: Sequence[TrainingRun]
) -> dict[str, Any]:
    """All numbers, the tables of each section, and how each run was made."""
    return {
        "format": "strata-report",
        "version": 1,
        "numbers": flat_rows(numbers),
        "sections": [
            {
                "probe": section.probe,
                "protocol": section.protocol,
                "headline": [_plain(asdict(row)) for row in section.headline],
                "ranking": [_plain(asdict(row)) for row in section.ranking.headline],
                "scenes": [_plain(asdict(row)) for row in section.scenes],
                "worst_sets": [_plain(asdict(row)) for row in section.worst],
                "notes": list(section.notes),
            }
            for section in sections
        ],
        "left_out": numbers.missing.total(),
        "runs": [
            {
                "folder": run.folder,
                "command": run.command,
                "records": len(run.records),
                "selections": selections(run),
                "config": run.config,
                "provenance": run.provenance,
            }
            for run in runs
        ],
        "training": training_document(training),
    }


def markdown(sections: Sequence[Section], runs: Sequence[Run], training: Sequence[TrainingRun]) -> str:
    """Headline tables, the notes on them, and the commands."""
    lines = ["# Strata report", ""]
    for section in sections:
        lines += [f"## {section.probe}, protocol {section.protocol}", "", *_table(section), ""]
        lines += [*_ranking_table(section), ""] if section.ranking.layers else []
        lines += [line for note in section.notes for line in (note, "")]
    if sections:
        lines += [
            "Means over scenes with 95 % intervals; `*` = significantly below the best real encoder.",
            "",
        ]
    lines += training_markdown(training)
    commands = [f"    {run.command}" for run in [*runs, *training] if run.command]
    return "\n".join([*lines, *(["## Commands", "", *commands, ""] if commands else [])])


def latex(sections: Sequence[Section]) -> str:
    """A booktabs table per protocol, the best real encoder in bold."""
    return "\n".join(line for section in sections for line in _latex_table(section)) + "\n"


def selections(run: Run) -> list[str]:
    """Fingerprints of the selections that a run's records rest on."""
    return sorted({record.selection for record in run.records if record.selection})


def interval_text(interval: Interval) -> str:
    """`0.612 [0.590, 0.633]`."""
    return f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]"


def _table(section: Section) -> list[str]:
    lines = [
        "| encoder | role | layer | | corr | noncorr | gap | scenes | sets |",
        "|---|---|---|---|--:|--:|--:|--:|--:|",
    ]
    for row in section.headline:
        corr, noncorr, gap = (interval_text(interval) for interval in (row.corr, row.noncorr, row.gap))
        gap += r"\*" * row.marked
        name, gap = (f"**{row.encoder}**", f"**{gap}**") if row.leads else (row.encoder, gap)
        counts = (f"{row.gap.scenes:,}", f"{row.gap.units:,}")
        lines.append(f"| {' | '.join((name, row.role, row.layer, row.words, corr, noncorr, gap, *counts))} |")
    return lines


def _ranking_table(section: Section) -> list[str]:
    lines = [
        f"| encoder | layer | | {' | '.join(MEASURES.values())} |",
        f"|---|---|---|{'--:|' * len(MEASURES)}",
    ]
    for row in section.ranking.headline:
        found = [row.measures.get(name) for name in MEASURES]
        cells = [interval_text(interval) if interval else "–" for interval in found]
        lines.append(f"| {' | '.join((row.encoder, row.layer, row.words, *cells))} |")
    return lines


def _latex_table(section: Section) -> list[str]:
    return [
        f"% {section.probe}, protocol {section.protocol}: means over scenes with 95% intervals",
        r"\begin{tabular}{llrrr}",
        r"\toprule",
        r"Encoder & Layer & corr & noncorr & gap \\",
        r"\midrule",
        *(_latex_row(row) for row in section.headline),
        r"\bottomrule",
        r"\end{tabular}",
    ]


def _latex_row(row: Row) -> str:
    name = row.encoder.replace("_", r"\_")
    scores = [_latex_interval(interval) for interval in (row.corr, row.noncorr, row.gap)]
    if row.leads:
        name, scores[2] = rf"\textbf{{{name}}}", rf"\textbf{{{scores[2]}}}"
    mark = r"$^{*}$" if row.marked else ""
    layer = row.layer.replace("_", r"\_")
    return rf"{name} & {layer} & {' & '.join(scores)}{mark} \\"


def _latex_interval(interval: Interval) -> str:
    half = (interval.high - interval.low) / 2
    return rf"{interval.mean:.3f} {{\scriptsize $\pm${half:.3f}}}"


def _plain(value: Any) -> Any:
    """Floats to 6 decimals, so that the last bits of a sum do not show."""
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return round(value, 6) if isinstance(value, float) else value
