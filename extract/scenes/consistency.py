"""How well views of one scene explain each other: depth by depth, and picture by picture.

Pixels of one view are moved through the cameras into another. Where the cameras and depth are right,
depth there is the same and the pictures look alike; a wrong convention destroys both.

Shapes: H W pixels, P points of a view. Frames: OpenCV axes; `depth_m` is z-depth, 0 = none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from .decode import decode_depth, decode_image
from .hypotheses import Change
from .scene import View

LONG_SIDE = 640
POINTS = 4000
TOLERANCE = 0.02
# As in `depth_agreement`: views that should see each other share at least so much of their pixels.
LEAST_SHARE = 0.2
# Fewer pixels than this say nothing about looks.
LEAST_PIXELS = 50

Pairs = Sequence[tuple[int, int]]


@dataclass(frozen=True, kw_only=True, eq=False)
class PlacedView:
    """The arrays of a view, thinned to at most `LONG_SIDE` pixels along the long side.

    Attributes:
        depth_m: [H, W] f32.
        grey: [H, W] f32, 0 to 255.
        K_px: [3, 3] f64, for the thinned size.
        world_from_cam: [4, 4] f64.
    """

    depth_m: np.ndarray
    grey: np.ndarray
    K_px: np.ndarray
    world_from_cam: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Fit:
    """How well views explain each other.

    Attributes:
        agreement: share of the pixels that should agree in depth, and do to the tolerance.
        depth: the same with weights, 1 for equal depth falling to 0 at the tolerance.
        looks: mean correlation of the grey of corresponding pixels, -1 to 1.
    """

    agreement: float
    depth: float
    looks: float

    @property
    def total(self) -> float:
        return self.depth + self.looks

    def __str__(self) -> str:
        return f"{self.agreement:.0%} of covisible depth agrees, looks correlate by {self.looks:.2f}"


def placed(view: View) -> PlacedView:
    """The arrays of a view that has geometry.

    Raises:
        SceneError: its image, depth or a mask cannot be decoded.
    """
    assert view.K_px is not None
    assert view.world_from_cam is not None
    image = decode_image(view)
    depth_m = decode_depth(view, image.shape[:2])
    assert depth_m is not None
    # Odd blocks have a middle pixel, so that depth and mean grey are of the same point.
    step = min(-(-max(depth_m.shape) // LONG_SIDE) | 1, (min(depth_m.shape) - 1) | 1)
    half = (step - 1) // 2
    rows, cols = (side // step for side in depth_m.shape)
    blocks = image[: rows * step, : cols * step].mean(-1, dtype=np.float32)
    K_px = view.K_px - np.array([[0, 0, half], [0, 0, half], [0, 0, 0]])
    return PlacedView(
        depth_m=depth_m[half : rows * step : step, half : cols * step : step],
        grey=blocks.reshape(rows, step, cols, step).mean((1, 3)) if step > 1 else blocks,
        K_px=K_px / np.array([[step], [step], [1]]),
        world_from_cam=view.world_from_cam,
    )


def changed(view: PlacedView, change: Change) -> PlacedView:
    """The view after a change."""
    K_px = change.camera(view.K_px)
    return replace(
        view,
        K_px=K_px,
        world_from_cam=change.pose(view.world_from_cam),
        depth_m=change.depth(view.depth_m, K_px) if change.changes_depth else view.depth_m,
    )


def measure(
    views: Mapping[int, PlacedView], pairs: Pairs, tolerance: float = TOLERANCE, points: int = POINTS
) -> Fit:
    """The fit of these pairs.

    Args:
        views: by index.
        pairs: (i, j): pixels of i are looked for in j.
        tolerance: relative difference of two depths that still agree.
        points: pixels of a view that are asked, spread evenly.
    """
    rows = [_measured(views[i], views[j], tolerance, points) for i, j in pairs]
    agreeing, weights, compared, looks = np.array(rows).T
    return Fit(
        agreement=float(agreeing.sum() / max(compared.sum(), 1)),
        depth=float(weights.sum() / max(compared.sum(), 1)),
        looks=float(looks.mean()),
    )


def depth_error(views: Mapping[int, PlacedView], pairs: Pairs, points: int = 4 * POINTS) -> float:
    """Mean |log ratio| of depths between the pixels of smooth surfaces; NaN where there are none.

    Depth is interpolated, so this is a hundred times finer than `measure` where depth is exact.
    """
    errors = [_errors(views[i], views[j], points) for i, j in pairs]
    return float(np.mean(np.concatenate(errors))) if sum(map(len, errors)) else float("nan")


def _measured(a: PlacedView, b: PlacedView, tolerance: float, points: int) -> tuple[float, ...]:
    """(agreeing, weights, compared, looks) of one pair."""
    pixel, u, v, z, asked = _moved(a, b, points)
    there = b.depth_m[np.rint(v).astype(int), np.rint(u).astype(int)]
    with np.errstate(divide="ignore"):
        behind = np.where(there > 0, (z - there) / np.minimum(z, there), np.inf)
    visible = behind <= tolerance
    weights = np.maximum(0, 1 - np.abs(behind[visible]) / tolerance)
    compared = max(float(np.count_nonzero(visible)), LEAST_SHARE * asked)
    ours, theirs = a.grey[pixel][visible], _between(b.grey, u[visible], v[visible])
    return float(np.count_nonzero(weights)), float(weights.sum()), compared, _correlation(ours, theirs)


def _errors(a: PlacedView, b: PlacedView, points: int) -> np.ndarray:
    _, u, v, z, _ = _moved(a, b, points)
    corners = _corners(b.depth_m, u, v)
    smooth = (corners.min(0) > 0) & (corners.max(0) < (1 + TOLERANCE) * corners.min(0))
    u, v, z = u[smooth], v[smooth], z[smooth]
    # 1 / z is linear over a plane, z is not.
    with np.errstate(divide="ignore"):
        errors = np.abs(np.log(z * _between(1 / b.depth_m, u, v)))
    return errors[errors < TOLERANCE]


def _moved(a: PlacedView, b: PlacedView, points: int) -> tuple:
    """Pixels of a that fall into b: their (rows, cols), u, v and z there; and how many were asked."""
    height, width = a.depth_m.shape
    step = max(1, int((height * width / points) ** 0.5))
    rows, cols = np.mgrid[step // 2 : height : step, step // 2 : width : step].reshape(2, -1)
    depth_m = a.depth_m[rows, cols]
    rows, cols, depth_m = (array[depth_m > 0] for array in (rows, cols, depth_m))
    rays = np.linalg.inv(a.K_px) @ np.stack((cols, rows, np.ones_like(rows)))  # [3, P]
    b_from_a = np.linalg.inv(b.world_from_cam) @ a.world_from_cam
    x, y, z = b.K_px @ (b_from_a[:3, :3] @ (rays * depth_m) + b_from_a[:3, 3:])
    with np.errstate(divide="ignore", invalid="ignore"):
        u, v = x / z, y / z
        inside = (z > 0) & (u >= 0) & (u <= b.grey.shape[1] - 1) & (v >= 0) & (v <= b.grey.shape[0] - 1)
    return (rows[inside], cols[inside]), u[inside], v[inside], z[inside], len(rows)


def _corners(plane: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """[4, P] of the pixels around (u, v): top left, top right, bottom left, bottom right."""
    left = np.minimum(u.astype(int), plane.shape[1] - 2)
    top = np.minimum(v.astype(int), plane.shape[0] - 2)
    return np.stack([plane[top + j, left + i] for j in (0, 1) for i in (0, 1)])


def _between(plane: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """[P] bilinear values at (u, v) inside the plane."""
    right = u - np.minimum(u.astype(int), plane.shape[1] - 2)
    down = v - np.minimum(v.astype(int), plane.shape[0] - 2)
    shares = np.stack(((1 - right) * (1 - down), right * (1 - down), (1 - right) * down, right * down))
    return (_corners(plane, u, v) * shares).sum(0)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    if len(a) < LEAST_PIXELS or a.std() == 0 or b.std() == 0:
        return 0.0
    return float(np.corrcoef(a, b)[0, 1])
