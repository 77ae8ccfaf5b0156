"""From a source image to the encoder's input, and the way back from its pixels and tokens.

`crop` follows map-anything: scale until the target is covered, round the size down, cut the middle
(rounding half to even), nearest-neighbour depth. `pad` shrinks the image into the target and leaves
black borders; `stretch` scales the axes apart.

Shapes: H W pixels. Pixels are OpenCV's: the integer coordinate is the pixel's centre.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..kernels.geometry import resized_from_original_px
from ..store.key import Size

_FILTERS = {
    "lanczos": Image.Resampling.LANCZOS,
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Where a source image lies in the preprocessed one.

    Attributes:
        target: (height, width) of the preprocessed image.
        resized: (height, width) of the whole source image after scaling.
        top, left: of the target in the resized image; negative = border.
        affine: (sx, tx, sy, ty): u' = sx u + tx and v' = sy v + ty for pixel centres.
    """

    target: Size
    resized: Size
    top: int
    left: int
    affine: tuple[float, float, float, float]

    @property
    def shrinks(self) -> bool:
        return min(self.affine[0], self.affine[2]) < 1


def place(width: int, height: int, target: Size, fit: str) -> Placement:
    """How an image of this size fills the target (height, width)."""
    if fit == "crop":
        return place_crop(width, height, target, cover=target)
    if fit == "pad":
        scale = min(target[1] / width, target[0] / height)
        resized = (max(1, round(height * scale)), max(1, round(width * scale)))
    else:
        resized = target
    top, left = -((target[0] - resized[0]) // 2), -((target[1] - resized[1]) // 2)
    return place_resized(width, height, resized, target, top=top, left=left)


def place_resized(width: int, height: int, resized: Size, target: Size, *, top: int, left: int) -> Placement:
    """An image of this size scaled to `resized`, of which the target shows the part from (top, left) on."""
    (sx, _, tx), (_, sy, ty), _ = resized_from_original_px((width, height), (resized[1], resized[0])).tolist()
    affine = (sx, tx - left, sy, ty - top)
    return Placement(target=target, resized=resized, top=top, left=left, affine=affine)


def place_crop(width: int, height: int, target: Size, *, cover: Size) -> Placement:
    """The middle of an image that was scaled until it covers `cover`, which is no smaller than the target."""
    scale = max(cover[1] / width, cover[0] / height) + 1e-8
    resized = (int(height * scale), int(width * scale))
    # Python's round is half to even, which is what places the cut.
    top, left = (round(0.5 * (resized[i] - target[i])) for i in (0, 1))
    tx = 0.5 * scale - 0.5 * (width * scale - resized[1]) - 0.5 - left
    ty = 0.5 * scale - 0.5 * (height * scale - resized[0]) - 0.5 - top
    return Placement(target=target, resized=resized, top=top, left=left, affine=(scale, tx, scale, ty))


def place_image(image: np.ndarray, placement: Placement, filter_name: str = "auto") -> np.ndarray:
    """[H, W, 3] u8 of the target size; borders are black."""
    if filter_name == "auto":
        filter_name = "lanczos" if placement.shrinks else "bicubic"
    size = (placement.resized[1], placement.resized[0])
    resized = np.asarray(Image.fromarray(image).resize(size, _FILTERS[filter_name]))
    return _cut(resized, placement)


def place_plane(plane: np.ndarray, placement: Placement) -> np.ndarray:
    """[H, W] of the target size by nearest neighbour, source pixel floor(i * source / resized)."""
    (height, width), (rows, cols) = plane.shape, placement.resized
    take_rows = np.minimum((np.arange(rows) * (height / rows)).astype(int), height - 1)
    take_cols = np.minimum((np.arange(cols) * (width / cols)).astype(int), width - 1)
    return _cut(plane[take_rows[:, None], take_cols], placement)


def place_intrinsics(K_px: np.ndarray, placement: Placement) -> np.ndarray:
    """[3, 3] intrinsics of the preprocessed image."""
    sx, tx, sy, ty = placement.affine
    return np.array([[sx, 0, tx], [0, sy, ty], [0, 0, 1]]) @ np.asarray(K_px, np.float64)


def token_from_source_px(
    placement: Placement,
    patch: int,
    packed_from_source_px: np.ndarray | None = None,
    stride: int | None = None,
) -> np.ndarray:
    """[2, 3] A with [col, row] = A [u, v, 1]; integer token coordinate = token centre.

    Args:
        placement: of the image that is placed.
        patch: pixels per token side; the first token's centre is half of that from the border.
        packed_from_source_px: [3, 3], where that image was made from a larger one, whose pixels are meant.
        stride: pixels between neighbouring tokens; None = a patch.
    """
    sx, tx, sy, ty = placement.affine
    step = stride or patch
    first = patch / (2 * step)
    col = [sx / step, 0, (tx + 0.5) / step - first]
    row = [0, sy / step, (ty + 0.5) / step - first]
    A = np.array([col, row])
    return A if packed_from_source_px is None else A @ packed_from_source_px


def _cut(resized: np.ndarray, placement: Placement) -> np.ndarray:
    (height, width), (top, left) = placement.target, (placement.top, placement.left)
    if top >= 0 and left >= 0:
        return np.ascontiguousarray(resized[top : top + height, left : left + width])
    out = np.zeros((height, width, *resized.shape[2:]), resized.dtype)
    out[-top : -top + resized.shape[0], -left : -left + resized.shape[1]] = resized
    return out
