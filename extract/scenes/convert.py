"""`strata scenes convert`: scenes of any source, written in the WAI layout."""

from __future__ import annotations

import errno
from collections.abc import Collection, Iterable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

from PIL import Image
from rich.console import Console

from ...configs.schema import ConvertConfig
from ...errors import DiskFullError, SceneError, counted
from ...progress import Progress
from ...store.split_lists import write_names
from .decode import decode_depth, decode_image, image_size
from .exr import write_exr
from .inspection import Faults, Inspection, inspect
from .open import asked_scenes
from .scene import Blob, SceneSource, View
from .wai_rules import rules_of
from .wai_write import write_wai


def convert(config: ConvertConfig, console: Console) -> int:
    """Writes every sound scene; 1 when some are broken or cannot be written, else 0.

    A scene that is there and equal is kept, so the same command again continues.

    Raises:
        SceneError: there are no scenes.
        DiskFullError: the scenes before are whole; the same command continues.
    """
    source, out = asked_scenes(config), Path(config.out)
    ids = source.ids()
    written = kept = 0
    broken: list[tuple[str, SceneError]] = []
    with Progress(console, "convert", len(ids), unit="scenes") as progress:
        for scene_id in ids:
            there = (out / scene_id).exists()
            faults = _convert_scene(source, scene_id, out)
            broken += [(scene_id, fault) for fault in faults]
            written, kept = written + (not faults and not there), kept + (not faults and there)
            progress.advance(1)
    lists = Faults()
    lists.attempt(_write_splits, source, ids, out)
    broken += [("splits", fault) for fault in lists.found]
    for scene_id, fault in broken:
        console.print(f"- {scene_id}: {fault}", markup=False, highlight=False, soft_wrap=True)
    left_out = len(ids) - written - kept
    console.print(
        f"{counted(written, 'scene')} written to {out}, {kept:,} were there, {left_out:,} left out",
        markup=False,
        highlight=False,
        soft_wrap=True,
    )
    return 1 if broken else 0


def as_wai(view: View, known_masks: Collection[str]) -> View:
    """The same view with what WAI has no place for written into its pixels.

    An image that an EXIF orientation turns is stored upright, as PNG; masks that readers of the
    dataset do not know of take their depth away.
    """
    return _masked(_upright(view), known_masks)


def _convert_scene(source: SceneSource, scene_id: str, out: Path) -> Iterable[SceneError]:
    """Writes the scene, or gives its faults."""
    inspection: Inspection = inspect(source, scene_id)
    if inspection.faults or inspection.scene is None:
        return inspection.faults
    try:
        scene = inspection.scene
        known = {name for name, _ in rules_of(scene.dataset).masks}
        write_wai(scene, out / scene_id, lambda view: as_wai(view, known))
    except SceneError as error:
        return (error,)
    except OSError as error:
        raise _not_written(error, out / scene_id) from error
    return ()


def _upright(view: View) -> View:
    if view.orientation == 1:
        return view
    png = BytesIO()
    Image.fromarray(decode_image(view)).save(png, "PNG")
    return replace(view, image=Blob(suffix="png", data=png.getvalue()), orientation=1)


def _masked(view: View, known_masks: Collection[str]) -> View:
    if view.depth is None or view.masks.keys() <= set(known_masks):
        return view
    width, height = image_size(view.image, view.orientation)
    depth_m = decode_depth(view, (height, width))
    assert depth_m is not None
    return replace(view, depth=Blob(suffix="exr", data=write_exr(depth_m, half=False)))


def _not_written(error: OSError, folder: Path) -> SceneError | DiskFullError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFullError(
            "the disk is full.",
            where=folder,
            why="the scenes before this one are whole",
            fix="make room and run the same command again: it continues with this scene",
        )
    return SceneError(
        f"the scene cannot be written: {error.strerror}.",
        where=folder,
        fix="check that the folder exists, is mounted and may be written",
    )


def _write_splits(source: SceneSource, ids: list[str], out: Path) -> None:
    """The lists of splits, as far as they name scenes that were asked for."""
    for name, members in source.splits().items():
        split, _, dataset = name.partition("/")
        names = [scene_id.partition("/")[2] for scene_id in members if scene_id in set(ids)]
        if names:
            write_names(names, split, dataset, out)
