"""Does a covisibility matrix match depth and cameras? Whatever its parameters were, it has bounds.

A view cannot see more of another than falls into its image, nor less than agrees in depth to 1 %.

Shapes: N views. Frames: OpenCV axes; `depth_m` is z-depth, 0 = none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...errors import SceneError
from .consistency import LEAST_SHARE, PlacedView, changed, placed
from .covisibility import OFFSET, covisibility_bounds, pairwise_covisibility
from .decode import decode_depth, image_size
from .hypotheses import Change
from .scene import Scene

MOST_VIEWS = 16
LONG_SIDE = 112
# Resampling, other tolerances and masks move a share by less than this.
SLACK = 0.1
MOST_OUTSIDE = 0.1
# WAI's offset and softness for depth of arbitrary scale, in the scene's own units.
LOOSE = 0.5


def own_pairs(scene: Scene) -> list[tuple[int, int]]:
    """Pairs of views that see each other by their own depth and cameras, not by the matrix.

    Raises:
        SceneError: a view cannot be decoded.
    """
    chosen, views = _chosen(scene)
    low, _ = _bounds(views)
    seen = low >= LEAST_SHARE * np.diagonal(low)[:, None]
    np.fill_diagonal(seen, False)
    # Wrong cameras make a few pairs meet by accident.
    enough = np.count_nonzero(seen.any(1)) > len(chosen) / 2
    return [(chosen[i], chosen[j]) for i, j in np.argwhere(seen)] if enough else []


def check_covisibility(scene: Scene, changes: Sequence[Change] = ()) -> None:
    """Holds the matrix against depth and cameras, which are right once the changes are made.

    One that counts tracks is another measure, and is left alone.

    Raises:
        SceneError: it does not match, or a view cannot be decoded.
    """
    if scene.covisibility is None or len(scene.covisibility) != len(scene):
        return
    if scene.covisibility_by != "depth":
        return
    chosen, views = _chosen(scene)
    if len(chosen) < 2:
        return
    for change in changes:
        views = [changed(view, change) for view in views]
    low, high = _bounds(views)
    given = scene.covisibility[np.ix_(chosen, chosen)]
    outside = np.maximum(low - given, given - high)[~np.eye(len(chosen), dtype=bool)] > SLACK
    if outside.mean() > MOST_OUTSIDE:
        raise SceneError(
            f"the covisibility of {scene.id} does not match its depth.",
            where=scene.id,
            why=f"{outside.mean():.0%} of the pairs share more or less than depth and cameras allow; "
            "the order of the frames may have changed",
            fix="compute it again: strata scenes check ... covisibility=make fix=OUT",
        )


def make_covisibility(scene: Scene) -> np.ndarray:
    """[N, N] f32, see `pairwise_covisibility`; views without geometry see nothing.

    Raises:
        SceneError: no view has depth and a camera, or one cannot be decoded.
    """
    usable = [index for index, view in enumerate(scene.views) if view.has_geometry]
    if not usable:
        raise SceneError(
            f"there is no covisibility of {scene.id}.",
            where=scene.id,
            why="no view has depth and a camera",
            fix="give depth, intrinsics and poses, or leave covisibility=make out",
        )
    views = [scene.views[index] for index in usable]
    depths = [decode_depth(view, image_size(view.image, view.orientation)[::-1]) for view in views]
    offset = LOOSE if scene.scale_type == "colmap" else OFFSET
    shares = pairwise_covisibility(
        [depth for depth in depths if depth is not None],
        [view.K_px for view in views if view.K_px is not None],
        [view.world_from_cam for view in views if view.world_from_cam is not None],
        offset=offset,
        softness=offset,
    )
    whole = np.zeros((len(scene), len(scene)), np.float32)
    whole[np.ix_(usable, usable)] = shares
    return whole


def _chosen(scene: Scene) -> tuple[list[int], list[PlacedView]]:
    usable = [index for index, view in enumerate(scene.views) if view.has_geometry]
    spread = np.linspace(0, len(usable) - 1, min(len(usable), MOST_VIEWS)).round().astype(int)
    chosen = [usable[k] for k in spread]
    return chosen, [placed(scene.views[index]) for index in chosen]


def _bounds(views: list[PlacedView]) -> tuple[np.ndarray, np.ndarray]:
    return covisibility_bounds(
        [view.depth_m for view in views],
        [view.K_px for view in views],
        [view.world_from_cam for view in views],
        long_side=LONG_SIDE,
    )
