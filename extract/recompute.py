"""`strata store verify --recompute N`: some views are made again and compared with what is stored.

Features of an encoder are extracted again from the packed images, of views alone or of whole sets; derived
ones are computed again from what they were derived from.

Shapes: T prefix tokens, R C token rows and columns, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from ..configs.schema import VerifyConfig
from ..errors import ConfigError, SceneError, ShardError, StoreMismatchError
from ..progress import Progress
from ..store.block import Block
from ..store.feature_store import FeatureStore
from ..store.maintain.derive_again import derive_again
from ..store.maintain.deviations import Deviations, compared_layers
from ..store.maintain.report import Report
from ..store.schema import ViewRow, scene_geometry
from ..store.selection import Selection
from ..store.stored_key import StoredKey
from .encoders.base import Encoder, FeatureMap
from .encoders.registry import create
from .forward import encode, missing_field
from .packed_scene import PackedScene
from .prepare import PreparedView, Request, prepare
from .run import resolve_device
from .shards import ShardIndex

COMPUTE_ERROR = {"float32": 1e-4, "float16": 2**-7, "bfloat16": 2**-4}
"""Largest relative distances of a token that passes on other devices, libraries or batches explain."""

Place = tuple[Block, int]
"""A view: its block and its place in it."""


def asked_keys(store: FeatureStore, asked: str | None) -> list[StoredKey]:
    """The keys that are recomputed."""
    return [store.stored_key(asked)] if asked else store.keys()


def recompute(
    report: Report,
    config: VerifyConfig,
    count: int,
    progress: Progress,
    encoder: Encoder | None = None,
    *,
    index: ShardIndex | None,
) -> None:
    """Make `count` views of each key again; deviations and faults go into the report.

    Of features of whole sets, so many sets are encoded again as have `count` views.

    Args:
        encoder: to use instead of the one that the key names (for one of your own).
        index: the packed images; None where only derived features are asked for.

    Raises:
        StrataError: the weights cannot be had.
    """
    store = FeatureStore.open(report.root)
    for stored in asked_keys(store, config.encoder):
        found = Deviations(report, stored)
        selection = compared_layers(store, stored, found.say)
        chosen = [] if selection is None else _spread(selection, count)
        if stored.key.derived is not None:
            derive_again(store, stored, chosen, found)
        elif chosen:
            assert index is not None
            device = resolve_device(config.device)
            own = _encoder(stored, chosen, config, encoder).to(device, getattr(torch, stored.key.compute))
            _Extraction(stored, own, device, index, found).run(chosen)
        found.finish()
        progress.advance(count)


def _spread(selection: Selection, count: int) -> list[Place]:
    """Views spread evenly over all that have features; whole sets where views are seen in sets."""
    every: list[list[Place]] = []
    for block in selection.parts:
        views = [(block, i) for i in range(len(block))]
        together = selection.key.context == "set" and selection.key.derived is None
        every += [views] if together and views else [[view] for view in views]
    size = len(every[0]) if every else 1
    few = min(-(-count // size), len(every))
    return [view for k in range(few) for view in every[k * len(every) // few]]


def _encoder(
    stored: StoredKey, chosen: Sequence[Place], config: VerifyConfig, own: Encoder | None
) -> Encoder:
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


def _weights(chosen: Sequence[Place]) -> str:
    """What the features say they were made with; a path is not kept."""
    block = chosen[0][0]
    words = {block.provenance(layer).get("weights", "hub") for layer in block.layers}
    word = min(words, default="hub")
    if word != "hub" and not word.startswith("random:"):
        raise ConfigError(
            f"the features were made with the checkpoint {word}.",
            where="weights",
            why="a store keeps the name of a checkpoint, and not where it lies",
            fix=f"write weights=PATH/{word}",
        )
    return word


class _Extraction:
    """Of the views of one key, from the packed images."""

    def __init__(
        self, stored: StoredKey, encoder: Encoder, device: str, index: ShardIndex, found: Deviations
    ) -> None:
        self.stored, self.encoder, self.device, self.found = stored, encoder, device, found
        self.packed = {scene.id: scene for scene in index.scenes}

    def run(self, chosen: Sequence[Place]) -> None:
        of_sets, seen = self.stored.key.context == "set", set[int]()
        for block, i in chosen:
            if not of_sets:
                self._compare(block, [i], block.views[i : i + 1], block.rows[i])
            elif id(block) not in seen:
                seen.add(id(block))
                row = block.scene_row
                members = block.store.catalog.scene_views(block.bundle, row)
                self._compare(block, range(len(block)), members, row.start)

    def _compare(self, block: Block, places: Sequence[int], members: Sequence[ViewRow], first: int) -> None:
        """Encode views together, the first of them that of row `first`, and judge those of some places."""
        try:
            views = self._prepared(block, members)
        except (SceneError, ShardError) as error:
            self.found.leave_out(error.what, len(places))
            return
        maps = encode(self.encoder, [views], tuple(block.layers), self.device)
        for i in places:
            for layer, feature in maps.items():
                again = _tokens(feature, block.rows[i] - first)
                self.found.judge(block, i, layer, again, COMPUTE_ERROR[self.stored.key.compute])
            self.found.compared()

    def _prepared(self, block: Block, members: Sequence[ViewRow]) -> list[PreparedView]:
        """The views as the encoder sees them.

        Raises:
            SceneError, ShardError: the shards do not have them as the features do.
        """
        scene, needs = self._scene(block), self.encoder.info.needs
        request = Request(
            preprocess=self.stored.key.preprocess,
            grid=block.grid,
            patch=self.encoder.info.patch_size,
            stride=self.stored.key.stride,
            points="token_point_world" in needs,
            depth="depth_m" in needs,
        )
        views = [prepare(scene, scene.views[member.position], request) for member in members]
        lacking = [lacks for view in views if (lacks := missing_field(view, needs))]
        if lacking:
            raise SceneError(f"the shards have no {lacking[0]} of it.")
        return views

    def _scene(self, block: Block) -> PackedScene:
        scene = self.packed.get(block.scene)
        if scene is None:
            raise SceneError("the shards do not have the scene.")
        if scene.digest != block.scene_row.digest:
            raise SceneError("the shards have other images of the scene.")
        geometry = scene_geometry(scene.geometry_digests)
        if self.encoder.needs_geometry and geometry != block.scene_row.geometry:
            raise SceneError("the shards have another geometry of the scene.")
        return scene


def _tokens(feature: FeatureMap, view: int) -> np.ndarray:
    """[R * C + T, D] f32 of a view of the only set: prefix tokens behind the others."""
    parts = [feature.tokens] if feature.prefix is None else [feature.tokens, feature.prefix]
    flat: Iterator[np.ndarray] = (
        part[0, view].float().cpu().numpy().reshape(-1, part.shape[-1]) for part in parts
    )
    return np.concatenate(list(flat))
