"""A corrected copy of a scene, written as WAI. What was read stays as it is.

Frames: see scene.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ...errors import SceneError
from .covisibility_check import check_covisibility, make_covisibility
from .decode import decode_depth, decode_image
from .exr import read_exr, write_exr
from .hypotheses import Change
from .inspection import Faults
from .scene import Blob, Scene, View
from .wai_write import write_wai


def write_mended(
    scene: Scene, changes: Sequence[Change], doubles: Iterable[int], out: Path, *, make: bool = False
) -> list[str]:
    """Writes the scene to `<out>/<dataset>/<scene>` without what cannot be read, and with the changes.

    Args:
        scene: as it was read, perhaps with broken files.
        changes: of all views, in their order.
        doubles: indices of views that are left out because another shows the same.
        out: root of the copies.
        make: compute covisibility even if there is one that matches.

    Returns:
        What was done, in words; empty for a plain copy.

    Raises:
        SceneError: nothing of the scene can be read, or another scene is at that place.
    """
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out, prefix=".mend-") as folder:
        done = [change.fix for change in changes]
        kept = _readable(scene, set(doubles), done)
        if not kept:
            raise SceneError(f"nothing of {scene.id} can be read.", where=scene.id, fix="leave the scene out")
        views = [_changed(view, changes, Path(folder) / f"{index}.exr") for index, view in kept.items()]
        mended = replace(scene, views=tuple(views), covisibility=_rows(scene, list(kept)))
        mended = _with_covisibility(mended, make, done)
        write_wai(mended, out / scene.dataset / scene.name)
    return done


def doubled(scene: Scene, digests: Sequence[str | None]) -> dict[int, int]:
    """By the index of a view, that of an earlier one with the same pixels.

    Args:
        scene: its views are those of `digests`.
        digests: one per view of its decoded image; None where it could not be decoded.
    """
    first: dict[str, int] = {}
    found = {}
    for index, digest in enumerate(digests[: len(scene)]):
        if digest is not None and first.setdefault(digest, index) != index:
            found[index] = first[digest]
    return found


def _readable(scene: Scene, doubles: set[int], done: list[str]) -> dict[int, View]:
    """Views that can be decoded, without depth that cannot."""
    kept: dict[int, View] = {}
    for index, view in enumerate(scene.views):
        faults = Faults()
        image = None if index in doubles else faults.attempt(decode_image, view)
        if image is None:
            done.append(f"leave out frame {view.name}")
            continue
        faults.attempt(decode_depth, view, image.shape[:2])
        if faults.found:
            done.append(f"leave out the depth of frame {view.name}")
            view = replace(view, depth=None, masks={})
        kept[index] = view
    return kept


def _changed(view: View, changes: Sequence[Change], path: Path) -> View:
    """The view after all changes; new depth goes to `path`, as float32 and without dataset rules."""
    K_px, pose = view.K_px, view.world_from_cam
    depth_m = None
    for change in changes:
        K_px = None if K_px is None else change.camera(K_px)
        pose = None if pose is None else change.pose(pose)
        if view.depth is not None and K_px is not None and change.changes_depth:
            before = read_exr(view.depth.read(), view.depth.where) if depth_m is None else depth_m
            depth_m = change.depth(before, K_px)
    if depth_m is None:
        return replace(view, K_px=K_px, world_from_cam=pose)
    path.write_bytes(write_exr(depth_m, half=False))
    return replace(view, K_px=K_px, world_from_cam=pose, depth=Blob(suffix="exr", path=path))


def _rows(scene: Scene, kept: list[int]) -> np.ndarray | None:
    """The covisibility of the views that are kept; None where it is of other frames."""
    if scene.covisibility is None or len(scene.covisibility) != len(scene):
        return None
    return scene.covisibility[np.ix_(kept, kept)]


def _with_covisibility(scene: Scene, make: bool, done: list[str]) -> Scene:
    """Computed where it is asked for, does not match, or was lost with frames."""
    faults = Faults()
    faults.attempt(check_covisibility, scene)
    lost = scene.covisibility is None and any(text.startswith("leave out frame") for text in done)
    geometry = sum(view.has_geometry for view in scene.views) > 1
    if make or (geometry and (faults.found or lost)):
        done.append("compute covisibility")
        return replace(scene, covisibility=make_covisibility(scene))
    return scene
