"""COLMAP's text model: cameras.txt, images.txt, points3D.txt. Lines that begin with # are comments."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np

from .colmap_model import PARAMETERS, ColmapCamera, ColmapImage, ColmapModel, model_fault
from .scene import Blob

NO_POINT = -1
LARGEST_ID = 2**63
Parsed = TypeVar("Parsed")


def read_text(folder: Path) -> ColmapModel:
    """The model in `folder`; points3D.txt may be missing.

    Raises:
        SceneError: a file is missing or malformed.
    """
    images, sightings = _images(folder / "images.txt")
    points = folder / "points3D.txt"
    if points.exists():
        sightings += [_parsed(_tracked, line, points, number) for number, line in _records(_lines(points))]
    cameras_txt = folder / "cameras.txt"
    cameras = [_parsed(_camera, line, cameras_txt, number) for number, line in _records(_lines(cameras_txt))]
    return ColmapModel(
        cameras={camera.id: camera for camera in cameras},
        images=tuple(images),
        sightings=np.concatenate([np.empty((0, 2), np.int64), *sightings]),
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, line) of the file."""
    data = Blob(suffix="txt", path=path).read()
    try:
        return enumerate(data.decode().split("\n"), start=1)
    except UnicodeDecodeError as error:
        raise model_fault("the file is not UTF-8 text.", path, f"{error}") from None


def _records(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """The lines that are neither empty nor comments."""
    return ((number, line.strip()) for number, line in lines if line.strip() and line.strip()[0] != "#")


def _images(path: Path) -> tuple[list[ColmapImage], list[np.ndarray]]:
    """Two lines an image: the image, and its 2D points, which may be an empty line."""
    images, sightings = [], []
    lines = _lines(path)
    for number, line in _records(lines):
        image = _parsed(_image, line, path, number)
        number, line = next(lines, (number + 1, ""))
        points = _parsed(_observed, line, path, number)
        images.append(image)
        sightings.append(np.stack((np.full_like(points, image.id), points), axis=-1))
    return images, sightings


def _parsed(parse: Callable[[str], Parsed], line: str, path: Path, number: int) -> Parsed:
    try:
        return parse(line)
    except (ValueError, IndexError, OverflowError) as error:
        why = f"line {number}: {error}"
        raise model_fault(f"a line of {path.name} is malformed.", path, why) from None


def _camera(line: str) -> ColmapCamera:
    """CAMERA_ID MODEL WIDTH HEIGHT PARAMS[]"""
    camera_id, model, width, height, *params = line.split()
    if PARAMETERS.get(model) != len(params):
        raise ValueError(f"{model} with {len(params)} parameters is not known")
    return ColmapCamera(
        id=_id(camera_id),
        model=model,
        width=_id(width),
        height=_id(height),
        params=tuple(map(float, params)),
    )


def _image(line: str) -> ColmapImage:
    """IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME; a name may have spaces."""
    image_id, *pose, camera_id, name = line.split(maxsplit=9)
    if len(pose) != 7:
        raise ValueError("an image id, seven numbers of its pose, a camera id and a name are expected")
    numbers = tuple(map(float, pose))
    return ColmapImage(
        id=_id(image_id),
        name=name,
        camera_id=_id(camera_id),
        quaternion_wxyz=numbers[:4],
        translation=numbers[4:],
    )


def _observed(line: str) -> np.ndarray:
    """X Y POINT3D_ID, again and again -> the ids [S] i64 that are points."""
    values = line.split()
    if len(values) % 3:
        raise ValueError(f"{len(values)} numbers are not x, y and a point id, again and again")
    points = np.fromiter(map(int, values[2::3]), np.int64)
    return points[points != NO_POINT]


def _tracked(line: str) -> np.ndarray:
    """POINT3D_ID X Y Z R G B ERROR, then IMAGE_ID POINT2D_IDX again and again -> [S, 2] i64."""
    values = line.split()
    if len(values) < 8 or len(values) % 2:
        raise ValueError(f"{len(values)} numbers are not a point and its track")
    images = np.fromiter(map(int, values[8::2]), np.int64)
    return np.stack((images, np.full_like(images, _id(values[0]))), axis=-1)


def _id(text: str) -> int:
    number = int(text)
    if not 0 <= number < LARGEST_ID:
        raise ValueError(f"{number} is out of range")
    return number
