"""Which common mistakes explain why a scene's depth, cameras and pictures do not fit together.

Every hypothesis is applied and measured; one is believed where both depth and looks together fit
clearly better with it. A scene that fits as it is has no hypothesis that would make it better.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .agreement import covisible_pairs
from .consistency import Fit, Pairs, PlacedView, changed, depth_error, measure, placed
from .decode import image_size
from .hypotheses import (
    HALF_PIXELS,
    MILLIMETRE_DEPTH,
    MILLIMETRES,
    POSES,
    RAY_LENGTH,
    SWAPPED_CENTRE,
    Change,
    scaled_poses,
)
from .scene import Scene

MOST_PAIRS = 12
# Right scenes measured: no wrong hypothesis gained more than 0.01, while mending gains 0.05 and more.
LEAST_GAIN = 0.03
GOOD_AGREEMENT = 0.5
# A scale that is off by less is a matter of calibration, not a mistake.
LEAST_SCALE = 1.05
# Metric rooms and streets have medians of metres; hundreds are millimetres or centimetres.
LARGEST_MEDIAN_M = 100.0
# Half a pixel is believed where it takes away so much of the depth error.
HALF_PIXEL_ERROR = 0.6

COARSE_SCALES = tuple(float(s) for s in np.geomspace(1e-4, 1e4, 71))
NEAR_SCALES = (1e-3, 1e-2, *(1.25**k for k in (-4, -3, -2, -1, 1, 2, 3, 4)), 1e2, 1e3)
COARSE_TOLERANCE, COARSE_POINTS, COARSE_PAIRS = 0.15, 800, 6
REFINEMENTS = (1.25, 1.1, 1.04, 1.015, 1.005)
FINE_REFINEMENTS = (1.005, 1.0025, 1.001, 1.0005)


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One mistake of a scene.

    Attributes:
        change: what would mend it.
        before, after: how well the scene fits without and with the change.
    """

    change: Change
    before: Fit
    after: Fit

    def __str__(self) -> str:
        return f"as it is, {self.before}; mended, {self.after}"


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """What was measured about a scene.

    Attributes:
        fit: of the scene as it is; None where no two views can be compared.
        findings: mistakes, in the order in which they are to be mended.
        hints: what may be wrong and cannot be measured here.
        covisible: whether the pairs come from the scene's covisibility, so that they should agree.
    """

    fit: Fit | None = None
    findings: tuple[Finding, ...] = ()
    hints: tuple[str, ...] = ()
    covisible: bool = False

    @property
    def mended(self) -> Fit | None:
        """The fit after all changes."""
        return self.findings[-1].after if self.findings else self.fit

    @property
    def changes(self) -> tuple[Change, ...]:
        return tuple(finding.change for finding in self.findings)


def diagnose(scene: Scene, pairs: Pairs | None = None) -> Diagnosis:
    """What is wrong with the geometry of a scene.

    Args:
        scene: views without geometry are left aside.
        pairs: views that should agree; None = those its covisibility names, else neighbours.

    Raises:
        SceneError: a view cannot be decoded.
    """
    chosen = _spread(covisible_pairs(scene) if pairs is None else pairs)
    covisible = bool(chosen)
    chosen = chosen or _neighbours(scene)
    if not chosen:
        return Diagnosis()
    views = {index: placed(scene.views[index]) for index in sorted({i for pair in chosen for i in pair})}
    search = _Search(views=views, pairs=chosen)
    fit = search.fit()
    start = search
    if fit.agreement < GOOD_AGREEMENT:
        search = search.from_afar()
    search = search.nearby()
    search = search.half_pixel(believe_depth=search.fit().agreement >= GOOD_AGREEMENT)
    sound = search.fit().agreement >= min(GOOD_AGREEMENT, fit.agreement)
    findings = search.findings if sound and (covisible or search.fit().agreement >= GOOD_AGREEMENT) else ()
    units = _units(scene, search if findings else start)
    return Diagnosis(
        fit=fit,
        findings=(*findings, *units),
        hints=_hints(scene, findings),
        covisible=covisible,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Search:
    """Views with the changes that were found so far."""

    views: dict[int, PlacedView]
    pairs: Pairs
    findings: tuple[Finding, ...] = ()

    def fit(self) -> Fit:
        return self.findings[-1].after if self.findings else measure(self.views, self.pairs)

    def tried(self, change: Change) -> _Search:
        """With one change more."""
        views = {index: changed(view, change) for index, view in self.views.items()}
        found = Finding(change=change, before=self.fit(), after=measure(views, self.pairs))
        return replace(self, views=views, findings=(*self.findings, found))

    def from_afar(self) -> _Search:
        """The best of all poses and scales, for scenes that do not fit at all."""
        poses = [self, *(self.tried(change) for change in POSES)]
        scaled = [self._best_scale(search, COARSE_SCALES) for search in poses]
        found = max([*poses, *scaled], key=lambda search: search.fit().total)
        believed = found.fit().agreement >= GOOD_AGREEMENT and _gain(self, found) > LEAST_GAIN
        return found if believed else self

    def nearby(self) -> _Search:
        """Adds single changes as long as one of them makes a clear difference."""
        search = self
        for _ in range(4):
            found = max(search._single_changes(), key=lambda other: other.fit().total)
            if _gain(search, found) <= LEAST_GAIN:
                break
            search = found
        return search

    def half_pixel(self, believe_depth: bool) -> _Search:
        """Adds half a pixel where depth is exact enough to show it."""
        if not believe_depth:
            return self
        error = depth_error(self.views, self.pairs)
        errors = {}
        for change in HALF_PIXELS:
            found = self.tried(change)
            errors[depth_error(found.views, self.pairs)] = found
        best = min(errors)
        return errors[best] if best < HALF_PIXEL_ERROR * error else self

    def _single_changes(self) -> Iterable[_Search]:
        done = {finding.change.kind for finding in self.findings}
        changes = [*POSES, SWAPPED_CENTRE, RAY_LENGTH]
        yield from (self.tried(change) for change in changes if change.kind not in done)
        if "scale" not in done:
            yield self._best_scale(self, NEAR_SCALES)

    def _best_scale(self, search: _Search, scales: Sequence[float]) -> _Search:
        """`search` with the translations scaled, coarsely found and then refined."""
        few = search.pairs[:: -(-len(search.pairs) // COARSE_PAIRS)]

        def scaled(factor: float) -> dict[int, PlacedView]:
            change = scaled_poses(factor)
            return {index: changed(view, change) for index, view in search.views.items()}

        def coarse(factor: float) -> float:
            return measure(scaled(factor), few, COARSE_TOLERANCE, COARSE_POINTS).total

        def total(factor: float) -> float:
            return measure(scaled(factor), search.pairs).total

        def exact(factor: float) -> float:
            return -depth_error(scaled(factor), search.pairs)

        best = max(scales, key=coarse)
        for steps, score in ((REFINEMENTS, total), (FINE_REFINEMENTS, exact)):
            for step in steps:
                best = max((best, best / step, best * step), key=score)
        return search.tried(_scale(best, search)) if not 1 / LEAST_SCALE < best < LEAST_SCALE else search


def _scale(factor: float, search: _Search) -> Change:
    """The change for a factor; a thousand is millimetres on the side that is implausible in metres."""
    if abs(np.log(factor / 1e3)) < np.log(LEAST_SCALE) and _median(search) > LARGEST_MEDIAN_M:
        return MILLIMETRE_DEPTH
    return scaled_poses(factor)


def _gain(before: _Search, after: _Search) -> float:
    return after.fit().total - before.fit().total


def _units(scene: Scene, search: _Search) -> tuple[Finding, ...]:
    """Depth of hundreds of metres in a scene that calls itself metric."""
    if scene.scale_type == "colmap" or _median(search) <= LARGEST_MEDIAN_M:
        return ()
    return (search.tried(MILLIMETRES).findings[-1],)


def _median(search: _Search) -> float:
    medians = [np.median(v.depth_m[v.depth_m > 0]) for v in search.views.values() if (v.depth_m > 0).any()]
    return float(np.median(medians)) if medians else 0.0


def _hints(scene: Scene, findings: Sequence[Finding]) -> tuple[str, ...]:
    if any(finding.change.kind == "half pixel" for finding in findings):
        return ()
    sizes = [image_size(view.image, view.orientation) for view in scene.views if view.K_px is not None]
    centres = [tuple(view.K_px[:2, 2]) for view in scene.views if view.K_px is not None]
    if sizes and all((w / 2, h / 2) == centre for (w, h), centre in zip(sizes, centres, strict=True)):
        return (
            "cx and cy are width / 2 and height / 2 exactly: often half a pixel too large, because "
            "integer coordinates are taken for the corners of pixels; depth here cannot tell",
        )
    return ()


def _spread(pairs: Pairs) -> list[tuple[int, int]]:
    kept = np.unique(np.linspace(0, len(pairs) - 1, min(len(pairs), MOST_PAIRS)).round().astype(int))
    return [pairs[k] for k in kept] if len(pairs) else []


def _neighbours(scene: Scene) -> list[tuple[int, int]]:
    usable = [index for index, view in enumerate(scene.views) if view.has_geometry]
    return _spread([(a, b) for a, b in zip(usable, usable[1:], strict=False)])
