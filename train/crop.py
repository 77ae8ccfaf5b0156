"""How much of an image is seen this time, drawn anew: around its middle, or around its principal point.

A crop draws a placement; image, depth and intrinsics are placed alike by the functions of `preprocess.py`.

Shapes: H W pixels. Pixels are OpenCV's: the integer coordinate is the pixel's centre.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Generator

from ..errors import ConfigError
from ..extract.preprocess import Placement, place_crop, place_resized
from ..store.key import Size


class Crop(ABC):
    """A way to fill the target."""

    @abstractmethod
    def draw(
        self, width: int, height: int, K_px: np.ndarray, target: Size, generator: Generator
    ) -> Placement:
        """How an image is scaled and cut this time.

        Args:
            width, height: of the image.
            K_px: [3, 3] its intrinsics.
            target: (height, width).
            generator: on the CPU; what is random comes from it.
        """


@dataclass(frozen=True, kw_only=True)
class MiddleCrop(Crop):
    """The image covers the target and up to `px` pixels more, fewer than that; its middle is kept.

    map-anything's, with 16 pixels. 1 = no more than the target.

    Raises:
        ConfigError: `px` is below 1.
    """

    px: int = 16

    def __post_init__(self) -> None:
        check("crop.px", self.px, self.px >= 1, "1 = cover the target and no more")

    def draw(
        self, width: int, height: int, K_px: np.ndarray, target: Size, generator: Generator
    ) -> Placement:
        more = int(torch.randint(self.px, (), generator=generator))
        return place_crop(width, height, target, cover=(target[0] + more, target[1] + more))


@dataclass(frozen=True, kw_only=True)
class PrincipalCrop(Crop):
    """The principal point comes to the middle of the target, where VGGT's cameras have theirs.

    As in VGGT's training: a part of the image around the principal point, of a share drawn for each axis, is
    scaled until it covers the target and a random margin, of which small ones are likelier. The target is cut
    from that. Together this is one placement; where the image ends before the target does, it is black and
    without depth.

    Attributes:
        share: range of the drawn shares; more than the image has is all of it.
        margin_px: covered beyond the target, always.
        zoom: most of the random margin, as a share of the target's longer side; its density falls linearly.

    Raises:
        ConfigError: a number is out of range.
    """

    share: tuple[float, float] = (0.8, 1.2)
    margin_px: int = 4
    zoom: float = 0.3

    def __post_init__(self) -> None:
        low, high = self.share
        check("crop.share", self.share, 0 < low <= high, "two numbers above 0, the smaller first")
        check("crop.margin_px", self.margin_px, self.margin_px >= 0, "0 = no margin")
        check("crop.zoom", self.zoom, self.zoom >= 0, "0 = none but margin_px")

    def draw(
        self, width: int, height: int, K_px: np.ndarray, target: Size, generator: Generator
    ) -> Placement:
        shares = (min(1.0, uniform(*self.share, generator)) for _ in range(2))
        part = [side * share for side, share in zip((height, width), shares, strict=True)]
        # The inverse of the triangular distribution's integral.
        margin = max(target) * self.zoom * (1 - math.sqrt(1 - uniform(0, 1, generator))) + self.margin_px
        scale = max((target[i] + margin) / part[i] for i in (0, 1))
        resized = (round(height * scale), round(width * scale))
        # The pose encoding has the principal point at half of the size, see vggt/pose_encoding.py.
        top, left = (
            round((K_px[axis, 2] + 0.5) * resized[i] / (height, width)[i] - 0.5 - target[i] / 2)
            for i, axis in enumerate((1, 0))
        )
        return place_resized(width, height, resized, target, top=top, left=left)


def uniform(low: float, high: float, generator: Generator) -> float:
    """A number of [low, high)."""
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def check(name: str, value: object, holds: bool, fix: str) -> None:
    """Nothing, if it holds.

    Raises:
        ConfigError: it does not.
    """
    if not holds:
        raise ConfigError(f"{name}={value} cannot be meant.", where=f"augment.{name}", fix=fix)
