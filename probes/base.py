"""The probe contract and the record: one row per unit and metric, the same for every probe."""

from __future__ import annotations

import json
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..store.selection import Selection


@dataclass(frozen=True, kw_only=True)
class Record:
    """One number with everything needed to trust and repeat it. A documented contract.

    Attributes:
        probe, protocol: e.g. `correspondence`, `voxel`.
        encoder, key: name and 12-digit feature key; empty for measures of the scene alone.
        layer: stored layer name; empty likewise.
        dataset, scene: scene is the full id `<dataset>/<scene>`.
        unit: `view`, `pair`, `set` or `scene`.
        set: digest of the view set (16 hex digits), empty for other units.
        metric: e.g. `corr`, `noncorr`, `corr_count`, `corr@30-60`, `recall_1`, `auc@0-30`.
        value: a finite number, or None where the measure does not exist (no correspondences).
        pairs: digest of the questions asked (which token pairs correspond); runs with other
            questions are not compared.
        covariates: numbers and words that explain the value, such as grid or view names.
        selection: fingerprint of the selection.
    """

    probe: str
    protocol: str
    encoder: str
    key: str
    layer: str
    dataset: str
    scene: str
    unit: str
    set: str
    metric: str
    value: float | None
    pairs: str = ""
    covariates: dict[str, Any] = field(default_factory=dict)
    selection: str = ""

    def to_json(self) -> str:
        """One line of `records.jsonl`; a value that is not finite becomes null."""
        value = self.value if self.value is not None and math.isfinite(self.value) else None
        return json.dumps({**vars(self), "value": value}, ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Record:
        return cls(**json.loads(line))


@dataclass(frozen=True, kw_only=True)
class Needs:
    """What a probe asks of a selection.

    Attributes:
        fields: stored fields beside tokens, e.g. `token_point_world`, `cam_from_world`, `depth_m`.
        unit: `view`, `pair` or `set`.
    """

    fields: frozenset[str] = frozenset()
    unit: str = "set"


class Probe(ABC):
    """A measurement on stored features; one file per probe."""

    name: str

    @abstractmethod
    def needs(self) -> Needs:
        """What a scene must offer; others are skipped with the reason."""

    @abstractmethod
    def evaluate(self, selection: Selection) -> Iterator[Record]:
        """All records of one scene of one encoder."""
