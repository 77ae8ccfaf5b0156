"""From the rows of a log to what is drawn: panels of lines with few enough points to be seen."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

BINS = 80
NOT_DRAWN = {"kind", "step", "epoch", "skipped"}
OWN_PANELS = {
    "lr": "learning rate",
    "items_per_s": "items per second",
    "wait_share": "share of time waiting for data",
}
NORM = "grad_norm/"


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points of a curve; arrays of one length.

    Attributes:
        label: for the legend; empty = none.
        steps: middle of each bin.
        mean: over the bin.
        low: smallest value of the bin.
        high: largest value of the bin.
        dots: whether the points are few and drawn as such.
        colour: number of its colour.
    """

    label: str
    steps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray
    dots: bool = False
    colour: int = 0


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Lines that share their axes."""

    title: str
    lines: tuple[Line, ...]

    @property
    def logarithmic(self) -> bool:
        """Whether the values are positive and of very different size; rate and speed are read off zero."""
        if self.title in OWN_PANELS.values():
            return False
        low = min(float(line.low.min()) for line in self.lines)
        high = max(float(line.high.max()) for line in self.lines)
        return low > 0 and high > 30 * low


def panels(rows: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """Loss first, then what the task returned, validation, rate, gradient norms, speed.

    A metric of validation shares the panel of the training value of the same name, and that of a part,
    `<part>/<metric>`, the panel of the metric.
    """
    steps, validations = _of_kind(rows, "step"), _of_kind(rows, "validation")
    names = _names(steps)
    norms = [name for name in names if name.startswith(NORM)]
    values = [name for name in names if name not in OWN_PANELS and name not in norms]
    lines: dict[str, list[Line]] = {
        name: [_line(steps, name, "training")] for name in sorted(values, key=lambda name: name != "loss")
    }
    for name in _names(validations):
        part, _, metric = name.rpartition("/")
        lines.setdefault(metric, []).append(_line(validations, name, part or "validation", dots=True))
    lines |= {title: [_line(steps, name)] for name, title in OWN_PANELS.items() if name in names}
    lines["norm of the gradient"] = [_line(steps, name, name.removeprefix(NORM)) for name in norms]
    numbered = {
        title: [replace(line, colour=number) for number, line in enumerate(found)]
        for title, found in lines.items()
    }
    return _drawn(numbered)


def compared(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Panel]:
    """The loss of runs in one panel, and one for each metric of validation; a colour for each run.

    Args:
        runs: rows of their logs by name.
    """
    lines: dict[str, list[Line]] = {}
    for colour, (name, rows) in enumerate(runs.items()):
        steps, validations = _of_kind(rows, "step"), _of_kind(rows, "validation")
        found = {"loss": [_line(steps, "loss", name if len(runs) > 1 else "training")]}
        for metric in _names(validations):
            label = name if len(runs) > 1 else "held out"
            # Dots beside a line of their colour need no second word.
            label = "" if metric == "loss" and len(runs) > 1 else label
            found.setdefault(metric, []).append(_line(validations, metric, label, dots=True))
        for title, of_run in found.items():
            lines.setdefault(title, []).extend(replace(line, colour=colour) for line in of_run)
    return _drawn(lines)


def _drawn(lines: Mapping[str, Sequence[Line]]) -> list[Panel]:
    """Panels of the lines that have points."""
    there = {title: tuple(line for line in found if line.steps.size) for title, found in lines.items()}
    return [Panel(title=title, lines=found) for title, found in there.items() if found]


def _of_kind(rows: Iterable[Mapping[str, Any]], kind: str) -> list[Mapping[str, Any]]:
    return [row for row in rows if row["kind"] == kind]


def _names(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row if name not in NOT_DRAWN))


def _line(rows: Sequence[Mapping[str, Any]], name: str, label: str = "", dots: bool = False) -> Line:
    points = np.array([(row["step"], row[name]) for row in rows if row.get(name) is not None], float)
    points = points.reshape(-1, 2)
    if len(points) <= BINS:
        steps, values = points.T
        return Line(label=label, steps=steps, mean=values, low=values, high=values, dots=dots)
    starts = np.linspace(0, len(points), BINS, endpoint=False).astype(int)
    counts = np.diff([*starts, len(points)])
    steps, values = points.T
    return Line(
        label=label,
        steps=np.add.reduceat(steps, starts) / counts,
        mean=np.add.reduceat(values, starts) / counts,
        low=np.minimum.reduceat(values, starts),
        high=np.maximum.reduceat(values, starts),
        dots=dots,
    )
