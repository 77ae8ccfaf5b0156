"""`strata scenes check`: every fault of every scene at once, and what each scene is good for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console

from ...configs.schema import CheckConfig
from ...errors import SceneError
from .agreement import likely_cause, scene_agreement
from .check_picture import draw_scene
from .decode import decode_depth, decode_image, image_size
from .inspection import Faults, inspect
from .open import open_scenes
from .scene import Scene, SceneSource, View

LEAST_AGREEMENT = 0.5
# Metric rooms and streets have medians of metres; hundreds are millimetres or centimetres.
LARGEST_MEDIAN_M = 100.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One thing that is wrong with a scene, in the four parts of an error."""

    scene: str
    what: str
    where: str = ""
    why: str = ""
    fix: str = ""

    @classmethod
    def of(cls, scene: str, error: SceneError) -> Fault:
        return cls(scene=scene, what=error.what, where=error.where, why=error.why, fix=error.fix)

    def __str__(self) -> str:
        return str(SceneError(self.what, where=self.where, why=self.why, fix=self.fix))


@dataclass(frozen=True, kw_only=True)
class Report:
    """What was found out about a scene.

    Attributes:
        scene: its id.
        views: how many could be read.
        faults: everything that is wrong.
        depth_agreement: see `scene_agreement`; None where it could not be measured.
        lacking: by command, what the scene lacks for it; empty = nothing.
    """

    scene: str
    views: int
    faults: tuple[Fault, ...]
    depth_agreement: float | None
    lacking: dict[str, str]


def check(config: CheckConfig, console: Console) -> int:
    """Prints a report per scene and, with `out`, draws a picture; returns 1 if there are faults.

    Raises:
        SceneError: there are no scenes.
    """
    source = open_scenes(config.scenes, config.source, config.split)
    reports = []
    for scene_id in source.ids():
        report, scene = _examined(source, scene_id)
        reports.append(report)
        _print(report, console)
        if config.out and scene is not None and len(scene):
            path = draw_scene(scene, Path(config.out), config.views)
            console.print(f"  picture  {path}", markup=False, highlight=False)
    faults, broken = sum(len(r.faults) for r in reports), sum(bool(r.faults) for r in reports)
    console.print(f"{len(reports):,} scenes, {faults:,} faults in {broken:,} of them", highlight=False)
    return 1 if faults else 0


def check_scene(source: SceneSource, scene_id: str) -> list[Fault]:
    """Every fault of a scene; none of them hides another."""
    return list(examine(source, scene_id).faults)


def examine(source: SceneSource, scene_id: str) -> Report:
    """Faults, depth agreement and uses of a scene."""
    return _examined(source, scene_id)[0]


def _examined(source: SceneSource, scene_id: str) -> tuple[Report, Scene | None]:
    faults = Faults()
    inspection = faults.attempt(inspect, source, scene_id)
    scene = inspection.scene if inspection else None
    faults.found.extend(inspection.faults if inspection else ())
    agreement = _check_arrays(scene, faults) if scene else None
    report = Report(
        scene=scene_id,
        views=len(scene) if scene else 0,
        faults=tuple(Fault.of(scene_id, error) for error in faults.found),
        depth_agreement=agreement,
        lacking=_lacking(scene),
    )
    return report, scene


def _check_arrays(scene: Scene, faults: Faults) -> float | None:
    """Decodes everything; returns the depth agreement if all of it could be decoded."""
    before = len(faults.found)
    medians = [median for view in scene.views for median in _check_view(view, faults)]
    if len(faults.found) > before:
        return None
    faults.attempt(_check_units, scene, medians)
    agreement = scene_agreement(scene)
    faults.attempt(_check_agreement, scene, agreement)
    return agreement


def _check_view(view: View, faults: Faults) -> Iterator[float]:
    """Yields the median of the view's depth, if it has any."""
    faults.attempt(decode_image, view)
    try:
        width, height = image_size(view.image, view.orientation)
    except SceneError:
        return  # decoding the image has said so
    depth_m = faults.attempt(decode_depth, view, (height, width))
    if depth_m is not None and (depth_m > 0).any():
        yield float(np.median(depth_m[depth_m > 0]))
    faults.attempt(_check_centre, view, width, height)


def _check_centre(view: View, width: int, height: int) -> None:
    if view.K_px is None:
        return
    cx, cy = view.K_px[0, 2], view.K_px[1, 2]
    if not (width / 4 <= cx <= 3 * width / 4 and height / 4 <= cy <= 3 * height / 4):
        raise SceneError(
            f"the principal point of {view.name} is far from the middle of the image.",
            where=view.image.where,
            why=f"cx={cx:.1f}, cy={cy:.1f} in an image of {width} x {height}",
            fix="give the intrinsics for the size that the image has",
        )


def _check_units(scene: Scene, medians: list[float]) -> None:
    median = float(np.median(medians)) if medians else 0.0
    if scene.scale_type != "colmap" and median > LARGEST_MEDIAN_M:
        raise SceneError(
            f"the depth of {scene.id} does not look like metres.",
            where=scene.id,
            why=f"its median is {median:,.0f}",
            fix="divide depth by 1,000 if it is in millimetres, or write scale_type colmap",
        )


def _check_agreement(scene: Scene, agreement: float | None) -> None:
    if agreement is not None and agreement < LEAST_AGREEMENT:
        cause = likely_cause(scene, agreement)
        raise SceneError(
            f"depth and cameras of {scene.id} do not fit together.",
            where=scene.id,
            why=f"{agreement:.0%} of the pixels of covisible views agree in depth to 2 %, "
            f"{LEAST_AGREEMENT:.0%} are expected",
            fix=cause or "poses may be inverted, have OpenGL axes or another scale than the depth",
        )


def _lacking(scene: Scene | None) -> dict[str, str]:
    views = scene.views if scene else ()
    images = "" if views else "views"
    depth = "" if any(view.depth for view in views) else "depth"
    geometry = "" if sum(view.has_geometry for view in views) > 1 else "two views with depth and camera"
    covisible = "" if scene and scene.covisibility is not None else "covisibility"
    together = " and ".join(filter(None, (geometry, covisible)))
    return {
        "extract": images,
        "sets": covisible,
        "depth": depth,
        "correspondence": together,
        "train": together,
    }


def _print(report: Report, console: Console) -> None:
    can = [name for name, lack in report.lacking.items() if not lack]
    agreement = report.depth_agreement
    lines = [
        f"{report.scene}: {report.views:,} views, {len(report.faults) or 'no'} faults",
        f"  agrees   {'not measured' if agreement is None else f'{agreement:.1%} of covisible depth'}",
        f"  good for {', '.join(can) or 'nothing'}",
        *(f"  not for  {name}: no {lack}" for name, lack in report.lacking.items() if lack),
        *(f"- {fault}" for fault in report.faults),
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
