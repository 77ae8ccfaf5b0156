"""How far stored tokens are from those that are made again, and what could not be compared.

Shapes: N tokens, prefix tokens included, D channels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from ...errors import SelectionError, StoreError, first_few
from ..block import Block
from ..feature_store import FeatureStore
from ..remote.path import written
from ..selection import Selection
from ..stored_key import StoredKey
from ..view_groups import layer_group
from .report import Report

STORAGE_ERROR = {"f32": 1e-4, "f16": 2**-9, "bf16": 2**-6, "u8": 2**-4}
"""Largest relative distances of a token that rounding explains."""


class Deviations:
    """Of one key; faults go into the report.

    The deviation of a layer is the largest |stored - again| / |again| of a token, where |again| is at least
    the mean of its view: 2-norms over channels.

    Args:
        report: of the store.
        stored: the key.
    """

    def __init__(self, report: Report, stored: StoredKey) -> None:
        self._report, self._stored = report, stored
        self._largest: dict[str, float] = {}
        self._views = 0
        self._left_out: Counter[str] = Counter()
        self._not_compared: list[str] = []

    def compared(self) -> None:
        """Count a view of which at least one layer was compared."""
        self._views += 1

    def leave_out(self, why: str, views: int = 1) -> None:
        """Views that were chosen and cannot be made again."""
        self._left_out[why] += views

    def say(self, what: str) -> None:
        """Something of the key that no choice of views compares."""
        self._not_compared.append(what)

    def judge(self, block: Block, i: int, layer: str, again: np.ndarray, other_error: float) -> None:
        """Compare a view of a block with what was made again.

        Args:
            block, i, layer: what is compared.
            again: [N, D] f32.
            other_error: that is no fault either, beside that of the storage.
        """
        try:
            parts = [block.tokens(layer, [i])]
            parts += [block.prefix(layer, [i])] if block.prefix_names(layer) else []
        except StoreError:
            return  # it was named when its bytes were looked at
        stored = np.concatenate([one[0].astype(np.float32).reshape(-1, one.shape[-1]) for one in parts])
        deviation = _deviation(stored, again)
        self._largest[layer] = max(self._largest.get(layer, 0.0), deviation)
        limit = max(STORAGE_ERROR[block.layers[layer]], other_error)
        if not deviation <= limit:
            self._fault(block, i, layer, f"deviates by {deviation:.2g} from what is made again", limit)

    def finish(self) -> None:
        """Put what was found into the report."""
        left_out = [f"{views:,} views: {why}" for why, views in self._left_out.items()]
        self._report.recomputed[self._stored.name] = {
            "views": self._views,
            "skipped": sum(self._left_out.values()),
            "largest_deviation": self._largest,
            "not_compared": [*left_out, *self._not_compared],
        }

    def _fault(self, block: Block, i: int, layer: str, what: str, limit: float) -> None:
        place = block.places[layer]
        row = place.rows[i]
        group = layer_group(block.store, self._stored, place.bundle, layer, block.layers[layer])
        folder, spec = written(group.folder), group.array("tokens").spec
        shard = folder / "tokens" / spec.file(row // spec.unit)
        what = f"row {row} {what}, more than {limit:.2g}."
        self._report.fault(shard, "numbers", what, [folder / "zarr.json", shard])


def compared_layers(store: FeatureStore, stored: StoredKey, say: Callable[[str], None]) -> Selection | None:
    """All views that have the key's layers, as far as they have the same; what is not in it is said.

    Raises:
        StoreError: a document is damaged.
    """
    try:
        selection = store.select(stored.name)
    except SelectionError as error:
        say(error.what)
        return None
    if some := [layer for layer in stored.layers if layer not in selection.layers]:
        say(f"{first_few(some)}: stored for some of the scenes only")
    if selection.stale:
        say(f"{first_few(selection.stale)}: the features are of an older version of the scene")
    others = _other_storages(stored, selection)
    if others:
        say(f"{first_few(others)}: the same layer is stored more exactly, too, and that is compared")
    return selection


def _other_storages(stored: StoredKey, selection: Selection) -> list[str]:
    chosen = {(layer, kind) for block in selection.parts for layer, kind in block.layers.items()}
    there = {
        (layer, kind) for layers in stored.bundles.values() for layer in layers for kind in layers[layer]
    }
    return sorted(f"{layer}@{kind}" for layer, kind in there - chosen if layer in selection.layers)


def _deviation(stored: np.ndarray, again: np.ndarray) -> float:
    norms = np.linalg.norm(again, axis=1)
    scale = np.maximum(norms, max(float(norms.mean()), 1e-12))
    return float((np.linalg.norm(stored - again, axis=1) / scale).max())
