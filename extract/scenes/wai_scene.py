"""One WAI scene: `scene_meta.json`, the files it names, and its covisibility.

Shapes: N frames. Every fault is collected, so that `scenes check` can report all of them at once.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from ...errors import SceneError, counted, first_few
from .inspection import Faults, Inspection
from .names import check_frame_name, make_scene_id
from .scene import Blob, Scene, View
from .wai_camera import intrinsics, pose
from .wai_modalities import frame_format, frame_key
from .wai_rules import DatasetRules, rules_of

META = "scene_meta.json"
COVISIBILITY = "covisibility/v0"
NPY_HEADER_BYTES = 128


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reader:
    """What the parts of one scene are read with."""

    id: str
    folder: Path
    meta: dict[str, Any]
    rules: DatasetRules
    missing: list[Path] = field(default_factory=list)

    @property
    def modalities(self) -> object:
        return self.meta.get("frame_modalities")

    def where(self, name: str) -> str:
        return f"{self.folder / META}, scene {self.id}, frame {name}"


def read_wai_scene(folder: Path, scene_id: str) -> Inspection:
    """The scene in `folder` without its broken parts, and all their faults."""
    faults = Faults()
    meta = faults.attempt(_read_meta, folder, scene_id)
    if meta is None:
        return Inspection(scene=None, faults=tuple(faults.found))
    reader = _Reader(id=scene_id, folder=folder, meta=meta, rules=rules_of(scene_id.partition("/")[0]))
    faults.attempt(_check_meta, reader)
    views = [_view(reader, frame, number, faults) for number, frame in enumerate(meta["frames"])]
    faults.attempt(_check_names, reader, [view.name for view in views if view])
    faults.attempt(_check_missing, reader)
    scene = Scene(
        id=scene_id,
        views=tuple(view for view in views if view),
        covisibility=faults.attempt(read_covisibility, folder, scene_id, len(views)),
        scale_type=meta.get("scale_type") if meta.get("scale_type") in ("metric", "colmap") else None,
        rules=reader.rules.version,
    )
    return Inspection(scene=scene, faults=tuple(faults.found))


def read_covisibility(folder: Path, scene_id: str, frames: int) -> np.ndarray | None:
    """[N, N] f32 of the first `.npy` in `covisibility/v0`; None without.

    WAI reads these files without their header: float32 from byte 128 on, in the shape of the name.

    Raises:
        SceneError: name, size and number of frames disagree, or a value is not finite.
    """
    path = min((folder / COVISIBILITY).glob("*.npy"), default=None)
    if path is None:
        return None
    shape = re.search(r"(\d+)[x,](\d+)$", path.stem)
    data = Blob(suffix="npy", path=path).read()
    rows, cols = map(int, shape.groups()) if shape else (0, 0)
    values = len(data) - NPY_HEADER_BYTES
    if (rows, cols) != (frames, frames) or values != 4 * rows * cols:
        raise SceneError(
            "the covisibility has the wrong shape.",
            where=path,
            why=f"{frames} frames of {scene_id} need {frames}x{frames} in the name and in float32, "
            f"which is {NPY_HEADER_BYTES + 4 * frames * frames:,} bytes; the file has {len(data):,}",
            fix=f"compute it again, or remove {COVISIBILITY}",
        )
    matrix = np.frombuffer(data, "<f4", offset=NPY_HEADER_BYTES).reshape(rows, cols)
    if not np.isfinite(matrix).all():
        raise SceneError(
            "the covisibility has values that are not finite.",
            where=path,
            fix=f"compute it again, or remove {COVISIBILITY}",
        )
    return matrix


def _read_meta(folder: Path, scene_id: str) -> dict[str, Any]:
    path = folder / META
    try:
        meta = json.loads(Blob(suffix="json", path=path).read())
    except (ValueError, RecursionError) as error:
        raise SceneError(
            "scene_meta.json is not JSON.", where=path, why=f"{error}", fix="write the file again"
        ) from None
    frames = meta.get("frames") if isinstance(meta, dict) else None
    if not isinstance(frames, list):
        raise SceneError(
            "scene_meta.json has no list of frames.",
            where=path,
            why="a JSON object with a list `frames` is expected",
            fix="write the file again",
        )
    if not frames:
        raise SceneError(
            f"the scene {scene_id} has no frames.",
            where=path,
            why=str(meta.get("skipped_reason") or "its list `frames` is empty"),
            fix="leave the scene out",
        )
    return meta


def _check_meta(reader: _Reader) -> None:
    path = reader.folder / META
    dataset, _, scene = reader.id.partition("/")
    make_scene_id(dataset, str(reader.meta.get("scene_name", scene)), path)
    convention = reader.meta.get("camera_convention", "opencv")
    if convention != "opencv":
        raise SceneError(
            f"camera_convention={convention} is not supported.",
            where=path,
            why="WAI poses have OpenCV axes: x right, y down, z forward",
            fix="turn the poses, for OpenGL by multiplying with diag(1, -1, -1, 1) from the right",
        )
    scale = reader.meta.get("scale_type")
    if scale not in ("metric", "colmap", None):
        raise SceneError(
            f"scale_type={scale} is not known.",
            where=path,
            why="it is metric or colmap (arbitrary)",
            fix="write one of these, or leave it out",
        )


def _view(reader: _Reader, frame: Any, number: int, faults: Faults) -> View | None:
    if not isinstance(frame, dict):
        frame = {}
    where = reader.where(str(frame.get("frame_name", f"number {number}")))
    name = faults.attempt(check_frame_name, frame.get("frame_name"), where)
    if name is None:
        return None
    image = faults.attempt(_image, reader, frame, where)
    depth = faults.attempt(_depth, reader, frame, where)
    masks = faults.attempt(_masks, reader, frame, where)
    K_px = faults.attempt(intrinsics, frame, reader.meta, where)
    world_from_cam = faults.attempt(pose, frame, where)
    if image is None:
        return None
    return View(
        name=name,
        image=image,
        depth=depth,
        masks=masks or {},
        K_px=K_px,
        world_from_cam=world_from_cam,
        far_percentile=reader.rules.far_percentile if depth else None,
    )


def _image(reader: _Reader, frame: dict[str, Any], where: str) -> Blob | None:
    if "video" in frame_format(reader.modalities, "image"):
        raise SceneError(
            "the images are frames of a video.",
            where=where,
            why="the format of the modality `image` is a video",
            fix="store each frame as a picture and name its file as `image`",
        )
    relative = frame.get(frame_key(reader.modalities, "image") or "image", frame.get("file_path"))
    if relative is None:
        raise SceneError("the frame has no image.", where=where, fix="name its file as `image`")
    return _blob(reader, relative, where)


def _depth(reader: _Reader, frame: dict[str, Any], where: str) -> Blob | None:
    keys = [frame_key(reader.modalities, modality) or modality for modality in reader.rules.depths]
    relative = next((frame[key] for key in keys if frame.get(key) is not None), None)
    return None if relative is None else _blob(reader, relative, where)


def _masks(reader: _Reader, frame: dict[str, Any], where: str) -> dict[str, Blob]:
    masks = {}
    for name, modality in reader.rules.masks:
        relative = frame.get(frame_key(reader.modalities, modality) or "")
        blob = None if relative is None else _blob(reader, relative, where)
        if blob:
            masks[name] = blob
    return masks


def _blob(reader: _Reader, relative: Any, where: str) -> Blob | None:
    """The file of that path in the scene's folder; a missing one is noted and None."""
    inside = isinstance(relative, str) and relative and "\0" not in relative
    if not inside or PurePosixPath(relative).is_absolute() or ".." in PurePosixPath(relative).parts:
        raise SceneError(
            f"{relative!r} is not a path in the scene's folder.",
            where=where,
            why="paths are relative to the scene's folder and do not leave it",
            fix="move the file into the folder, or link it there",
        )
    path = reader.folder / relative
    if not os.path.isfile(path):
        reader.missing.append(path)
        return None
    suffix = path.suffix.lower().lstrip(".")
    return Blob(suffix="jpg" if suffix == "jpeg" else suffix, path=path)


def _check_names(reader: _Reader, names: list[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SceneError(
            f"frame names of {reader.id} are used twice.",
            where=reader.folder / META,
            why=f"twice: {first_few(twice)}",
            fix="give every frame a name of its own",
        )


def _check_missing(reader: _Reader) -> None:
    if reader.missing:
        raise SceneError(
            f"{reader.id} lacks {counted(len(reader.missing), 'file')}.",
            where=reader.folder,
            why=f"missing: {first_few(path.relative_to(reader.folder) for path in reader.missing)}",
            fix="restore the files, or leave the frames out of scene_meta.json",
        )
