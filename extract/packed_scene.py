"""Packed scenes and views as values: where their bytes lie in the shards, and how they come back.

Shapes: N views of a scene. Frames and units: see scenes/scene.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ShardError, StoreError
from ..kernels.geometry import resized_from_original_px
from .npy import read_npy
from .pack_plan import entry_digest
from .packed_folder import INDEX, PACK_AGAIN
from .scenes.scene import Blob, Scene, View

# What reading JSON of a wrong shape leads to.
MALFORMED = (
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    AttributeError,
    OverflowError,
    RecursionError,
    StoreError,
)

_PLAIN = ("name", "image_digest", "geometry_digest", "width", "height", "orientation", "has_camera")


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One tar: its path, its length in bytes, its sha256."""

    path: Path
    bytes: int
    sha256: str

    def part(self, suffix: str, offset: int, size: int) -> Blob:
        """The bytes of one member.

        Raises:
            ValueError: they lie outside the file.
        """
        if not 0 <= offset <= offset + size <= self.bytes:
            raise ValueError(f"bytes {offset}:{offset + size} lie outside {self.path.name}")
        return Blob(suffix=suffix, path=self.path, offset=offset, size=size)


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedView:
    """One view as the index knows it; nothing of it is read before `view()`.

    Attributes:
        name: frame name, unique in its scene.
        position: index in the scene, from 0.
        image_digest, geometry_digest: sha256 hex; see docs/store-format.md.
        width, height: pixels of the upright image.
        source_size: (width, height) of the source's image, which is larger if it was made smaller.
        source_digest: image digest of the source's image, where it was made smaller.
        orientation: EXIF orientation to apply on decoding, 1 = as stored.
        has_camera: whether K_px and world_from_cam are both there.
        image, depth, masks, camera: where the bytes lie.
    """

    name: str
    position: int
    image_digest: str
    geometry_digest: str
    width: int
    height: int
    orientation: int
    has_camera: bool
    image: Blob
    depth: Blob | None
    masks: dict[str, Blob]
    camera: Blob
    source_size: tuple[int, int]
    source_digest: str | None = None

    def verified(self, scene: PackedScene) -> View:
        """The view with all its bytes in memory, which are those that were packed.

        Args:
            scene: the one it belongs to.

        Raises:
            SceneError: the shard cannot be read any more.
            ShardError: the bytes are others.
        """
        held = self.view().held()
        digests = held.image_digest, held.geometry_digest(scene.scale_type, scene.rules)
        if digests != (self.image_digest, self.geometry_digest):
            error = ValueError("image, depth, masks and camera do not have the digests in the index")
            raise damaged_member(f"the bytes of view {self.name} are damaged.", self.image, error)
        return held

    @property
    def packed_from_source_px(self) -> np.ndarray:
        """[3, 3] f64 from pixels (u, v, 1) of the source's image to those of the packed one."""
        return resized_from_original_px(self.source_size, (self.width, self.height)).numpy()

    def view(self) -> View:
        """The view, its image, depth and masks still in the tar.

        Raises:
            SceneError: the shard cannot be read any more.
            ShardError: the camera is damaged.
        """
        try:
            camera = json.loads(self.camera.read())
            K_px, world_from_cam = _matrix(camera["K_px"], 3), _matrix(camera["world_from_cam"], 4)
            far_percentile = _percentile(camera.get("far_percentile"))
        except MALFORMED as error:
            raise damaged_member("the camera of a view is damaged.", self.camera, error) from None
        return View(
            name=self.name,
            image=self.image,
            depth=self.depth,
            masks=self.masks,
            K_px=K_px,
            world_from_cam=world_from_cam,
            orientation=self.orientation,
            far_percentile=far_percentile,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class PackedScene:
    """One scene as the index knows it.

    Attributes:
        id: `<dataset>/<scene>`.
        digest: over the ordered [frame name, image digest].
        scale_type: `metric`, `colmap` (arbitrary scale) or None.
        rules: version of the dataset's rules that made depth and masks what they are.
        scene_scale_m: median positive depth in source units (metres where the scene is metric), or
            None without depth.
    """

    id: str
    digest: str
    scale_type: str | None
    rules: int
    scene_scale_m: float | None
    _entry: dict[str, Any] = field(repr=False)
    _shards: tuple[Shard, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self._entry["views"])

    @cached_property
    def views(self) -> tuple[PackedView, ...]:
        """In the order of the source.

        Raises:
            ShardError: the index is damaged.
        """
        with naming_damage(self._folder):
            if self._entry["entry_digest"] != entry_digest(self._entry):
                raise ValueError(f"the entry of {self.id} is not as it was written")
            return tuple(self._view(position, entry) for position, entry in enumerate(self._entry["views"]))

    @cached_property
    def geometry_digests(self) -> tuple[str, ...]:
        """Those of the views, in order, without making the views."""
        with naming_damage(self._folder):
            return tuple(str(entry["geometry_digest"]) for entry in self._entry["views"])

    def covisibility(self) -> np.ndarray | None:
        """[N, N] f32, the share of row's pixels that column sees, or None.

        Raises:
            SceneError: the shard cannot be read any more.
            ShardError: the array is damaged.
        """
        with naming_damage(self._folder):
            if self._entry["covisibility"] is None:
                return None
            shard, offset, size, sha256 = self._entry["covisibility"]
            blob = self._shards[shard].part("npy", offset, size).held()
        try:
            if blob.sha256 != sha256:
                raise ValueError("its sha256 is not the one in the index")
            array = read_npy(blob.read())
            if array.shape != (len(self), len(self)):
                raise ValueError(f"shape {list(array.shape)} for {len(self)} views")
        except ValueError as error:
            raise damaged_member("the covisibility of a scene is damaged.", blob, error) from None
        return array

    def to_scene(self) -> Scene:
        """The scene as any source gives it, its bytes still in the tars.

        Raises:
            SceneError, ShardError: as `PackedView.view` and `covisibility`.
        """
        return Scene(
            id=self.id,
            views=tuple(packed.view() for packed in self.views),
            covisibility=self.covisibility(),
            scale_type=self.scale_type,
            rules=self.rules,
        )

    @property
    def _folder(self) -> Path:
        return self._shards[0].path.parent

    def _view(self, position: int, entry: dict[str, Any]) -> PackedView:
        shard, source = self._shards[entry["shard"]], entry.get("source") or entry
        offset, size, suffix = entry["image"]
        return PackedView(
            position=position,
            image=shard.part(suffix, offset, size),
            depth=shard.part("exr", *entry["depth"]) if entry["depth"] else None,
            masks={name: shard.part("png", *span) for name, span in entry["masks"].items()},
            camera=shard.part("json", *entry["camera"]),
            source_size=(int(source["width"]), int(source["height"])),
            source_digest=None if source is entry else str(source["image_digest"]),
            **{name: entry[name] for name in _PLAIN},
        )


def _matrix(rows: Any, side: int) -> np.ndarray | None:
    if rows is None:
        return None
    matrix = np.array(rows, np.float64)
    if matrix.shape != (side, side):
        raise ValueError(f"a {side} x {side} matrix is expected, found shape {list(matrix.shape)}")
    return matrix


def _percentile(value: Any) -> float | None:
    if value is None:
        return None
    if not 0 <= float(value) <= 100:
        raise ValueError(f"{value} is no percentile")
    return float(value)


def damaged_index(folder: Path, error: Exception) -> ShardError:
    """The error of an index that cannot be understood."""
    return ShardError(
        "the index of the shards is damaged.",
        where=folder / INDEX,
        why=f"{type(error).__name__}: {error}",
        fix=f"remove it, then {PACK_AGAIN}: the shards are kept",
    )


@contextmanager
def naming_damage(folder: Path) -> Iterator[None]:
    """Turns what a malformed index leads to into `damaged_index`."""
    try:
        yield
    except MALFORMED as error:
        raise damaged_index(folder, error) from None


def damaged_member(what: str, blob: Blob, error: Exception) -> ShardError:
    """The error of bytes in a shard that are not what was packed."""
    return ShardError(
        what,
        where=blob.where,
        why=f"{type(error).__name__}: {error}",
        fix=f"remove the shard, then {PACK_AGAIN}",
    )
