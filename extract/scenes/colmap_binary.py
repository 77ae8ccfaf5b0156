"""COLMAP's binary model: cameras.bin, images.bin, points3D.bin. Little-endian, without padding."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np

from .colmap_model import PARAMETERS, ColmapCamera, ColmapImage, ColmapModel, model_fault
from .scene import Blob

MODELS = tuple(PARAMETERS)
NO_POINT = -1
OBSERVATION = np.dtype([("x", "<f8"), ("y", "<f8"), ("point", "<i8")])
SIGHTING = np.dtype([("image", "<u4"), ("observation", "<u4")])


def read_binary(folder: Path) -> ColmapModel:
    """The model in `folder`; points3D.bin may be missing.

    Raises:
        SceneError: a file is missing, truncated or malformed.
    """
    images, sightings = _images(_Stream(folder / "images.bin"))
    points = folder / "points3D.bin"
    if points.exists():
        sightings += _points(_Stream(points))
    return ColmapModel(
        cameras=_cameras(_Stream(folder / "cameras.bin")),
        images=tuple(images),
        sightings=np.concatenate([np.empty((0, 2), np.int64), *sightings]),
    )


class _Stream:
    """The bytes of a file, taken one value after the other; what is not there is never allocated."""

    def __init__(self, path: Path) -> None:
        self.path, self._data, self._at = path, Blob(suffix="bin", path=path).read(), 0

    def take(self, layout: str) -> tuple:
        """Values as `struct` lays them out."""
        return struct.unpack_from(f"<{layout}", self._data, self._advance(struct.calcsize(f"<{layout}")))

    def array(self, dtype: np.dtype) -> np.ndarray:
        """A count, then so many values."""
        (count,) = self.take("Q")
        return np.frombuffer(self._data, dtype, count, self._advance(count * dtype.itemsize))

    def text(self) -> str:
        """What stands before the next zero byte."""
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise model_fault("the file ends in the middle of a name.", self.path)
        text, self._at = self._data[self._at : end], end + 1
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise model_fault("a name is not UTF-8.", self.path, f"{error}") from None

    def records(self) -> range:
        """As many as the count that stands here says; each is looked for before anything is kept."""
        return range(*self.take("Q"))

    def end(self) -> None:
        left = len(self._data) - self._at
        if left:
            raise model_fault("the file is longer than it should be.", self.path, f"{left:,} bytes are left")

    def _advance(self, size: int) -> int:
        left = len(self._data) - self._at
        if size > left:
            raise model_fault(
                "the file ends too early.", self.path, f"{size:,} bytes are wanted, {left:,} are left"
            )
        self._at += size
        return self._at - size


def _cameras(stream: _Stream) -> dict[int, ColmapCamera]:
    cameras = {}
    for _ in stream.records():
        camera_id, model_id, width, height = stream.take("IiQQ")
        if not 0 <= model_id < len(MODELS):
            why = f"camera {camera_id} has model {model_id}; 0 to {len(MODELS) - 1} are known"
            raise model_fault("a camera model is not known.", stream.path, why)
        model = MODELS[model_id]
        params = stream.take(f"{PARAMETERS[model]}d")
        cameras[camera_id] = ColmapCamera(
            id=camera_id, model=model, width=width, height=height, params=params
        )
    stream.end()
    return cameras


def _images(stream: _Stream) -> tuple[list[ColmapImage], list[np.ndarray]]:
    images, sightings = [], []
    for _ in stream.records():
        image_id, *pose, camera_id = stream.take("I7dI")
        images.append(
            ColmapImage(
                id=image_id,
                name=stream.text(),
                camera_id=camera_id,
                quaternion_wxyz=tuple(pose[:4]),
                translation=tuple(pose[4:]),
            )
        )
        points = stream.array(OBSERVATION)["point"]
        points = points[points != NO_POINT]
        sightings.append(np.stack((np.full_like(points, image_id), points), axis=-1))
    stream.end()
    return images, sightings


def _points(stream: _Stream) -> list[np.ndarray]:
    sightings = []
    for _ in stream.records():
        point_id, *_ = stream.take("q3d3Bd")
        images = stream.array(SIGHTING)["image"].astype(np.int64)
        sightings.append(np.stack((images, np.full_like(images, point_id)), axis=-1))
    stream.end()
    return sightings
