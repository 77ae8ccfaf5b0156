"""The table that ends `strata probe correspondence`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

from rich.table import Table

from ..store.layers import layer_order
from .base import Record
from .statistics import Interval, bootstrap_mean

if TYPE_CHECKING:
    from rich.console import Console

Scores = dict[tuple[str, str], float]
"""Values by (scene, set)."""

RANKED = {"recall_1": "recall@1", "auc": "ROC-AUC"}
COLUMNS = ("corr", "noncorr", *RANKED)


def print_table(records: Iterable[Record], console: Console, *, seed: int, resamples: int) -> None:
    """One table for each protocol: corr with its interval, noncorr, gap and ranks by encoder and layer."""
    scores: dict[str, dict[tuple[str, str], dict[str, Scores]]] = defaultdict(dict)
    for record in records:
        if record.unit == "set" and record.metric in COLUMNS and record.value is not None:
            row = scores[record.protocol].setdefault(
                (f"{record.encoder}@{record.key}", record.layer), {metric: {} for metric in COLUMNS}
            )
            row[record.metric][record.scene, record.set] = record.value
    for protocol in scores:
        console.print(_table(protocol, scores[protocol], seed=seed, resamples=resamples))


def _table(
    protocol: str, rows: dict[tuple[str, str], dict[str, Scores]], *, seed: int, resamples: int
) -> Table:
    ranked = [metric for metric in RANKED if any(of[metric] for of in rows.values())]
    table = Table(title=f"correspondence, protocol {protocol}", title_justify="left")
    for name in ("encoder", "layer"):
        table.add_column(name)
    for name in (
        "corr",
        "95 % interval",
        "noncorr",
        "gap",
        *(RANKED[metric] for metric in ranked),
        "scenes",
        "sets",
    ):
        table.add_column(name, justify="right")
    for name, layer in sorted(rows, key=lambda row: (row[0], layer_order(row[1]))):
        of = rows[name, layer]
        gap = {
            unit: value - of["noncorr"][unit] for unit, value in of["corr"].items() if unit in of["noncorr"]
        }
        corr, noncorr, both = (
            _interval(values, seed, resamples) for values in (of["corr"], of["noncorr"], gap)
        )
        span = f"{corr.low:.3f} to {corr.high:.3f}" if corr else "-"
        counted = (str(corr.scenes), str(corr.units)) if corr else ("0", "0")
        found = [_mean(_interval(of[metric], seed, resamples)) for metric in ranked]
        table.add_row(name, layer, _mean(corr), span, _mean(noncorr), _mean(both), *found, *counted)
    return table


def _interval(scores: Scores, seed: int, resamples: int) -> Interval | None:
    by_scene: dict[str, list[float]] = defaultdict(list)
    for (scene, _), value in sorted(scores.items()):
        by_scene[scene].append(value)
    return bootstrap_mean(by_scene, seed=seed, resamples=resamples) if by_scene else None


def _mean(interval: Interval | None) -> str:
    return f"{interval.mean:.4f}" if interval else "-"
