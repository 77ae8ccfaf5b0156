"""The folder of one reconstruction: files for people and programs, and the record that commits them.

    cameras.json  depth/<view>.exr  confidence/<view>.exr  points.ply  contact_sheet.png  viewer.html
    reconstruction.json     config, provenance, fingerprint, scores, the files; written last

Without the record there is no reconstruction; with another fingerprint it is made anew.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import StoreError
from ...extract.scenes.exr import write_exr
from ...store.atomic import read_json, remove_abandoned, write_atomic, write_json
from .cameras import cameras_document
from .contact_sheet import contact_sheet
from .fuse import PointCloud
from .point_file import why_no_ply, write_ply
from .prediction import Prediction
from .viewer import viewer_page

RECORD = "reconstruction.json"
FORMAT, VERSION = "strata-reconstruction", 1
CAMERAS, SHEET, VIEWER, PLY = "cameras.json", "contact_sheet.png", "viewer.html", "points.ply"


def finished(folder: Path, fingerprint: str) -> dict[str, Any] | None:
    """The record of an equal reconstruction whose files are all there.

    A PLY file that was left out for want of open3d is wanted again as soon as open3d imports.
    """
    record = read_record(folder)
    if record.get("fingerprint") != fingerprint:
        return None
    if not all((folder / name).is_file() for name in record["files"]):
        return None
    missed = record["left_out"] and record["points"] and not why_no_ply()
    return None if missed else record


def write_reconstruction(
    folder: Path,
    prediction: Prediction,
    cloud: PointCloud,
    *,
    title: str,
    unit: str,
    notes: Sequence[str],
    record: Mapping[str, Any],
) -> dict[str, Any]:
    """Write everything; files of an earlier reconstruction that are not written again go.

    Args:
        folder: of this reconstruction; it is made.
        prediction, cloud: what is written.
        title: name of the scene.
        unit: what a length of 1 means, in words.
        notes: facts for the viewer.
        record: what goes into the record beside files and counts; `fingerprint` is in it.

    Returns:
        The record.

    Raises:
        StoreError: the folder cannot be written.
    """
    before = set(read_record(folder).get("files", ()))
    (folder / RECORD).unlink(missing_ok=True)
    remove_abandoned(folder)
    write_json(folder / CAMERAS, cameras_document(prediction, unit))
    write_atomic(folder / SHEET, contact_sheet(prediction, title))
    write_atomic(folder / VIEWER, viewer_page(prediction, cloud, title=title, notes=notes).encode())
    left_out = _write_points(folder, cloud)
    files = [*_write_maps(folder, prediction), CAMERAS, SHEET, VIEWER, *([] if left_out else [PLY])]
    for name in before - set(files):
        (folder / name).unlink(missing_ok=True)
    counts = {"views": len(prediction.frames), "points": len(cloud)}
    whole = {"format": FORMAT, "version": VERSION, **record, **counts, "files": files, "left_out": left_out}
    write_json(folder / RECORD, whole)
    return whole


def read_record(folder: Path) -> dict[str, Any]:
    """The record; empty where there is none, or a damaged one."""
    with suppress(StoreError, AttributeError):
        record = read_json(folder / RECORD)
        if (record.get("format"), record.get("version")) == (FORMAT, VERSION):
            return record
    return {}


def _write_maps(folder: Path, prediction: Prediction) -> list[str]:
    names = []
    for kind, maps in (("depth", prediction.shown_depth), ("confidence", prediction.confidence)):
        for name, pixels in zip(prediction.frames.names, maps, strict=True):
            names.append(f"{kind}/{name}.exr")
            write_atomic(folder / names[-1], write_exr(np.asarray(pixels, np.float32), half=False))
    return names


def _write_points(folder: Path, cloud: PointCloud) -> dict[str, str]:
    """What was left out, with the reason."""
    why = why_no_ply() if len(cloud) else "no point is left"
    if not why:
        write_ply(cloud, folder / PLY)
    return {PLY: why} if why else {}
