"""Scenes and views as values, whatever they are stored in.

Shapes: H W pixels. Frames: OpenCV camera axes (x right, y down, z forward); integer pixel
coordinate = pixel centre; `depth_m` is z-depth in scene units (metres where the scene is metric),
0 = none.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from ...errors import SceneError
from ...store.key import digest
from ...store.record_fields import check_scene_id
from ...store.schema import scene_digest


@dataclass(frozen=True, kw_only=True)
class Blob:
    """Bytes that lie in a file, in a part of a file, or in memory.

    Attributes:
        suffix: what they are, `png`, `jpg` or `exr`, without a dot.
        path: the file, or None for bytes in memory.
        offset, size: the part of the file; size None = to its end.
        data: the bytes in memory.
        convert: makes the bytes out of those that lie there, given also what errors call them; for
            files that a view does not take as they are. It is called when the blob is read, not before.
    """

    suffix: str
    path: Path | None = None
    offset: int = 0
    size: int | None = None
    data: bytes | None = field(default=None, repr=False)
    convert: Callable[[bytes, str], bytes] | None = field(default=None, repr=False)

    @property
    def where(self) -> str:
        part = f" at byte {self.offset:,}" if self.size is not None else ""
        return f"{self.path}{part}" if self.path else "memory"

    def read(self) -> bytes:
        """The bytes.

        Raises:
            SceneError: the file is missing, unreadable, shorter than it should be, or cannot be converted.
        """
        data = self._stored() if self.data is None else self.data
        return data if self.convert is None else self.convert(data, self.where)

    def _stored(self) -> bytes:
        assert self.path is not None
        try:
            with self.path.open("rb") as file:
                file.seek(self.offset)
                data = file.read() if self.size is None else file.read(self.size)
        except OSError as error:
            raise SceneError(
                f"the file cannot be read: {error.strerror}.",
                where=self.where,
                fix="restore the file, or leave the scene out",
            ) from None
        if self.size is not None and len(data) != self.size:
            raise SceneError(
                "the file ends too early.",
                where=self.where,
                why=f"{self.size:,} bytes were packed, {len(data):,} are left",
                fix="pack the scenes again",
            )
        return data

    def held(self) -> Blob:
        """The same blob with its bytes in memory; errors still name the file."""
        return replace(self, data=self.read(), convert=None)

    def converted(self, convert: Callable[[bytes, str], bytes], suffix: str) -> Blob:
        """The blob that `convert` makes of this one's bytes whenever it is read."""
        before = self.convert
        if before is None:
            return replace(self, suffix=suffix, convert=convert)
        return replace(self, suffix=suffix, convert=lambda data, where: convert(before(data, where), where))

    @cached_property
    def sha256(self) -> str:
        return hashlib.sha256(self.read()).hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class SourceImage:
    """What a view was before it was made smaller.

    Attributes:
        width, height: pixels of the upright image.
        image_digest, geometry_digest: sha256 hex, as a view of that size has them.
        K_px: [3, 3] f64 intrinsics for that size.
    """

    width: int
    height: int
    image_digest: str
    geometry_digest: str
    K_px: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """One image of a scene. Everything but the image is optional.

    Attributes:
        name: frame name, unique in the scene.
        image: encoded image, as it lies on disk.
        depth: EXR of z-depth, [H, W] after decoding.
        masks: by name, PNG; a pixel counts where every mask is on.
        K_px: [3, 3] f64 intrinsics for the image's own size.
        world_from_cam: [4, 4] f64 rigid pose.
        orientation: EXIF orientation to apply on decoding, 1 = as stored.
        far_percentile: depth beyond this percentile of all pixels (those without depth count as 0)
            is none; None = all depth is kept. It comes with the dataset, whose `rules` name it in
            the geometry digest.
        source: what the view was before it was made smaller; None = it is as its source has it.
    """

    name: str
    image: Blob
    depth: Blob | None = None
    masks: dict[str, Blob] = field(default_factory=dict)
    K_px: np.ndarray | None = None
    world_from_cam: np.ndarray | None = None
    orientation: int = 1
    far_percentile: float | None = None
    source: SourceImage | None = None

    def held(self) -> View:
        """The same view with all its bytes in memory."""
        return replace(
            self,
            image=self.image.held(),
            depth=self.depth.held() if self.depth else None,
            masks={name: blob.held() for name, blob in self.masks.items()},
        )

    @property
    def image_digest(self) -> str:
        """sha256 of the image's bytes (with the orientation, where one is applied)."""
        sha = self.image.sha256
        return sha if self.orientation == 1 else digest([sha, self.orientation])

    def geometry_digest(self, scale_type: str | None, rules: int) -> str:
        """Over depth and mask bytes and the canonical JSON of cameras, scale and dataset rules."""
        return digest(
            {
                "depth": self.depth.sha256 if self.depth else None,
                "masks": {name: blob.sha256 for name, blob in self.masks.items()},
                "K_px": _listed(self.K_px),
                "world_from_cam": _listed(self.world_from_cam),
                "scale_type": scale_type,
                "rules": rules,
            }
        )

    @property
    def has_geometry(self) -> bool:
        """Depth, intrinsics and pose are all there."""
        return self.depth is not None and self.K_px is not None and self.world_from_cam is not None


@dataclass(frozen=True, kw_only=True, eq=False)
class Scene:
    """Views of one place, in order.

    Attributes:
        id: `<dataset>/<scene>`.
        views: in the order of the source.
        covisibility: [N, N] f32, the share of row's pixels that column sees, or None.
        covisibility_by: what was counted: pixels whose `depth` agrees, or the points of `tracks`, which
            say nothing of surfaces without texture.
        scale_type: `metric`, `colmap` (arbitrary scale) or None.
        rules: version of the dataset's rules that made depth and masks what they are.
    """

    id: str
    views: tuple[View, ...]
    covisibility: np.ndarray | None = None
    covisibility_by: str = "depth"
    scale_type: str | None = None
    rules: int = 1

    def __post_init__(self) -> None:
        check_scene_id(self.id)

    def __len__(self) -> int:
        return len(self.views)

    @property
    def dataset(self) -> str:
        return self.id.partition("/")[0]

    @property
    def name(self) -> str:
        return self.id.partition("/")[2]

    @cached_property
    def digest(self) -> str:
        return scene_digest([(view.name, view.image_digest) for view in self.views])


class SceneSource(ABC):
    """A finite list of scenes by stable id; one file per source.

    A source finds its scenes cheaply and reads each only when asked. Reading a broken scene raises
    `SceneError`, and the caller goes on with the others.
    """

    @abstractmethod
    def ids(self) -> list[str]:
        """Ids `<dataset>/<scene>` in natural order.

        Raises:
            SceneError: there is nothing to find, or two scenes share an id.
        """

    @abstractmethod
    def scene(self, scene_id: str) -> Scene:
        """The scene of that id.

        Raises:
            SceneError: the scene is broken or unknown.
        """

    def splits(self) -> dict[str, tuple[str, ...]]:
        """Named lists of scene ids that come with the data."""
        return {}

    def __iter__(self) -> Iterator[Scene]:
        return (self.scene(scene_id) for scene_id in self.ids())


def _listed(array: np.ndarray | None) -> list | None:
    return None if array is None else np.asarray(array, np.float64).tolist()
