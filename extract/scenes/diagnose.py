"""What is wrong with the geometry of a scene, found out by comparing its views."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .agreement import covisible_pairs
from .consistency import Fit, Pairs, placed
from .decode import image_size
from .hypotheses import Change
from .scene import Scene
from .search import GOOD_AGREEMENT, Finding, Search

MOST_PAIRS = 12


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
    def fits(self) -> bool:
        """Whether depth and cameras agree after all changes."""
        return self.mended is not None and self.mended.agreement >= GOOD_AGREEMENT

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
    named = _spread(covisible_pairs(scene) if pairs is None else pairs)
    chosen = named or _neighbours(scene)
    if not chosen:
        return Diagnosis()
    views = {index: placed(scene.views[index]) for index in sorted({i for pair in chosen for i in pair})}
    start = Search.begin(views, chosen)
    found = (start if start.fits else start.from_afar()).nearby()
    if not found.fits:
        # What does not explain the scene is no mistake of it.
        return Diagnosis(fit=start.fit, hints=_hints(scene), covisible=bool(named))
    found = found.half_pixel()
    centred = any(finding.change.kind == "half pixel" for finding in found.findings)
    if scene.scale_type != "colmap":
        found = found.units()
    return Diagnosis(
        fit=start.fit,
        findings=found.findings,
        hints=() if centred else _hints(scene),
        covisible=bool(named),
    )


def _hints(scene: Scene) -> tuple[str, ...]:
    views = [view for view in scene.views if view.K_px is not None]
    sizes = [image_size(view.image, view.orientation) for view in views]
    centres = [tuple(view.K_px[:2, 2]) for view in views if view.K_px is not None]
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
    return _spread(list(pairwise(usable)))
