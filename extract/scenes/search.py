"""The search for the changes that make views of a scene explain each other.

Every hypothesis is applied and measured. One is believed where depth and looks together fit clearly
better with it; a right scene has none that does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np

from .consistency import Fit, Pairs, PlacedView, changed, depth_error, measure
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

# On right scenes no wrong hypothesis gained more than 0.01, while mending gains 0.05 and more.
LEAST_GAIN = 0.03
GOOD_AGREEMENT = 0.5
# A scale that is off by less is a matter of calibration, not a mistake.
LEAST_SCALE = 1.05
# Metric rooms and streets have medians of metres; hundreds are millimetres or centimetres.
LARGEST_MEDIAN_M = 100.0
# Half a pixel is believed where it takes away so much of the depth error.
HALF_PIXEL_ERROR = 0.6

# Right scenes are at 1.4 and more, wrong ones below 1.
CLEAR_TOTAL = 1.2
FAR_SCALES = tuple(float(s) for s in np.geomspace(1e-4, 1e4, 71))
NEAR_SCALES = (1.0, 1e-3, 1e-2, 0.4, 0.5, 0.64, 0.8, 0.9, 1.1, 1.25, 1.6, 2.0, 2.5, 1e2, 1e3)
COARSE_TOLERANCE, COARSE_POINTS, COARSE_PAIRS = 0.15, 800, 4
STEPS, FINE_STEPS = (1.25, 1.1, 1.04, 1.015, 1.005), (1.005, 1.0025, 1.001, 1.0005)


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


@dataclass(frozen=True, kw_only=True, eq=False)
class Search:
    """Views with the changes that were found so far.

    Attributes:
        views: by index, changed.
        pairs: which views are compared.
        fit: of the views as they are now.
        findings: the changes, in order.
    """

    views: dict[int, PlacedView]
    pairs: Pairs
    fit: Fit
    findings: tuple[Finding, ...] = ()

    @classmethod
    def begin(cls, views: dict[int, PlacedView], pairs: Pairs) -> Search:
        """Nothing changed yet."""
        return cls(views=views, pairs=pairs, fit=measure(views, pairs))

    @property
    def fits(self) -> bool:
        return self.fit.agreement >= GOOD_AGREEMENT

    @property
    def median_depth_m(self) -> float:
        """The median of the views' medians; 0 without depth."""
        depths = (view.depth_m[view.depth_m > 0] for view in self.views.values())
        medians = [np.median(depth) for depth in depths if len(depth)]
        return float(np.median(medians)) if medians else 0.0

    def tried(self, change: Change) -> Search:
        """With one change more."""
        views = {index: changed(view, change) for index, view in self.views.items()}
        fit = measure(views, self.pairs)
        found = Finding(change=change, before=self.fit, after=fit)
        return replace(self, views=views, fit=fit, findings=(*self.findings, found))

    def from_afar(self) -> Search:
        """The best single change if it is clear, else that of all poses and scales together."""
        alone = [self, *map(self.tried, (*POSES, SWAPPED_CENTRE, RAY_LENGTH))]
        clear = max(alone, key=lambda search: search.fit.total)
        if clear.fits and clear.fit.total > CLEAR_TOTAL:
            return clear
        posed = alone[: 1 + len(POSES)]
        scales = (1.0, *FAR_SCALES)
        tries = ((search, factor, search._coarse(factor)) for search in posed for factor in scales)
        best, factor, _ = max(tries, key=lambda tried: tried[2])
        found = best._scaled(factor)
        return found if found.fits and found.gain(self) > LEAST_GAIN else self

    def nearby(self) -> Search:
        """Adds single changes as long as one of them makes a clear difference."""
        best = max(self._single_changes(), key=lambda search: search.fit.total)
        return best.nearby() if best.gain(self) > LEAST_GAIN else self

    def half_pixel(self) -> Search:
        """Adds half a pixel where depth is exact enough to show it."""
        tries = [(depth_error(search.views, search.pairs), search) for search in map(self.tried, HALF_PIXELS)]
        error, best = min(tries, key=lambda tried: tried[0])
        return best if error < HALF_PIXEL_ERROR * depth_error(self.views, self.pairs) else self

    def units(self) -> Search:
        """Adds millimetres where everything fits and is a thousand times too large for metres."""
        return self.tried(MILLIMETRES) if self.median_depth_m > LARGEST_MEDIAN_M else self

    def gain(self, before: Search) -> float:
        return self.fit.total - before.fit.total

    def _single_changes(self) -> Iterable[Search]:
        done = {finding.change.kind for finding in self.findings}
        changes = [*POSES, SWAPPED_CENTRE, RAY_LENGTH]
        yield self
        yield from (self.tried(change) for change in changes if change.kind not in done)
        if "scale" not in done:
            yield self._scaled(max(NEAR_SCALES, key=self._coarse))

    def _coarse(self, factor: float) -> float:
        """The fit with the translations scaled, of few pairs and so tolerant that its peak is wide."""
        few = self.pairs[:: -(-len(self.pairs) // COARSE_PAIRS)]
        return measure(self._with_scale(factor), few, COARSE_TOLERANCE, COARSE_POINTS).total

    def _scaled(self, factor: float) -> Search:
        """With the scale that is best near `factor`, if it is one."""

        def total(factor: float) -> float:
            return measure(self._with_scale(factor), self.pairs).total

        def exact(factor: float) -> float:
            return -depth_error(self._with_scale(factor), self.pairs)

        if factor == 1:
            return self
        best = _climbed(_climbed(factor, STEPS, total), FINE_STEPS, exact)
        if 1 / LEAST_SCALE < best < LEAST_SCALE:
            return self
        thousand = abs(np.log(best / 1e3)) < np.log(LEAST_SCALE)
        # A thousand is millimetres on the side that is implausible in metres.
        millimetre_depth = thousand and self.median_depth_m > LARGEST_MEDIAN_M
        return self.tried(MILLIMETRE_DEPTH if millimetre_depth else scaled_poses(best))

    def _with_scale(self, factor: float) -> dict[int, PlacedView]:
        change = scaled_poses(factor)
        return {index: changed(view, change) for index, view in self.views.items()}


def _climbed(start: float, steps: Sequence[float], score: Callable[[float], float]) -> float:
    """From `start` uphill, by factors that get smaller."""
    scored, best = cache(score), start
    for step in steps:
        best = max((best, best / step, best * step), key=scored)
    return best
