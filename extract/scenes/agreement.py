"""Do the depth maps of a scene agree through its cameras? The test of all conventions at once.

Shapes: H W pixels, P pairs. Frames: OpenCV axes; `depth_m` is z-depth, 0 = none.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch

from ...kernels.geometry import depth_agreement, invert_rigid
from .decode import decode_depth, image_size
from .scene import Scene, View

# As a share of the pixels with depth, so that sparse depth does not make views strangers.
COVISIBLE = 0.2
MOST_PAIRS = 48
# Every n-th pixel of the first view is asked, so that its long side has at most this many.
LONG_SIDE = 320


def covisible_pairs(scene: Scene) -> list[tuple[int, int]]:
    """At most `MOST_PAIRS` pairs (i, j) with geometry, spread evenly, where j sees enough of i."""
    if scene.covisibility is None or len(scene.covisibility) != len(scene):
        return []
    usable = [view.has_geometry for view in scene.views]
    own = np.diagonal(scene.covisibility)[:, None]
    seen = (scene.covisibility >= COVISIBLE * own) & (own > 0) & np.outer(usable, usable)
    np.fill_diagonal(seen, False)
    pairs = np.argwhere(seen)
    spread = np.linspace(0, len(pairs) - 1, min(len(pairs), MOST_PAIRS)).round().astype(int)
    return [(int(i), int(j)) for i, j in pairs[spread]]


def scene_agreement(scene: Scene) -> float | None:
    """The share of pixels of covisible pairs whose depth agrees to 2 % with the other view's.

    Pixels that are hidden in the other view are not compared.

    Args:
        scene: its covisibility says which pairs are compared.

    Returns:
        0 where no pixel even falls into the other view; None without covisible pairs.

    Raises:
        SceneError: a depth map cannot be decoded.
    """
    depth_of = lru_cache(maxsize=8)(lambda index: _depth(scene.views[index]))
    agreeing = compared = 0
    pairs = covisible_pairs(scene)
    for i, j in pairs:
        counts = _pair(scene.views[i], scene.views[j], depth_of(i), depth_of(j))
        agreeing, compared = agreeing + counts[0], compared + counts[1]
    return agreeing / max(compared, 1) if pairs else None


def _pair(a: View, b: View, depth_a: np.ndarray, depth_b: np.ndarray) -> tuple[int, int]:
    K_a, world_from_a = _camera(a)
    K_b, world_from_b = _camera(b)
    step = -(-max(depth_a.shape) // LONG_SIDE)
    # Pixel u' of the thinned map is pixel step * u' of the map, centre on centre.
    K_a = K_a / torch.tensor([[step], [step], [1]])
    return depth_agreement(
        torch.from_numpy(depth_a[::step, ::step]).double(),
        torch.from_numpy(depth_b).double(),
        K_a,
        K_b,
        invert_rigid(world_from_b) @ world_from_a,
    )


def _camera(view: View) -> tuple[torch.Tensor, torch.Tensor]:
    """K_px [3, 3] and world_from_cam [4, 4], f64."""
    assert view.K_px is not None
    assert view.world_from_cam is not None
    return torch.from_numpy(view.K_px), torch.from_numpy(view.world_from_cam)


def _depth(view: View) -> np.ndarray:
    width, height = image_size(view.image, view.orientation)
    depth_m = decode_depth(view, (height, width))
    assert depth_m is not None
    return depth_m
