"""What is packed, as values: a scene that was read without fault, and the files it becomes.

In a tar, under `<dataset>/<scene>/`:

    000017-DSC_0286.image.jpg  .depth.exr  .mask_<name>.png  .camera.json      the view at position 17
    scene-0000.scene.json  scene-0000.covisibility.npy                         a header, see pack_plan.py

webdataset takes what stands before the first dot as the key of a sample, so keys have no dots.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from ..store.key import canonical_json
from ..store.schema import scene_digest
from .scenes.scene import Blob, SourceImage, View
from .tar_write import tar_member_bytes


@dataclass(frozen=True, kw_only=True, eq=False)
class Member:
    """One file of a tar: where its bytes come from, and what they were when they were checked."""

    blob: Blob
    size: int
    sha256: str

    @classmethod
    def of_bytes(cls, data: bytes, suffix: str) -> Member:
        return cls(
            blob=Blob(suffix=suffix, data=data), size=len(data), sha256=hashlib.sha256(data).hexdigest()
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedView:
    """A view whose image, depth and masks were decoded without fault.

    Attributes:
        view: as it is packed.
        width, height: pixels of the packed image once decoded, its orientation applied.
        image_digest, geometry_digest: sha256 hex; see docs/store-format.md.
    """

    view: View
    width: int
    height: int
    image_digest: str
    geometry_digest: str
    image: Member
    depth: Member | None = None
    masks: dict[str, Member] = field(default_factory=dict)

    @cached_property
    def members(self) -> dict[str, Member]:
        """All members by what follows the key, in the order of the tar."""
        return {
            f"image.{escaped(self.view.image.suffix)}": self.image,
            **({"depth.exr": self.depth} if self.depth else {}),
            **{f"mask_{escaped(name)}.png": self.masks[name] for name in sorted(self.masks)},
            "camera.json": Member.of_bytes(canonical_json(self._camera()).encode(), "json"),
        }

    def _camera(self) -> dict[str, Any]:
        return {
            "name": self.view.name,
            "K_px": _listed(self.view.K_px),
            "world_from_cam": _listed(self.view.world_from_cam),
            "orientation": self.view.orientation,
            "width": self.width,
            "height": self.height,
            "image_digest": self.image_digest,
            "geometry_digest": self.geometry_digest,
            # Only where there is one, so that views without keep the bytes they always had.
            **({} if self.view.far_percentile is None else {"far_percentile": self.view.far_percentile}),
            **self._source_camera(),
        }

    def _source_camera(self) -> dict[str, Any]:
        source = self.view.source
        if source is None:
            return {}
        return {"source": {**(source_record(source) or {}), "K_px": _listed(source.K_px)}}

    def record(self, key: str, offsets: dict[str, int]) -> dict[str, Any]:
        """The view's entry of the index, given where each member's data begins."""
        spans = {suffix: [offsets[f"{key}.{suffix}"], m.size] for suffix, m in self.members.items()}
        view = self.view
        return {
            "name": view.name,
            "image_digest": self.image_digest,
            "geometry_digest": self.geometry_digest,
            "width": self.width,
            "height": self.height,
            "orientation": view.orientation,
            "image": [*spans[f"image.{escaped(view.image.suffix)}"], view.image.suffix],
            "depth": spans.get("depth.exr"),
            "masks": {name: spans[f"mask_{escaped(name)}.png"] for name in self.masks},
            "camera": spans["camera.json"],
            "has_camera": view.K_px is not None and view.world_from_cam is not None,
            **({} if view.source is None else {"source": source_record(view.source)}),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class CheckedScene:
    """A scene without a fault.

    Attributes:
        scene_scale_m: median positive depth in source units (metres where the scene is metric), or
            None without depth.
        covisibility: [N, N] f32 as .npy, or None.
    """

    id: str
    scale_type: str | None
    rules: int
    scene_scale_m: float | None
    covisibility: Member | None
    views: tuple[CheckedView, ...]

    @property
    def folder(self) -> str:
        """`<dataset>/<scene>`, the first part of every key."""
        dataset, _, scene = self.id.partition("/")
        return f"{escaped(dataset)}/{escaped(scene)}"

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What the index and every header say of the whole scene."""
        return {
            "id": self.id,
            "digest": scene_digest([(view.view.name, view.image_digest) for view in self.views]),
            "scale_type": self.scale_type,
            "rules": self.rules,
            "scene_scale_m": self.scene_scale_m,
        }

    def view_key(self, position: int) -> str:
        return f"{self.folder}/{position:06d}-{escaped(self.views[position].view.name)}"

    def view_bytes(self, position: int) -> int:
        """What a view takes in a tar."""
        key, members = self.view_key(position), self.views[position].members
        return sum(tar_member_bytes(f"{key}.{suffix}", member.size) for suffix, member in members.items())


def source_record(source: SourceImage | None) -> dict[str, Any] | None:
    """What index and camera say of the image that a smaller one was made from."""
    names = ("width", "height", "image_digest", "geometry_digest")
    return None if source is None else {name: getattr(source, name) for name in names}


def escaped(name: str) -> str:
    """A name with every character outside [A-Za-z0-9_-] percent-escaped, so without dots or slashes.

    A leading `__` is escaped too: webdataset leaves names such as `__this__` out.
    """
    safe = re.sub(rb"[^A-Za-z0-9_-]|^_(?=_)", lambda match: b"%%%02X" % match[0][0], name.encode())
    return safe.decode("ascii")


def _listed(array: np.ndarray | None) -> list | None:
    return None if array is None else np.asarray(array, np.float64).tolist()
