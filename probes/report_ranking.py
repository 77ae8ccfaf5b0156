"""How well similarity finds what corresponds: the ranking measures of a protocol, for the report."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from .report_numbers import Protocol
from .statistics import Interval

MEASURES = {
    "recall_1": "recall@1",
    "recall_5": "recall@5",
    "mutual_precision": "mutual precision",
    "auc": "ROC-AUC",
    "average_precision": "average precision",
}
"""Names of metrics in the records, and on the page; layers are chosen by the first."""


@dataclass(frozen=True, kw_only=True)
class RankedLayer:
    """One layer of one encoder.

    Attributes:
        best, last: whether it has the encoder's highest recall@1, and is its deepest one.
        measures: {metric of `MEASURES`: interval}, without those that have no value.
    """

    encoder: str
    layer: str
    best: bool
    last: bool
    measures: dict[str, Interval]

    @property
    def words(self) -> str:
        return ", ".join(["best"] * self.best + ["last"] * self.last)


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """The ranking measures of one protocol.

    Attributes:
        layers: all rows by encoder; empty where nothing was ranked.
        angles: {encoder: {bin such as `0-30`: recall@1 at its best layer}}.
    """

    layers: dict[str, tuple[RankedLayer, ...]]
    angles: dict[str, dict[str, Interval]]

    @property
    def headline(self) -> list[RankedLayer]:
        """Best and last layer of each encoder."""
        return [row for rows in self.layers.values() for row in rows if row.words]


def ranking_of(protocol: Protocol, encoders: Mapping[str, object]) -> Ranking:
    """The measures of these encoders, in their order."""
    layers = {encoder: rows for encoder in encoders if (rows := _layers(protocol, encoder))}
    best = [next(row for row in rows if row.best) for rows in layers.values()]
    angles = {row.encoder: by_angle(protocol, row.encoder, row.layer, "recall_1") for row in best}
    return Ranking(layers=layers, angles={encoder: bins for encoder, bins in angles.items() if bins})


def by_angle(protocol: Protocol, encoder: str, layer: str, metric: str) -> dict[str, Interval]:
    """{bin such as `0-30`: interval} of one metric, by rising angle; without bins that have no value."""
    name = re.compile(rf"{metric}@(\d+)-(\d+)")
    matches = [match for other in protocol.metrics() if (match := name.fullmatch(other))]
    bins = [f"{low}-{high}" for low, high in sorted((int(m[1]), int(m[2])) for m in matches)]
    found = {part: protocol.interval(encoder, layer, f"{metric}@{part}") for part in bins}
    return {part: interval for part, interval in found.items() if interval}


def _layers(protocol: Protocol, encoder: str) -> tuple[RankedLayer, ...]:
    scores = []
    for layer in protocol.layers(encoder):
        found = {name: protocol.interval(encoder, layer, name) for name in MEASURES}
        measures = {name: interval for name, interval in found.items() if interval}
        if "recall_1" in measures:
            scores.append((layer, measures))
    best = max(scores, key=lambda score: score[1]["recall_1"].mean, default=("", {}))[0]
    return tuple(
        RankedLayer(
            encoder=encoder, layer=layer, best=layer == best, last=layer == scores[-1][0], measures=measures
        )
        for layer, measures in scores
    )
