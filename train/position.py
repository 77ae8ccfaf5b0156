"""Where a run is, what decides its numbers, and whether a checkpoint may be continued with these options."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..configs.schema import FitOptions
from ..errors import TrainError
from ..store.key import digest


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best epoch of a metric."""

    value: float
    step: int


@dataclass(frozen=True, kw_only=True)
class Position:
    """How far a run is.

    Attributes:
        step: batches that were done, skipped ones included.
        epochs: that are over, with their validation.
        items: of all batches.
        bad: bad steps in a row.
        halved: whether memory ran out.
        log_bytes: length of log.jsonl.
        metrics: of the last validation.
        best: of the metric that `best=` names.
    """

    step: int = 0
    epochs: int = 0
    items: int = 0
    bad: int = 0
    halved: bool = False
    log_bytes: int = 0
    metrics: dict[str, float | None] = field(default_factory=dict)
    best: Best | None = None

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> Position:
        best = value["best"]
        return cls(**{**value, "best": Best(**best) if best else None})


def identity(
    config: FitOptions, task_identity: Mapping[str, Any], precision: str, ranks: int
) -> dict[str, Any]:
    """What must be equal for a run to be continued, as JSON gives it back."""
    options = {
        option.name: getattr(config, option.name)
        for option in dataclasses.fields(config)
        if not option.metadata.get("changeable")
    }
    whole = {**options, "precision": precision, "processes": ranks, "task": dict(task_identity)}
    return json.loads(json.dumps(whole, allow_nan=False))


def check_identity(
    stored: Mapping[str, Any], asked: Mapping[str, Any], config: FitOptions, where: Path
) -> None:
    """Check that a checkpoint is of this run.

    Args:
        config: whose changeable options the error names.

    Raises:
        TrainError: it is of another; names each field that differs.
    """
    if digest(stored) == digest(asked):
        return
    before, now = _flat(stored), _flat(asked)
    lines = [
        f"{name}: the checkpoint has {_text(before, name)}, asked is {_text(now, name)}"
        for name in {**before, **now}
        if _text(before, name) != _text(now, name)
    ]
    free = [o.name for o in dataclasses.fields(config) if o.metadata.get("changeable")]
    raise TrainError(
        "the checkpoint is of a run with other settings.",
        where=where,
        why="\n".join(lines),
        fix=f"give the settings of the checkpoint, or another out=; these may change: {', '.join(free)}",
    )


def finite(values: Mapping[str, float]) -> dict[str, float | None]:
    """The values as JSON can hold them: None where a number is not finite."""
    return {name: float(value) if math.isfinite(value) else None for name, value in values.items()}


def better(best: str, metrics: Mapping[str, float | None], step: int, before: Best | None) -> Best | None:
    """The best epoch so far.

    Args:
        best: `max:<metric>` or `min:<metric>`.
        metrics: of the validation after `step`.

    Raises:
        TrainError: there is no such metric.
    """
    direction, _, name = best.partition(":")
    if name not in metrics:
        raise TrainError(
            f"the validation has no metric {name!r}.",
            where=f"best={best}",
            why=f"it returned {', '.join(metrics) or 'nothing'}",
            fix="name one of these, or leave best= out",
        )
    value, sign = metrics[name], 1 if direction == "max" else -1
    if value is None or (before is not None and sign * value <= sign * before.value):
        return before
    return Best(value=value, step=step)


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, entry in value.items():
        flat |= _flat(entry, f"{prefix}{name}.") if isinstance(entry, Mapping) else {f"{prefix}{name}": entry}
    return flat


def _text(values: Mapping[str, Any], name: str) -> str:
    return json.dumps(values[name], ensure_ascii=False) if name in values else "nothing"
