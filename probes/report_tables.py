"""The tables of a report, as values: one section per protocol, and flat rows of everything."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .report_headline import IMAGE_ROLES, Row, best_of, rows_by_encoder
from .report_load import Run
from .report_numbers import Numbers, Protocol, Series
from .report_ranking import Ranking, by_angle, ranking_of
from .statistics import MIN_SCENES, Interval, by_scene

WORST_SETS = 5


@dataclass(frozen=True, kw_only=True)
class SceneRow:
    """One scene: how well its own depth agrees, and each encoder's mean gap at its best layer."""

    scene: str
    sets: int
    depth_agreement: float | None
    gaps: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class WorstSet:
    """A set on which the best layer of an encoder separates least."""

    encoder: str
    layer: str
    scene: str
    set: str
    views: tuple[str, ...]
    corr: float
    noncorr: float
    gap: float


@dataclass(frozen=True, kw_only=True)
class Section:
    """Everything about one protocol of a probe that scores correspondence.

    Attributes:
        layers: all rows by encoder, encoders in the order of the tables.
        angles: {encoder: {bin such as `0-30`: corr at the best layer}}; empty without bins.
        ranking: how well similarity finds what corresponds.
        scenes: rows by scene id.
        worst: the lowest gaps of each image encoder.
        notes: what a reader must know before comparing.
    """

    probe: str
    protocol: str
    layers: dict[str, tuple[Row, ...]]
    angles: dict[str, dict[str, Interval]]
    ranking: Ranking
    scenes: tuple[SceneRow, ...]
    worst: tuple[WorstSet, ...]
    notes: tuple[str, ...]

    @property
    def headline(self) -> list[Row]:
        """Best and last layer of each encoder."""
        return [row for rows in self.layers.values() for row in rows if row.words]

    @property
    def leader(self) -> Row | None:
        return next((row for row in self.headline if row.leads), None)


def sections(numbers: Numbers, runs: list[Run]) -> list[Section]:
    """One section for every protocol with a gap, `visible` first."""
    return [_section(protocol, runs) for protocol in numbers.protocols() if _scored(protocol)]


def flat_rows(numbers: Numbers) -> list[dict[str, Any]]:
    """Every series with mean, interval and counts, values to 6 decimals: what report.csv holds."""
    rows = []
    for series in sorted({*numbers.values, *numbers.missing}):
        interval = numbers.interval(series)
        found = vars(interval) if interval else {"scenes": 0, "units": 0}
        rounded = {name: round(v, 6) if isinstance(v, float) else v for name, v in found.items()}
        key = {"key": numbers.keys.get(series.encoder, ""), "role": numbers.roles.get(series.encoder, "")}
        rows.append({**vars(series), **key, **rounded, "missing": numbers.missing[series]})
    return rows


def other_rows(numbers: Numbers) -> list[tuple[Series, Interval]]:
    """Series of protocols without a gap, such as those of other probes."""
    found = []
    for protocol in numbers.protocols():
        if not _scored(protocol):
            ids = (protocol.probe, protocol.name)
            found += [s for s in sorted(numbers.values) if s.encoder and (s.probe, s.protocol) == ids]
    return [(series, interval) for series in found if (interval := numbers.interval(series))]


def _scored(protocol: Protocol) -> bool:
    return "gap" in protocol.metrics()


def _section(protocol: Protocol, runs: list[Run]) -> Section:
    layers = rows_by_encoder(protocol)
    picked = [best_of(rows) for rows in layers.values()]
    views = {digest: members for run in runs for digest, members in run.views.items()}
    angles = {row.encoder: by_angle(protocol, row.encoder, row.layer, "corr") for row in picked}
    worst = [_worst(protocol, row, views) for row in picked if row.role in IMAGE_ROLES]
    return Section(
        probe=protocol.probe,
        protocol=protocol.name,
        layers=layers,
        angles={encoder: bins for encoder, bins in angles.items() if bins},
        ranking=ranking_of(protocol, layers),
        scenes=_scenes(protocol, picked),
        worst=tuple(item for items in worst for item in items),
        notes=_notes(protocol, picked),
    )


def _scenes(protocol: Protocol, rows: list[Row]) -> tuple[SceneRow, ...]:
    gaps = {row.encoder: by_scene(protocol.values(row.encoder, row.layer, "gap")) for row in rows}
    agreement = _depth_agreement(protocol.numbers)
    return tuple(
        SceneRow(
            scene=scene,
            sets=max(len(by.get(scene, ())) for by in gaps.values()),
            depth_agreement=agreement.get(scene),
            gaps={e: sum(by[scene]) / len(by[scene]) for e, by in gaps.items() if scene in by},
        )
        for scene in sorted({scene for by in gaps.values() for scene in by})
    )


def _depth_agreement(numbers: Numbers) -> dict[str, float]:
    """Of the scene alone, so the same for every protocol; the lowest of several preprocessings."""
    lowest: dict[str, float] = {}
    for series, values in numbers.values.items():
        if series.metric == "depth_agreement":
            for (scene, _), value in values.items():
                lowest[scene] = min(value, lowest.get(scene, value))
    return lowest


def _worst(protocol: Protocol, row: Row, views: dict[str, tuple[str, ...]]) -> list[WorstSet]:
    corr, noncorr, gap = (
        protocol.values(row.encoder, row.layer, metric) for metric in ("corr", "noncorr", "gap")
    )
    return [
        WorstSet(
            encoder=row.encoder,
            layer=row.layer,
            scene=scene,
            set=digest,
            views=views.get(digest[:16], ()),
            corr=corr[scene, digest],
            noncorr=noncorr[scene, digest],
            gap=gap[scene, digest],
        )
        for scene, digest in sorted(gap, key=lambda unit: (gap[unit], unit))[:WORST_SETS]
    ]


def _notes(protocol: Protocol, rows: list[Row]) -> tuple[str, ...]:
    notes = []
    scenes = min(row.gap.scenes for row in rows)
    if scenes < MIN_SCENES:
        notes.append(
            f"Only {scenes} scene{'s' * (scenes != 1)}: intervals are rough, and no marks of "
            f"significance are shown (they need {MIN_SCENES})."
        )
    if protocol.name == "reference":
        notes.append(
            "Kept for comparison with published numbers: it pools token points without the depth mask "
            "and counts sets without correspondences as 0, so its ceiling is lower than theirs."
        )
    if missing := max(row.missing for row in rows):
        notes.append(f"View sets left out because they have no correspondences: {missing:,}.")
    if silent := protocol.without_value():
        notes.append(f"Encoders without any value: {', '.join(silent)}.")
    return tuple(notes)
