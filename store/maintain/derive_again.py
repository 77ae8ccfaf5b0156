"""Derived features that are computed again from what they were derived from, as their key tells.

Shapes: R C token rows and columns, D channels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from ...errors import SelectionError, StrataError
from ..block import Block
from ..derived import Concat, Function, Project, UnitLength
from ..feature_store import FeatureStore
from ..pca_fit import Basis
from ..set_runs import set_digest
from ..stored_key import StoredKey
from ..view_groups import layer_group
from .deviations import STORAGE_ERROR, Deviations

_DERIVED = re.compile(r"(l2|concat|pca)\(([0-9a-f]{12})(?:,([0-9a-f]{12}))?[,)]")
ARITHMETIC_ERROR = 1e-4
"""Relative, of sums in f32 in another order."""

Place = tuple[Block, int]
View = tuple[str, int, str, str]
"""Scene id, position in it, digest of its image, digest of its set or an empty string."""


def derive_again(store: FeatureStore, stored: StoredKey, chosen: list[Place], found: Deviations) -> None:
    """Compare views of a derived key with what its sources give.

    Args:
        store: that holds the key and what it was derived from.
        stored: the key.
        chosen: (block, place in it) of the views.
        found: gets the deviations, and what cannot be compared.
    """
    match = _DERIVED.match(stored.key.derived or "")
    if not match:
        found.say(f"derived={stored.key.derived}: not known how")
        return
    kind, names = match[1], [name for name in match.groups()[1:] if name]
    keys = {key.key.id: key for key in store.keys()}
    if absent := [name for name in names if name not in keys]:
        found.say(f"key {', '.join(absent)} is not in the store, and it was derived from that")
        return
    if kind == "pca":
        found.say("the components themselves: which views they were fitted on is not kept")
    sources = _Sources(store, [keys[name] for name in names])
    for block, i in chosen:
        try:
            for layer in block.layers:
                function = _function(kind, store, stored, block, layer)
                again, error = sources.derived(block, i, layer, function)
                found.judge(block, i, layer, again, max(error, ARITHMETIC_ERROR))
            found.compared()
        except StrataError as error:
            found.leave_out(error.what)


def _function(kind: str, store: FeatureStore, stored: StoredKey, block: Block, layer: str) -> Function:
    if kind == "l2":
        return UnitLength()
    if kind == "concat":
        return Concat()
    group = layer_group(store, stored, block.places[layer].bundle, layer, block.layers[layer])
    try:
        return Project(Basis.from_dict(group.attributes["pca"]))
    except (KeyError, TypeError, ValueError) as error:
        raise SelectionError(f"the components of {layer} are not kept with it: {error}.") from None


class _Sources:
    """The keys that features were derived from."""

    def __init__(self, store: FeatureStore, keys: list[StoredKey]) -> None:
        self._store, self._keys = store, keys
        self._views = lru_cache(maxsize=8)(self._views_of)

    def derived(self, block: Block, i: int, layer: str, function: Function) -> tuple[np.ndarray, float]:
        """([R * C, D] f32, the relative error of its sources) of a view.

        Raises:
            SelectionError: a source does not have it.
        """
        names, tokens, error = self._layers(layer), [], 0.0
        for number, (key, name) in enumerate(zip(self._keys, names, strict=True)):
            views = self._views(number, block.scene, name)
            of_set = set_digest(block.bundle, block.scene_row) if key.key.context == "set" else ""
            if (*_view(block, i), of_set) not in views:
                raise SelectionError(f"{key.name} has no features of the view.")
            source, j = views[*_view(block, i), of_set]
            tokens.append(source.tokens(name, [j])[0].astype(np.float32, copy=False))
            error = max(error, *(STORAGE_ERROR[kind] for kind in self._storages(number, source, name)))
        made = function(tokens)
        return made.reshape(-1, made.shape[-1]), error

    def _layers(self, layer: str) -> tuple[str, ...]:
        """The source layers, one of each key: `a+b` is of `a` and `b`, which may be joined themselves."""
        if len(self._keys) == 1:
            return (layer,)
        words = layer.split("+")
        for cut in range(1, len(words)):
            pair = "+".join(words[:cut]), "+".join(words[cut:])
            if all(name in key.layers for name, key in zip(pair, self._keys, strict=True)):
                return pair
        raise SelectionError(f"the sources do not have the layers of {layer}.")

    def _storages(self, number: int, source: Block, layer: str) -> tuple[str, ...]:
        """All it is stored as: which of them it was derived from is not kept."""
        return self._keys[number].bundles.find(source.places[layer].bundle)[1][layer]

    def _views_of(self, number: int, scene: str, layer: str) -> Mapping[View, Place]:
        parts = self._store.select(self._keys[number].name, scene=scene, layers=[layer]).parts
        return {
            (*_view(block, i), set_digest(block.bundle, block.scene_row)): (block, i)
            for block in parts
            for i in range(len(block))
        }


def _view(block: Block, i: int) -> tuple[str, int, str]:
    return block.scene, block.positions[i], block.image_digests[i]
