"""Views of one scene as a network takes them: one size, and the way back to the source's pixels.

`crop` makes every image `size` wide and cuts the middle of what is taller than that; `pad` fits the longer
side into a square. Heights and widths are rounded to whole patches, each axis by itself. Where images of a
scene end up with different sizes, the smaller ones get borders. Borders are white.

Shapes: V views, H W pixels. The integer pixel coordinate is the pixel's centre.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import ConfigError, did_you_mean
from ...extract.encoders.vggt.preprocess import MODES, resized_size
from ...extract.preprocess import Placement, place_image, place_resized
from ...extract.scenes.decode import decode_image
from ...extract.scenes.scene import View

FILTER = "bicubic"
WHITE = 255


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """Images of one scene in one size.

    Attributes:
        names: V frame names.
        images: [V, H, W, 3] u8.
        placements: V, where the source image lies in each.
        source_sizes: V (width, height) of the source images, upright.
    """

    names: tuple[str, ...]
    images: np.ndarray
    placements: tuple[Placement, ...]
    source_sizes: tuple[tuple[int, int], ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def inside(self) -> np.ndarray:
        """[V, H, W] bool, False in borders."""
        return np.stack([inside(placement) for placement in self.placements])

    @property
    def network_from_source_px(self) -> np.ndarray:
        """[V, 3, 3] f64, from pixels of the source image to those of the network's."""
        return np.array(
            [
                [[sx, 0, tx], [0, sy, ty], [0, 0, 1]]
                for sx, tx, sy, ty in (one.affine for one in self.placements)
            ]
        )


def read_frames(views: Sequence[View], *, size: int, patch: int, fit: str = "crop") -> Frames:
    """Decode views and bring them to one size; alpha is laid over white.

    Args:
        views: of one scene, at least one.
        size: pixels of the width (`crop`) or of the longer side (`pad`), a multiple of `patch`.
        patch: pixels of the network's patch.
        fit: `crop` or `pad`.

    Raises:
        ConfigError: size or fit make no sense.
        SceneError: an image cannot be decoded.
    """
    pictures = [decode_image(view, on_white=True) for view in views]
    sizes = tuple((picture.shape[1], picture.shape[0]) for picture in pictures)
    placements = place_views(sizes, size=size, patch=patch, fit=fit)
    images = [
        _on_white(place_image(picture, placement, FILTER), placement)
        for picture, placement in zip(pictures, placements, strict=True)
    ]
    return Frames(
        names=tuple(view.name for view in views),
        images=np.stack(images),
        placements=placements,
        source_sizes=sizes,
    )


def place_views(
    sizes: Sequence[tuple[int, int]], *, size: int, patch: int, fit: str
) -> tuple[Placement, ...]:
    """Where images of these (width, height) lie in frames of one size, see `read_frames`.

    Raises:
        ConfigError: size or fit make no sense.
    """
    if fit not in MODES:
        raise ConfigError(f"fit={fit} is not known.", where="fit", fix=did_you_mean(fit, MODES))
    if size < patch or size % patch:
        near = max(patch, round(size / patch) * patch)
        raise ConfigError(
            f"size={size} is no multiple of the patch.",
            where="size",
            why=f"the model's patches have {patch} pixels",
            fix=f"write size={near}",
        )
    own = [_target(*one, size, patch, fit) for one in sizes]
    height, width = (max(target[axis] for target, _ in own) for axis in (0, 1))
    return tuple(
        _centred(*one, resized, target, (height, width))
        for one, (target, resized) in zip(sizes, own, strict=True)
    )


def inside(placement: Placement) -> np.ndarray:
    """[H, W] bool, where the frame shows the source image."""
    (height, width), (rows, cols) = placement.target, placement.resized
    v, u = np.arange(height) + placement.top, np.arange(width) + placement.left
    return ((v >= 0) & (v < rows))[:, None] & ((u >= 0) & (u < cols))


def _target(
    width: int, height: int, size: int, patch: int, fit: str
) -> tuple[tuple[int, int], tuple[int, int]]:
    """((height, width) of the frame, (height, width) of the resized image)."""
    cols, rows = resized_size(width, height, mode=fit, size=size, patch_size=patch)
    return ((min(rows, size), size) if fit == "crop" else (size, size)), (rows, cols)


def _centred(
    width: int, height: int, resized: tuple[int, int], own: tuple[int, int], frame: tuple[int, int]
) -> Placement:
    """Cut to its own frame, then bordered to that of the scene; halves are rounded down both times."""
    cuts = [(resized[axis] - own[axis]) // 2 if resized[axis] > own[axis] else 0 for axis in (0, 1)]
    inner = [(own[axis] - resized[axis]) // 2 if resized[axis] < own[axis] else 0 for axis in (0, 1)]
    top, left = (cuts[axis] - inner[axis] - (frame[axis] - own[axis]) // 2 for axis in (0, 1))
    return place_resized(width, height, resized, frame, top=top, left=left)


def _on_white(image: np.ndarray, placement: Placement) -> np.ndarray:
    return np.where(inside(placement)[..., None], image, np.uint8(WHITE))
