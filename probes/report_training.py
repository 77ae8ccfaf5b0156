"""Training runs in a report: what each came to, and their curves side by side.

A training run is a folder with `log.jsonl` and `run.json` (see `train/fit.py`), finished or not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ProbeError
from ..train.curve_panels import compared
from ..train.curves import panel_svg
from ..train.log import NAME, RUN, read_log

ROW_OF_NO_METRIC = ("kind", "step", "epoch")


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """One training run, as far as it got.

    Attributes:
        folder: as it was given.
        name: of the folder; the whole folder where two runs have one name.
        rows: of its log.
        command: that made it.
        options: of that command.
        versions: of what it ran with.
        planned: steps that it is to have; None = a run of an earlier version, which did not say.
    """

    folder: str
    name: str
    rows: tuple[dict[str, Any], ...]
    command: str
    options: dict[str, Any]
    versions: dict[str, str]
    planned: int | None

    @property
    def steps(self) -> int:
        """Steps that were done."""
        return max((row["step"] for row in self.rows), default=0)

    @property
    def validations(self) -> list[dict[str, Any]]:
        """{`step`, `epoch`, metric: value or None}, in the order of time."""
        return [row for row in self.rows if row["kind"] == "validation"]

    @property
    def losses(self) -> list[float]:
        """Of the steps that have one."""
        found = (row.get("loss") for row in self.rows if row["kind"] == "step")
        return [loss for loss in found if loss is not None]

    @property
    def progress(self) -> str:
        """How far it is."""
        if self.planned is None:
            return f"{self.steps:,} steps"
        if self.steps < self.planned:
            return f"not finished: {self.steps:,} of {self.planned:,} steps"
        return f"finished: {self.steps:,} steps"


@dataclass(frozen=True, kw_only=True)
class Change:
    """A metric of validation in one run: its first value and its last one, and after which steps."""

    first: float | None
    first_step: int
    last: float | None
    last_step: int


def is_training(folder: str) -> bool:
    """Whether the folder is of a training run."""
    return (Path(folder) / NAME).is_file() and (Path(folder) / RUN).is_file()


def read_training(folders: Sequence[str]) -> list[TrainingRun]:
    """The training runs of these folders; one given twice is read once.

    Raises:
        ProbeError: a file of a run is malformed.
    """
    distinct = list({Path(folder).resolve(): folder for folder in folders}.values())
    names = [Path(folder).resolve().name for folder in distinct]
    return [
        _read_run(folder, name if names.count(name) == 1 else folder)
        for folder, name in zip(distinct, names, strict=True)
    ]


def metrics_of(runs: Sequence[TrainingRun]) -> list[str]:
    """Metrics of validation, the loss first."""
    found = dict.fromkeys(name for run in runs for row in run.validations for name in row)
    return sorted((name for name in found if name not in ROW_OF_NO_METRIC), key=lambda name: name != "loss")


def change_of(run: TrainingRun, metric: str) -> Change | None:
    """None where the run did not measure it."""
    measured = [row for row in run.validations if metric in row]
    if not measured:
        return None
    first, last = measured[0], measured[-1]
    return Change(first=first[metric], first_step=first["step"], last=last[metric], last_step=last["step"])


def training_charts(runs: Sequence[TrainingRun]) -> list[tuple[str, str]]:
    """(title, `<svg>` element) of the loss and of each metric of validation."""
    return [(panel.title, panel_svg(panel)) for panel in compared({run.name: run.rows for run in runs})]


def training_markdown(runs: Sequence[TrainingRun]) -> list[str]:
    """Lines of a table: a row for each metric, a column for each run."""
    if not runs:
        return []
    lines = [
        "## Training",
        "",
        *(f"- {run.name}: {run.progress}{_losses(run)}" for run in runs),
        "",
    ]
    if not (metrics := metrics_of(runs)):
        return lines
    lines += [f"| held out | {' | '.join(run.name for run in runs)} |", f"|---|{'--:|' * len(runs)}"]
    for metric in metrics:
        cells = (_change_text(change_of(run, metric)) for run in runs)
        lines.append(f"| {metric} | {' | '.join(cells)} |")
    return [*lines, "", "First and last measurement of each run.", ""]


def training_document(runs: Sequence[TrainingRun]) -> list[dict[str, Any]]:
    """What report.json holds of the runs."""
    return [
        {
            "folder": run.folder,
            "command": run.command,
            "steps": run.steps,
            "planned_steps": run.planned,
            "validations": run.validations,
            "options": run.options,
            "versions": run.versions,
        }
        for run in runs
    ]


def figure(value: float | None) -> str:
    """Four digits; a dash where there is no value."""
    return "–" if value is None else f"{value:,.4g}".replace("-", "−")


def _losses(run: TrainingRun) -> str:
    return f", loss {figure(run.losses[0])} → {figure(run.losses[-1])}" if run.losses else ""


def _change_text(change: Change | None) -> str:
    return "–" if change is None else f"{figure(change.first)} → {figure(change.last)}"


def _read_run(folder: str, name: str) -> TrainingRun:
    root = Path(folder)
    try:
        rows = tuple(read_log(root))
        if not all(isinstance(row, dict) and {"kind", "step"} <= row.keys() for row in rows):
            raise ValueError(f"a line of {NAME} is no row of a training")
        run = json.loads((root / RUN).read_bytes())
        return TrainingRun(
            folder=str(folder),
            name=name,
            rows=rows,
            command=str(run.get("command") or ""),
            options=dict(run["options"]),
            versions=dict(run.get("versions") or {}),
            planned=run.get("steps"),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
        raise ProbeError(
            "a file of the training run is malformed.",
            where=root,
            why=f"{NAME} and {RUN}: {error}",
            fix="run the training's command again, or leave the folder out",
        ) from None
