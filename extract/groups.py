"""The groups that a bundle gets under one extraction: layers, images, geometry and points.

Unit sizes follow docs/store-format.md: views per shard = clamp(1 GiB / bytes of a view over all
arrays written together, 1, 2048), and at most 256 MB a shard; `unit_views=` overrides both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..store.key import FeatureKey
from ..store.layout import (
    GroupSpec,
    image_group,
    layer_group,
    layer_view_bytes,
    points_group,
    shard_views,
    unit_views,
    view_geometry_group,
)
from ..store.schema import Bundle
from .encoders.base import Encoder
from .packed_scene import PackedScene


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """Specs of groups for any bundle.

    Attributes:
        key: of the features.
        encoder: their encoder.
        storages: by layer.
        views: all | geometry | none, what is kept of the views.
        unit_views: views per shard, None = by size.
        packed: scenes by id, for their scales.
    """

    key: FeatureKey
    encoder: Encoder
    storages: Mapping[str, str]
    views: str
    unit_views: int | None
    packed: Mapping[str, PackedScene]

    def layers(self, bundle: Bundle) -> dict[str, GroupSpec]:
        """By layer."""
        tokens = bundle.grid[0] * bundle.grid[1]
        prefix = len(self.encoder.prefix_names())
        sizes = {
            layer: layer_view_bytes(storage, tokens, prefix, self.encoder.width(layer))
            for layer, storage in self.storages.items()
        }
        together = unit_views(sum(sizes.values()))
        unit = self._unit(bundle, min(shard_views(together, size) for size in sizes.values()))
        needs_geometry = self.encoder.needs_geometry
        return {
            layer: layer_group(
                self.key,
                bundle,
                layer,
                storage=storage,
                width=self.encoder.width(layer),
                prefix=prefix,
                unit=unit,
                needs_geometry=needs_geometry,
                attributes=self.geometry_attributes(bundle) if needs_geometry else {},
            )
            for layer, storage in self.storages.items()
        }

    def others(self, bundle: Bundle) -> dict[str, GroupSpec]:
        """`images`, `geometry` and `points`, as far as they are kept."""
        preprocess, info = self.key.preprocess, self.encoder.info
        patch, stride, size = info.patch_size, info.stride, info.pixels(bundle.grid)
        pixels = size[0] * size[1]
        unit = self._unit(bundle, shard_views(unit_views(8 * pixels), 4 * pixels))
        attributes = self.geometry_attributes(bundle)
        keep_images = self.views == "all"
        images = image_group(preprocess, patch, bundle, size, unit, images=keep_images, stride=stride)
        points = points_group(preprocess, patch, bundle, unit, attributes, stride)
        if self.views == "none":
            return {"images": images, "points": points}
        geometry = view_geometry_group(preprocess, patch, bundle, size, unit, attributes, stride)
        return {"images": images, "geometry": geometry, "points": points}

    def geometry_attributes(self, bundle: Bundle) -> dict[str, Any]:
        """What geometry a group was made from: each scene's digest and scale."""
        scales = {row.id: self.packed[row.id].scene_scale_m for row in bundle.scenes if row.id in self.packed}
        return {
            "scene_geometry": {row.id: row.geometry for row in bundle.scenes},
            "scene_scale_m": scales,
        }

    def _unit(self, bundle: Bundle, by_size: int) -> int:
        # A bundle smaller than a unit is one shard of its own size: no empty index entries.
        # Views of a set are encoded together, and so written together.
        whole = max(1, (self.unit_views or by_size) // bundle.together) * bundle.together
        return min(len(bundle), whole)
