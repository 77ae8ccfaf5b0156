"""What belongs to views beside their features: token points, depth and cameras.

Shapes: V views, R C token rows and columns, H W pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenPoints:
    """One 3D point per token, the same for every encoder.

    Attributes:
        world: [V, R, C, 3] f32 world coordinates, NaN = none.
        valid: [V, R, C] bool, at least half of the cell's source pixels have depth.
        spread_m: [V, R, C] f32, standard deviation of the depths used.
    """

    world: np.ndarray
    valid: np.ndarray
    spread_m: np.ndarray


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewGeometry:
    """Depth and cameras of the preprocessed views.

    Attributes:
        depth_m: [V, H, W] f32 z-depth, 0 = none or not valid.
        valid: [V, H, W] bool.
        K_px: [V, 3, 3] f64 intrinsics of the preprocessed views, NaN = unknown.
        cam_from_world: [V, 4, 4] f64 rigid poses, NaN = unknown.
    """

    depth_m: np.ndarray
    valid: np.ndarray
    K_px: np.ndarray
    cam_from_world: np.ndarray
