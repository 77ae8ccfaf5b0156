"""A scene written out in the WAI layout, files as they are."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import SceneError
from .decode import image_size
from .names import check_frame_name
from .scene import Blob, Scene, View
from .wai_scene import COVISIBILITY, META


def write_wai(scene: Scene, folder: Path, prepare: Callable[[View], View] = lambda view: view) -> None:
    """Writes `scene` to `folder` at once; the same scene there already is left as it is.

    Args:
        scene: its masks become modalities `pred_mask/<name>`.
        folder: the scene's own folder, in that of its dataset.
        prepare: makes of each view the one that is written, one at a time.

    Raises:
        SceneError: another scene is there, or WAI has no place for something in this one.
    """
    partial = folder.with_name(f".{folder.name}.{os.getpid()}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    try:
        meta = _write_files(scene, partial, prepare)
        (partial / META).write_text(json.dumps(meta, indent=1))
        if folder.exists():
            _check_same(partial, folder)
        else:
            partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write_files(scene: Scene, folder: Path, prepare: Callable[[View], View]) -> dict[str, Any]:
    frames = [_write_view(prepare(view), folder) for view in scene.views]
    masks = sorted({name for view in scene.views for name in view.masks})
    modalities: dict[str, Any] = {"image": {"frame_key": "image", "format": "image"}}
    if any(view.depth for view in scene.views):
        modalities["depth"] = {"frame_key": "depth", "format": "depth"}
    if masks:
        named = {name: {"frame_key": f"{name}_mask", "format": "binary"} for name in masks}
        modalities["pred_mask"] = named
    return {
        "scene_name": scene.name,
        "dataset_name": scene.dataset,
        "version": "0.1",
        "shared_intrinsics": False,
        "camera_model": "PINHOLE",
        "camera_convention": "opencv",
        "scale_type": scene.scale_type,
        "scene_modalities": _write_covisibility(scene, folder),
        "frames": frames,
        "frame_modalities": modalities,
    }


def _write_view(view: View, folder: Path) -> dict[str, Any]:
    name = check_frame_name(view.name, f"frame {view.name}")
    _check_writable(view)
    frame: dict[str, Any] = {"frame_name": name}
    frame["image"] = frame["file_path"] = _write_blob(view.image, folder, "images", name)
    if view.depth:
        frame["depth"] = _write_blob(view.depth, folder, "depth", name)
    for mask, blob in view.masks.items():
        frame[f"{mask}_mask"] = _write_blob(blob, folder, f"masks/{mask}", name)
    if view.world_from_cam is not None:
        frame["transform_matrix"] = np.asarray(view.world_from_cam, np.float64).tolist()
    frame["w"], frame["h"] = image_size(view.image)
    if view.K_px is not None:
        K = np.asarray(view.K_px, np.float64).tolist()
        frame |= {"fl_x": K[0][0], "fl_y": K[1][1], "cx": K[0][2], "cy": K[1][2]}
    return frame


def _check_writable(view: View) -> None:
    skewed = view.K_px is not None and view.K_px[0, 1] != 0
    if skewed or view.orientation != 1:
        raise SceneError(
            f"WAI cannot hold the view {view.name}.",
            where=view.image.where,
            why="its intrinsics have skew" if skewed else "its image is turned by an EXIF orientation",
            fix="rectify the images first" if skewed else "store the image upright",
        )


def _write_blob(blob: Blob, folder: Path, part: str, name: str) -> str:
    relative = f"{part}/{name}.{blob.suffix}"
    (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / relative).write_bytes(blob.read())
    return relative


def _write_covisibility(scene: Scene, folder: Path) -> dict[str, Any]:
    if scene.covisibility is None:
        return {}
    relative = f"{COVISIBILITY}/pairwise_covisibility--{len(scene)}x{len(scene)}.npy"
    (folder / relative).parent.mkdir(parents=True)
    np.save(folder / relative, np.ascontiguousarray(scene.covisibility, np.float32))
    return {"pairwise_covisibility": {"scene_key": relative, "format": "mmap"}}


def _check_same(new: Path, old: Path) -> None:
    for path in sorted(path.relative_to(new) for path in new.rglob("*") if path.is_file()):
        if not (old / path).is_file() or (old / path).read_bytes() != (new / path).read_bytes():
            raise SceneError(
                f"another scene is at {old}.",
                where=old / path,
                why="the file differs from the one that was to be written",
                fix="choose another folder, or remove that one",
            )
