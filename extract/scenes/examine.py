"""Reading all of a scene and finding all of its faults."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np

from ...errors import SceneError, first_few
from .agreement import scene_agreement
from .check_report import Examination, Fault, Report
from .covisibility_check import check_covisibility, own_pairs
from .decode import decode_depth, decode_image
from .diagnose import Diagnosis, diagnose
from .inspection import Faults, inspect
from .mend import doubled
from .scene import Scene, SceneSource, View
from .search import GOOD_AGREEMENT, LARGEST_MEDIAN_M


def examined(source: SceneSource, scene_id: str) -> Examination:
    """Everything that `strata scenes check` knows of a scene."""
    faults = Faults()
    inspection = faults.attempt(inspect, source, scene_id)
    scene = inspection.scene if inspection else None
    faults.found.extend(inspection.faults if inspection else ())
    diagnosis, doubles, agreement = Diagnosis(), (), None
    if scene is not None and len(scene):
        diagnosis, doubles, agreement = _check_arrays(scene, faults)
    report = Report(
        scene=scene_id,
        views=len(scene) if scene else 0,
        faults=tuple(Fault.of(scene_id, error) for error in faults.found),
        depth_agreement=agreement,
        lacking=_lacking(scene, diagnosis),
        hints=diagnosis.hints,
    )
    return Examination(report=report, scene=scene, diagnosis=diagnosis, doubles=doubles)


def _check_arrays(scene: Scene, faults: Faults) -> tuple[Diagnosis, tuple[int, ...], float | None]:
    """(diagnosis, views that repeat others, depth agreement), of a scene that can be decoded whole."""
    before = len(faults.found)
    read = [_read(view, faults) for view in scene.views]
    sizes = [size for size, _, _ in read]
    doubles = doubled(scene, [digest for _, digest, _ in read])
    whole = len(faults.found) == before
    faults.attempt(_check_doubles, scene, doubles)
    diagnosis = _diagnosed(scene, faults) if whole else Diagnosis()
    faults.found.extend(_geometry_faults(scene, diagnosis))
    if diagnosis.fit is None:
        faults.attempt(_check_units, scene, [median for *_, median in read if median is not None])
    if not any(change.kind == "centre" for change in diagnosis.changes):
        for view, size in zip(scene.views, sizes, strict=True):
            faults.attempt(_check_centre, view, size)
    return diagnosis, tuple(doubles), scene_agreement(scene) if whole else None


def _read(view: View, faults: Faults) -> tuple[tuple[int, ...] | None, str | None, float | None]:
    """(height and width, digest of the pixels, median depth) of a view, each None if there is none."""
    image = faults.attempt(decode_image, view)
    if image is None:
        return None, None, None
    digest = hashlib.sha256(repr(image.shape).encode() + image.tobytes()).hexdigest()
    depth_m = faults.attempt(decode_depth, view, image.shape[:2])
    median = float(np.median(depth_m[depth_m > 0])) if depth_m is not None and (depth_m > 0).any() else None
    return image.shape[:2], digest, median


def _diagnosed(scene: Scene, faults: Faults) -> Diagnosis:
    """What is wrong with the geometry, and whether covisibility matches it."""
    diagnosis = diagnose(scene)
    if diagnosis.covisible and not diagnosis.fits:
        # Perhaps the cameras are right, and the matrix names the wrong pairs.
        pairs = own_pairs(scene)
        other = diagnose(scene, pairs) if pairs else diagnosis
        diagnosis = other if other.fits else diagnosis
    if diagnosis.fits:
        faults.attempt(check_covisibility, scene, diagnosis.changes)
    return diagnosis


def _geometry_faults(scene: Scene, diagnosis: Diagnosis) -> Iterator[SceneError]:
    for finding in diagnosis.findings:
        yield SceneError(
            f"{finding.change.what}.",
            where=scene.id,
            why=str(finding),
            fix=f"{finding.change.fix}; `strata scenes check` with fix=OUT writes such a copy",
        )
    if diagnosis.covisible and not diagnosis.findings and not diagnosis.fits:
        yield SceneError(
            f"depth and cameras of {scene.id} do not fit together.",
            where=scene.id,
            why=f"{diagnosis.fit}, {GOOD_AGREEMENT:.0%} is expected; no common mistake explains it",
            fix="look at the order of the frames, at the poses' accuracy and at the sizes of the images",
        )


def _check_doubles(scene: Scene, doubles: dict[int, int]) -> None:
    if doubles:
        names = [view.name for view in scene.views]
        raise SceneError(
            f"{len(doubles):,} frames of {scene.id} repeat others.",
            where=scene.id,
            why=f"same pixels: {first_few(f'{names[a]} = {names[b]}' for a, b in doubles.items())}",
            fix="leave the later ones out; `strata scenes check` with fix=OUT writes such a copy",
        )


def _check_centre(view: View, size: tuple[int, ...] | None) -> None:
    if view.K_px is None or size is None:
        return
    height, width = size
    cx, cy = view.K_px[0, 2], view.K_px[1, 2]
    if not (width / 4 <= cx <= 3 * width / 4 and height / 4 <= cy <= 3 * height / 4):
        raise SceneError(
            f"the principal point of {view.name} is far from the middle of the image.",
            where=view.image.where,
            why=f"cx={cx:.1f}, cy={cy:.1f} in an image of {width} x {height}",
            fix="give the intrinsics for the size that the image has",
        )


def _check_units(scene: Scene, medians: list[float]) -> None:
    """For scenes whose views cannot be compared; `diagnose` knows more of the others."""
    median = float(np.median(medians)) if medians else 0.0
    if scene.scale_type != "colmap" and median > LARGEST_MEDIAN_M:
        raise SceneError(
            f"the depth of {scene.id} does not look like metres.",
            where=scene.id,
            why=f"its median is {median:,.0f}",
            fix="divide depth by 1,000 if it is in millimetres, or write scale_type colmap",
        )


def _lacking(scene: Scene | None, diagnosis: Diagnosis) -> dict[str, str]:
    views = scene.views if scene else ()
    images = "" if views else "views"
    depth = "" if any(view.depth for view in views) else "depth"
    geometry = "" if sum(view.has_geometry for view in views) > 1 else "two views with depth and camera"
    covisible = "" if scene and scene.covisibility is not None else "covisibility"
    wrong = bool(diagnosis.findings) or (bool(diagnosis.covisible) and not diagnosis.fits)
    fitting = "geometry that fits together" if wrong else ""
    together = " and ".join(filter(None, (geometry, fitting, covisible)))
    return {
        "extract": images,
        "sets": covisible,
        "depth": depth,
        "correspondence": together,
        "train": together,
    }
