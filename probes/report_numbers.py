"""From records to numbers: series of values by unit, their intervals, and what each encoder is for."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, replace

from ..errors import ProbeError
from ..store.key import canonical_json
from ..store.layers import layer_order
from .base import Record
from .report_load import Run
from .statistics import Interval, Units, bootstrap_mean, by_scene

CEILINGS = {"oracle_world"}
FLOORS = {"oracle_constant", "oracle_position"}
SAME_VALUE = 1e-4
"""Two runs of one question agree to this; storage errors and devices move values less."""


@dataclass(frozen=True, kw_only=True, order=True)
class Series:
    """One metric of one layer of one encoder, over all units.

    Attributes:
        probe, protocol, layer, metric: as in the records.
        encoder: name, or `name@key` where runs hold several keys of that name; empty for measures of
            the scene alone.
    """

    probe: str
    protocol: str
    encoder: str
    layer: str
    metric: str


class Numbers:
    """All values of all runs. `gap` = corr - noncorr is added for every set that has both.

    Attributes:
        values: {series: {(scene, unit): value}}.
        missing: how many units of a series have no value.
        keys: {encoder: 12-digit feature key}.
        roles: {encoder: `ceiling`, `floor`, `oracle` (neither), `random` or `real`}.

    Raises:
        ProbeError: two runs give one question other values, or no value is left at all.
    """

    def __init__(self, runs: list[Run]) -> None:
        self.values: dict[Series, dict[tuple[str, str], float]] = defaultdict(dict)
        self.missing: Counter[Series] = Counter()
        self.keys: dict[str, str] = {}
        self.roles: dict[str, str] = {}
        self._intervals: dict[Series, Interval | None] = {}
        self._collect(runs)
        if runs and not self.values:
            raise ProbeError(
                "nothing is left to show.",
                where=", ".join(run.folder for run in runs),
                why=f"{sum(len(run.records) for run in runs):,} records, none with a value",
                fix="probe scenes whose views overlap, or give other folders",
            )
        for series in [series for series in self.values if series.metric == "corr"]:
            self._add_gap(series)

    def interval(self, series: Series) -> Interval | None:
        """Mean and interval, computed once; None where the series has no value."""
        if series not in self._intervals:
            values = self.values.get(series)
            self._intervals[series] = bootstrap_mean(by_scene(values)) if values else None
        return self._intervals[series]

    def protocols(self) -> list[Protocol]:
        """Those that score encoders; `visible` leads, the others stand beside it."""
        rank = {"visible": 0, "voxel": 1, "reference": 2}
        found = {(series.probe, series.protocol) for series in self.values if series.encoder}
        order = sorted(found, key=lambda pair: (pair[0], rank.get(pair[1], len(rank)), pair[1]))
        return [Protocol(numbers=self, probe=probe, name=name) for probe, name in order]

    def _collect(self, runs: list[Run]) -> None:
        without_value: set[tuple[Series, tuple[str, str]]] = set()
        labels = _labels(runs)
        for run in runs:
            for record in run.records:
                label = labels.get((record.encoder, record.key), "")
                if label:
                    self.keys[label] = record.key
                    self.roles[label] = _role(record, run)
                series, unit = _series(record, label), _unit(record)
                if record.value is None:
                    without_value.add((series, unit))
                else:
                    self._add(series, unit, record.value)
        self.missing.update(series for series, _ in without_value)

    def _add(self, series: Series, unit: tuple[str, str], value: float) -> None:
        known = self.values[series].setdefault(unit, value)
        if not math.isclose(known, value, abs_tol=SAME_VALUE, rel_tol=SAME_VALUE):
            scene, set_digest = unit
            raise ProbeError(
                f"two runs give {series.metric} of {series.encoder or scene} other values.",
                where=f"{series.probe} {series.protocol} {series.layer}, {scene}, set {set_digest}",
                why=f"{known:.6g} and {value:.6g} for the same feature key and set",
                fix="leave out the run that is out of date",
            )

    def _add_gap(self, corr: Series) -> None:
        noncorr = self.values.get(replace(corr, metric="noncorr"), {})
        gap = {unit: value - noncorr[unit] for unit, value in self.values[corr].items() if unit in noncorr}
        if gap:
            self.values[replace(corr, metric="gap")] = gap


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """The numbers of one probe under one protocol."""

    numbers: Numbers
    probe: str
    name: str

    def series(self, encoder: str, layer: str, metric: str) -> Series:
        return Series(probe=self.probe, protocol=self.name, encoder=encoder, layer=layer, metric=metric)

    def values(self, encoder: str, layer: str, metric: str) -> Units:
        return self.numbers.values.get(self.series(encoder, layer, metric), {})

    def interval(self, encoder: str, layer: str, metric: str) -> Interval | None:
        return self.numbers.interval(self.series(encoder, layer, metric))

    def encoders(self) -> list[str]:
        return sorted({series.encoder for series in self._all() if series.encoder})

    def without_value(self) -> list[str]:
        """Encoders that were asked, but on nothing that has an answer."""
        asked = {s.encoder for s in self.numbers.missing if (s.probe, s.protocol) == (self.probe, self.name)}
        return sorted(asked - {"", *self.encoders()})

    def layers(self, encoder: str) -> list[str]:
        """Layers with a value, shallow to deep."""
        return sorted({s.layer for s in self._all() if s.encoder == encoder}, key=depth_order)

    def metrics(self) -> list[str]:
        return sorted({series.metric for series in self._all()})

    def _all(self) -> list[Series]:
        return [s for s in self.numbers.values if (s.probe, s.protocol) == (self.probe, self.name)]


def depth_order(layer: str) -> tuple[int, int, str]:
    """`layer_order` for stored names: `norm@u8` is as deep as `norm`."""
    name, _, storage = layer.partition("@")
    rank, number, _ = layer_order(name)
    return rank, number, f"{name}@{storage}"


def _series(record: Record, label: str) -> Series:
    return Series(
        probe=record.probe,
        protocol=record.protocol,
        encoder=label,
        layer=record.layer,
        metric=record.metric,
    )


def _unit(record: Record) -> tuple[str, str]:
    """Scene and set; views and pairs are told apart by their covariate `views`.

    A number of a whole scene (how well its depth agrees) is one over the views of its sets: of other sets
    it is another, told apart by all its covariates.
    """
    views = record.covariates if record.unit == "scene" else record.covariates.get("views", "")
    return record.scene, record.set or (canonical_json(views) if views else "")


def _labels(runs: list[Run]) -> dict[tuple[str, str], str]:
    pairs = {(record.encoder, record.key) for run in runs for record in run.records if record.encoder}
    keys_of_name = Counter(name for name, _ in pairs)
    return {(name, key): f"{name}@{key}" if keys_of_name[name] > 1 else name for name, key in pairs}


def _role(record: Record, run: Run) -> str:
    if record.encoder in CEILINGS:
        return "ceiling"
    if record.encoder in FLOORS:
        return "floor"
    # Channels side by side carry the names of both: `vit_small+oracle_world`.
    if any(part.startswith("oracle_") for part in record.encoder.split("+")):
        return "oracle"
    return "random" if _random_weights(record, run) else "real"


def _random_weights(record: Record, run: Run) -> bool:
    """Said by the encoder's name, by the record, or by `provenance.weights` (by key or name)."""
    weights = run.provenance.get("weights")
    told = weights.get(record.key, weights.get(record.encoder)) if isinstance(weights, dict) else ""
    said = (record.covariates.get("weights"), told)
    named = all("random" in part for part in record.encoder.split("+"))
    return named or any(str(word).startswith("random") for word in said)
