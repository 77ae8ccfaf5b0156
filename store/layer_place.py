"""Where one layer of some views lies."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .feature_store import FeatureStore
from .layer_tokens import LayerTokens
from .schema import Bundle
from .stored_key import StoredKey
from .view_groups import layer_group


@dataclass(frozen=True, kw_only=True)
class LayerPlace:
    """Where one layer of a block's views lies: often in the block's own bundle, else in another.

    Attributes:
        bundle: whose group it is.
        rows: of that bundle, in the order of the block's views.
        storage: f32 | f16 | bf16 | u8.
    """

    bundle: Bundle
    rows: tuple[int, ...]
    storage: str

    @cached_property
    def row_array(self) -> np.ndarray:
        """[V] int64 of the rows."""
        return np.array(self.rows, np.int64)

    @property
    def origin(self) -> tuple:
        """Places of one origin count their rows alike."""
        return self.bundle.id, self.storage

    def open(self, store: FeatureStore, stored: StoredKey, layer: str) -> LayerTokens:
        """The reader of the layer."""
        return LayerTokens(layer_group(store, stored, self.bundle, layer, self.storage), self.storage)
