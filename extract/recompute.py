"""`strata store verify --recompute N`: some views are extracted again and compared with what is stored.

Shapes: R C token rows and columns, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from ..configs.schema import VerifyConfig
from ..errors import ConfigError, SceneError, SelectionError, ShardError, StoreError, StoreMismatchError
from ..progress import Progress
from ..store.block import Block
from ..store.feature_store import FeatureStore
from ..store.maintain.report import Report
from ..store.remote.path import written
from ..store.stored_key import StoredKey
from ..store.view_groups import layer_group
from .encoders.base import Encoder, FeatureMap
from .encoders.registry import create
from .forward import encode, missing_field
from .packed_scene import PackedScene
from .prepare import PreparedView, Request, prepare
from .run import resolve_device
from .shards import ShardIndex

STORAGE_ERROR = {"f32": 1e-4, "f16": 2**-9, "bf16": 2**-6, "u8": 2**-4}
COMPUTE_ERROR = {"float32": 1e-4, "float16": 2**-7, "bfloat16": 2**-4}
"""Largest relative distances of a token that rounding explains: of storage, and of passes on other devices,
libraries or batches."""


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A view that is extracted again: place `i` of a block."""

    block: Block
    i: int


def recompute(
    report: Report,
    config: VerifyConfig,
    count: int,
    progress: Progress,
    encoder: Encoder | None = None,
    *,
    index: ShardIndex,
) -> None:
    """Extract `count` views of each key again; deviations and faults go into the report.

    The deviation of a layer is the largest |stored - again| / |again| of a token, where |again| is at least
    the mean of its view: 2-norms over channels.

    Args:
        encoder: to use instead of the one that the key names (for one of your own).
        index: the packed images.

    Raises:
        StrataError: the shards or the weights cannot be had.
    """
    store = FeatureStore.open(report.root)
    packed = {scene.id: scene for scene in index.scenes}
    device = resolve_device(config.device)
    for stored in _keys(store, config.encoder):
        chosen = _spread(store, stored, count)
        own = _encoder(stored, chosen, config, encoder).to(device, getattr(torch, stored.key.compute))
        _Comparison(report, stored, own, device, packed).run(chosen, progress)


def _keys(store: FeatureStore, asked: str | None) -> list[StoredKey]:
    keys = [store.stored_key(asked)] if asked else store.keys()
    # Features of sets and derived ones are not made of a view alone.
    return [stored for stored in keys if stored.key.context == "view" and stored.key.derived is None]


def _spread(store: FeatureStore, stored: StoredKey, count: int) -> list[Chosen]:
    """Views spread evenly over all that have features."""
    try:
        blocks = store.select(stored.name).parts
    except SelectionError:
        return []
    every = [Chosen(block=block, i=i) for block in blocks for i in range(len(block))]
    few = min(count, len(every))
    return [every[k * len(every) // few] for k in range(few)]


def _encoder(stored: StoredKey, chosen: list[Chosen], config: VerifyConfig, own: Encoder | None) -> Encoder:
    made = own or create(stored.key.encoder, config.weights or _weights(chosen), stored.key.stride)
    found = made.weights_digest()
    if found != stored.key.weights:
        raise StoreMismatchError(
            f"the weights are not those that {stored.name} was made with.",
            where=f"weights={config.weights or 'as stored'}",
            why=f"their digest is {found[:12]}, the key says {stored.key.weights[:12]}",
            fix="give weights= the checkpoint of then",
        )
    return made


def _weights(chosen: list[Chosen]) -> str:
    """What the features say they were made with; a path is not kept."""
    words = {c.block.provenance(layer).get("weights", "hub") for c in chosen[:1] for layer in c.block.layers}
    word = min(words, default="hub")
    if word != "hub" and not word.startswith("random:"):
        raise ConfigError(
            f"the features were made with the checkpoint {word}.",
            where="weights",
            why="a store keeps the name of a checkpoint, and not where it lies",
            fix=f"write weights=PATH/{word}",
        )
    return word


@dataclass(frozen=True, kw_only=True)
class _Maps:
    """[R * C, D] tokens and [T, D] prefix tokens of a view, one above the other, f32."""

    values: np.ndarray

    @classmethod
    def of(cls, feature: FeatureMap) -> _Maps:
        parts = [feature.tokens] if feature.prefix is None else [feature.tokens, feature.prefix]
        flat = [part[0, 0].float().cpu().numpy().reshape(-1, part.shape[-1]) for part in parts]
        return cls(values=np.concatenate(flat))

    def deviation(self, stored: np.ndarray) -> float:
        """The largest relative distance of a token; see `recompute`."""
        norms = np.linalg.norm(self.values, axis=1)
        scale = np.maximum(norms, max(float(norms.mean()), 1e-12))
        return float((np.linalg.norm(stored - self.values, axis=1) / scale).max())


class _Comparison:
    """Of the views of one key."""

    def __init__(
        self, report: Report, stored: StoredKey, encoder: Encoder, device: str, packed: dict[str, PackedScene]
    ) -> None:
        self.report, self.stored, self.encoder = report, stored, encoder
        self.device, self.packed = device, packed
        self.largest: dict[str, float] = {}
        self.views, self.skipped = 0, 0

    def run(self, chosen: list[Chosen], progress: Progress) -> None:
        for choice in chosen:
            view = self._prepared(choice)
            if view is None:
                self.skipped += 1
            else:
                self.views += 1
                for layer, deviation in self._deviations(choice, view):
                    self._judge(choice, layer, deviation)
            progress.advance()
        self.report.recomputed[self.stored.name] = {
            "views": self.views,
            "skipped": self.skipped,
            "largest_deviation": self.largest,
        }

    def _prepared(self, choice: Chosen) -> PreparedView | None:
        """The view, unless the shards have it otherwise than the features do."""
        block, needs = choice.block, self.encoder.info.needs
        scene = self.packed.get(block.scene)
        if scene is None or scene.digest != block.scene_row.digest:
            return None
        request = Request(
            preprocess=self.stored.key.preprocess,
            grid=block.grid,
            patch=self.encoder.info.patch_size,
            stride=self.stored.key.stride,
            points="token_point_world" in needs,
            depth="depth_m" in needs,
        )
        try:
            view = prepare(scene, scene.views[block.positions[choice.i]], request)
        except (SceneError, ShardError):
            return None
        return None if missing_field(view, needs) else view

    def _deviations(self, choice: Chosen, view: PreparedView) -> Iterator[tuple[str, float]]:
        block, layers = choice.block, tuple(choice.block.layers)
        for layer, feature in encode(self.encoder, [[view]], layers, self.device).items():
            try:
                parts = [block.tokens(layer, [choice.i])]
                parts += [block.prefix(layer, [choice.i])] if block.prefix_names(layer) else []
            except StoreError:
                continue  # it was named when its bytes were looked at
            flat = [part[0].astype(np.float32).reshape(-1, part.shape[-1]) for part in parts]
            yield layer, _Maps.of(feature).deviation(np.concatenate(flat))

    def _judge(self, choice: Chosen, layer: str, deviation: float) -> None:
        self.largest[layer] = max(self.largest.get(layer, 0.0), deviation)
        storage = choice.block.layers[layer]
        limit = max(STORAGE_ERROR[storage], COMPUTE_ERROR[self.stored.key.compute])
        if deviation <= limit:
            return
        block, place = choice.block, choice.block.places[layer]
        row = place.rows[choice.i]
        group = layer_group(block.store, self.stored, place.bundle, layer, storage)
        folder, spec = written(group.folder), group.array("tokens").spec
        shard = folder / "tokens" / spec.file(row // spec.unit)
        what = f"row {row} deviates by {deviation:.2g} from what is extracted again, more than {limit:.2g}."
        self.report.fault(shard, "numbers", what, [folder / "zarr.json", shard])
