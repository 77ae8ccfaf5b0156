"""Views made smaller for packing, so that shards hold no more pixels than any encoder will look at.

The image is resampled with Lanczos' filter, as wide as the reduction asks; depth and masks take the
source pixel nearest to each new pixel's centre, so no depth is mixed across an edge. What depends on all
pixels of the source (its far depth) is settled before. Equal views give equal bytes.

Shapes: H W pixels. The integer pixel coordinate is the pixel's centre.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ..kernels.geometry import resized_from_original_px
from .scenes.decode import decode_depth, decode_image, decode_mask, image_size
from .scenes.exr import write_exr
from .scenes.scene import Blob, Scene, SourceImage, View

JPEG_START = b"\xff\xd8\xff"
# Nothing that a token sees is lost at this quality, and colour keeps the image's own resolution.
JPEG_OPTIONS = {"quality": 95, "subsampling": "4:4:4"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Reduction:
    """How one view is made smaller.

    Attributes:
        source: the view as it is.
        size: (width, height) that the upright image gets.
        jpeg: whether the image is JPEG, and stays it; everything else becomes PNG.
    """

    source: SourceImage
    size: tuple[int, int]
    jpeg: bool

    @classmethod
    def of(cls, held: View, scene: Scene, max_side: int) -> Reduction | None:
        """What brings a view's long side to `max_side`, or None for a view that is no larger.

        Args:
            held: its bytes are in memory.
            scene: the one it belongs to.
            max_side: in pixels.

        Raises:
            SceneError: the image is none.
        """
        width, height = image_size(held.image, held.orientation)
        if max(width, height) <= max_side:
            return None
        source = SourceImage(
            width=width,
            height=height,
            image_digest=held.image_digest,
            geometry_digest=held.geometry_digest(scene.scale_type, scene.rules),
            K_px=held.K_px,
        )
        jpeg = held.image.read().startswith(JPEG_START)
        return cls(source=source, size=reduced_size(width, height, max_side), jpeg=jpeg)

    def apply(self, view: View) -> View:
        """The smaller view, upright; its files are made when they are read."""
        before = (self.source.height, self.source.width)
        image = partial(_smaller_image, orientation=view.orientation, size=self.size, jpeg=self.jpeg)
        depth = partial(_smaller_depth, far_percentile=view.far_percentile, before=before, size=self.size)
        mask = partial(_smaller_mask, before=before, size=self.size)
        return replace(
            view,
            image=view.image.converted(image, "jpg" if self.jpeg else "png"),
            depth=view.depth.converted(depth, "exr") if view.depth else None,
            masks={name: blob.converted(mask, "png") for name, blob in view.masks.items()},
            K_px=None if view.K_px is None else self._intrinsics(view.K_px),
            orientation=1,
            far_percentile=None,
            source=self.source,
        )

    def source_depth(self, held: View) -> np.ndarray | None:
        """[H, W] f32 of the view as it is, 0 where depth is none; or None without depth."""
        return decode_depth(held, (self.source.height, self.source.width))

    def _intrinsics(self, K_px: np.ndarray) -> np.ndarray:
        smaller_from_source = resized_from_original_px((self.source.width, self.source.height), self.size)
        return (smaller_from_source @ torch.from_numpy(np.asarray(K_px, np.float64))).numpy()


def reduced_size(width: int, height: int, max_side: int) -> tuple[int, int]:
    """(width, height) with the long side `max_side`; the short one is rounded, half up, to at least 1."""
    long = max(width, height)
    across, down = (max(1, (2 * side * max_side + long) // (2 * long)) for side in (width, height))
    return across, down


def nearest_pixels(have: int, want: int) -> np.ndarray:
    """[want] indices into `have` pixels: those nearest to the new centres, exactly; of two the later."""
    return (2 * np.arange(want, dtype=np.int64) + 1) * have // (2 * want)


def _smaller_image(data: bytes, where: str, *, orientation: int, size: tuple[int, int], jpeg: bool) -> bytes:
    view = View(name="", image=_named(data, where, ""), orientation=orientation)
    picture = Image.fromarray(decode_image(view)).resize(size, Image.Resampling.LANCZOS)
    return _encoded(picture, "JPEG", **JPEG_OPTIONS) if jpeg else _encoded(picture, "PNG")


def _smaller_depth(
    data: bytes, where: str, *, far_percentile: float | None, before: tuple[int, int], size: tuple[int, int]
) -> bytes:
    blob = _named(data, where, "exr")
    depth_m = decode_depth(View(name="", image=blob, depth=blob, far_percentile=far_percentile), before)
    assert depth_m is not None
    small = _nearest(depth_m, size)
    # Depth that came as halves fits into halves again.
    with np.errstate(over="ignore"):
        half = bool((small == small.astype(np.float16)).all())
    return write_exr(small, half=half)


def _smaller_mask(data: bytes, where: str, *, before: tuple[int, int], size: tuple[int, int]) -> bytes:
    return _encoded(Image.fromarray(_nearest(decode_mask(_named(data, where, "png"), before), size)), "PNG")


def _nearest(plane: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    rows, cols = nearest_pixels(plane.shape[0], size[1]), nearest_pixels(plane.shape[1], size[0])
    return np.ascontiguousarray(plane[rows[:, None], cols])


def _named(data: bytes, where: str, suffix: str) -> Blob:
    """Bytes in memory that errors call by the file they come from."""
    return Blob(suffix=suffix, data=data, path=Path(where))


def _encoded(picture: Image.Image, kind: str, **options) -> bytes:
    file = BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()
