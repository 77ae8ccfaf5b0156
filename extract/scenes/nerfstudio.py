"""Scenes as Nerfstudio stores them: a folder with `transforms.json`, see docs.nerf.studio.

    file_path, depth_file_path, mask_path    of every frame, relative to the folder
    transform_matrix, fl_x, fl_y, cx, cy, w, h, camera_angle_x, depth_unit_scale_factor

Poses are given back in the world of the recording: `applied_transform` and `applied_scale`, which say
what the exporter did to it, are undone; depth needs neither. Depth of whole numbers is in millimetres
and other depth in metres, unless `depth_unit_scale_factor` says how many metres its unit is. A mask is
off where it is black, and takes depth away there.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import SceneError, first_few
from .camera_values import finite_number
from .decode import image_size
from .depth_files import depth_blob
from .folder import SUFFIXES
from .inspection import Faults, Inspection
from .names import check_frame_name, names_of_files
from .nerfstudio_camera import WorldChange, intrinsics, pose, world_change
from .scene import Blob, Scene, View
from .scene_files import SceneFiles, blob_of
from .scene_folders import SceneFolders, folders_where

TRANSFORMS = "transforms.json"
LOOKED_FOR = f"{TRANSFORMS} there and up to two folders further down"
SPLITS = ("train", "val", "test")


class NerfstudioSource(SceneFolders):
    """Folders with a `transforms.json`, each a scene.

    A list `train_filenames` (`val_`, `test_`) puts its scene into the split `train/<dataset>`. Splits
    are of scenes: one that names frames for several is in several.

    Args:
        path: such a folder, a dataset of them, or a root of datasets.
    """

    looked_for = LOOKED_FOR

    def find(self, path: Path) -> list[Path]:
        return nerfstudio_folders(path)

    def read(self, folder: Path, scene_id: str) -> Inspection:
        faults = Faults()
        meta = faults.attempt(_read_meta, folder / TRANSFORMS)
        if meta is None:
            return Inspection(scene=None, faults=tuple(faults.found))
        change = faults.attempt(world_change, meta, str(folder / TRANSFORMS))
        reader = _Reader(files=SceneFiles(folder=folder), meta=meta, change=change)
        views = _views(reader, faults)
        faults.attempt(reader.files.check_missing, scene_id)
        measured = any(view.depth for view in views)
        scene = Scene(id=scene_id, views=views, scale_type="metric" if measured else None)
        return Inspection(scene=scene, faults=tuple(faults.found))

    def splits(self) -> dict[str, tuple[str, ...]]:
        """`<split>/<dataset>` -> scene ids; a broken scene, which says so itself when read, is in none."""
        found: dict[str, list[str]] = {}
        for scene_id, folder in self.folders.items():
            meta = Faults().attempt(_read_meta, folder / TRANSFORMS) or {}
            for split in SPLITS:
                if meta.get(f"{split}_filenames"):
                    found.setdefault(f"{split}/{scene_id.partition('/')[0]}", []).append(scene_id)
        return {name: tuple(ids) for name, ids in found.items()}


def nerfstudio_folders(path: Path) -> list[Path]:
    """The folder itself if it has a `transforms.json`, else those up to two folders further down."""
    return folders_where(path, lambda folder: (folder / TRANSFORMS).is_file(), levels=2)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reader:
    """What the frames of one scene are read with; `change` None = it is unknown."""

    files: SceneFiles
    meta: dict[str, Any]
    change: WorldChange | None

    def where(self, frame: object) -> str:
        return f"{self.files.folder / TRANSFORMS}, frame {frame}"


def _read_meta(path: Path) -> dict[str, Any]:
    try:
        meta = json.loads(Blob(suffix="json", path=path).read())
    except (ValueError, RecursionError) as error:
        raise SceneError(
            f"{TRANSFORMS} is not JSON.", where=path, why=f"{error}", fix="write the file again"
        ) from None
    frames = meta.get("frames") if isinstance(meta, dict) else None
    if not isinstance(frames, list) or not frames or not all(isinstance(frame, dict) for frame in frames):
        raise SceneError(
            f"{TRANSFORMS} has no list of frames.",
            where=path,
            why="a JSON object with a list `frames` of objects is expected",
            fix="write the file again, or leave the scene out",
        )
    return meta


def _views(reader: _Reader, faults: Faults) -> tuple[View, ...]:
    images = [
        faults.attempt(_image, reader, frame, reader.where(frame.get("file_path", f"number {number}")))
        for number, frame in enumerate(reader.meta["frames"])
    ]
    there = [
        (frame, image)
        for frame, image in zip(reader.meta["frames"], images, strict=True)
        if image is not None
    ]
    names = names_of_files([image.relative_to(reader.files.folder).as_posix() for _, image in there])
    faults.attempt(_check_names, names, reader.files.folder / TRANSFORMS)
    views = [_view(reader, *both, name, faults) for both, name in zip(there, names, strict=True)]
    return tuple(view for view in views if view)


def _image(reader: _Reader, frame: dict[str, Any], where: str) -> Path | None:
    """The image file; its suffix may be left out, as in Blender's exports."""
    given = frame.get("file_path")
    if isinstance(given, str) and Path(given).suffix.lower() not in SUFFIXES:
        named = [f"{given}{suffix}" for suffix in SUFFIXES]
        given = next((name for name in named if os.path.isfile(reader.files.folder / name)), given)
    return reader.files.find(given, where)


def _view(reader: _Reader, frame: dict[str, Any], image: Path, name: str, faults: Faults) -> View | None:
    where = reader.where(frame["file_path"])
    blob = blob_of(image)
    size = faults.attempt(image_size, blob)
    if faults.attempt(check_frame_name, name, where) is None or size is None:
        return None
    change = reader.change
    return View(
        name=name,
        image=blob,
        depth=faults.attempt(_depth, reader, frame, where),
        masks=faults.attempt(_masks, reader, frame, where) or {},
        K_px=faults.attempt(intrinsics, frame, reader.meta, size, where),
        world_from_cam=faults.attempt(pose, frame, change, where) if change else None,
    )


def _depth(reader: _Reader, frame: dict[str, Any], where: str) -> Blob | None:
    if frame.get("depth_file_path") is None:
        return None
    path = reader.files.find(frame["depth_file_path"], where)
    unit = frame.get("depth_unit_scale_factor", reader.meta.get("depth_unit_scale_factor"))
    unit_m = None if unit is None else finite_number(unit, "depth_unit_scale_factor", where)
    return None if path is None else depth_blob(path, unit_m)


def _masks(reader: _Reader, frame: dict[str, Any], where: str) -> dict[str, Blob]:
    if frame.get("mask_path") is None:
        return {}
    path = reader.files.find(frame["mask_path"], where)
    return {} if path is None else {"mask": blob_of(path)}


def _check_names(names: list[str], where: Path) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise SceneError(
            "images are listed twice.",
            where=where,
            why=f"twice: {first_few(twice)}",
            fix="list every image once",
        )
