"""The comparison of encoders under one protocol: every layer's scores, the best, the differences."""

from __future__ import annotations

from dataclasses import dataclass, replace

from .report_numbers import Protocol
from .statistics import Difference, Interval, paired_difference, significant

ROLE_ORDER = {"ceiling": 0, "real": 1, "random": 2, "oracle": 3, "floor": 4}
IMAGE_ROLES = ("real", "random")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One layer of one encoder under one protocol.

    Attributes:
        role: see `Numbers`.
        best, last: whether it is the encoder's layer with the widest gap, and its deepest one.
        corr, noncorr, gap: macro means over scenes.
        missing: sets that have no value and are left out.
        leads: the widest gap among real encoders.
        difference: gap - gap of the leader on shared sets; only for best layers of image encoders.
        marked: the difference is significant after Holm's correction over the protocol's encoders.
    """

    encoder: str
    role: str
    layer: str
    best: bool
    last: bool
    corr: Interval
    noncorr: Interval
    gap: Interval
    missing: int
    leads: bool = False
    difference: Difference | None = None
    marked: bool = False

    @property
    def words(self) -> str:
        return ", ".join(["best"] * self.best + ["last"] * self.last)


def rows_by_encoder(protocol: Protocol) -> dict[str, tuple[Row, ...]]:
    """All layers of every encoder that has a gap, shallow to deep.

    Encoders stand in the order of the tables: ceilings, real ones by falling gap, random weights,
    other oracles, floors.
    """
    found = {encoder: _layers(protocol, encoder) for encoder in protocol.encoders()}
    best = {encoder: best_of(rows) for encoder, rows in found.items() if rows}
    order = sorted(best, key=lambda e: (ROLE_ORDER[best[e].role], -best[e].gap.mean, e))
    return _compared(protocol, {encoder: found[encoder] for encoder in order})


def best_of(rows: tuple[Row, ...]) -> Row:
    return next(row for row in rows if row.best)


def _layers(protocol: Protocol, encoder: str) -> tuple[Row, ...]:
    scores = []
    for layer in protocol.layers(encoder):
        intervals = {name: protocol.interval(encoder, layer, name) for name in ("corr", "noncorr", "gap")}
        found = {name: interval for name, interval in intervals.items() if interval}
        if "gap" in found:
            scores.append((layer, found))
    best = max(scores, key=lambda score: score[1]["gap"].mean, default=("", {}))[0]
    return tuple(
        Row(
            encoder=encoder,
            role=protocol.numbers.roles[encoder],
            layer=layer,
            best=layer == best,
            last=layer == scores[-1][0],
            missing=protocol.numbers.missing[protocol.series(encoder, layer, "corr")],
            **found,
        )
        for layer, found in scores
    )


def _compared(protocol: Protocol, rows: dict[str, tuple[Row, ...]]) -> dict[str, tuple[Row, ...]]:
    """The same rows; best layers of image encoders are held against the leading real one's."""
    rivals = [best_of(layers) for layers in rows.values() if layers[0].role in IMAGE_ROLES]
    if not rivals or rivals[0].role != "real":
        return rows
    leader, *others = rivals
    ahead = protocol.values(leader.encoder, leader.layer, "gap")
    gaps = {row.encoder: protocol.values(row.encoder, row.layer, "gap") for row in others}
    found = {e: paired_difference(gap, ahead) for e, gap in gaps.items() if gap.keys() & ahead.keys()}
    marks = dict(zip(found, significant(list(found.values())), strict=True))
    return {
        encoder: tuple(
            replace(
                row,
                leads=encoder == leader.encoder,
                difference=found.get(encoder),
                marked=marks.get(encoder, False),
            )
            if row.best
            else row
            for row in layers
        )
        for encoder, layers in rows.items()
    }
