"""Random changes of images while training: colours, grey, blur; `crop.py` has what is cut away.

What is done is drawn first, as a value, from a generator of the caller; doing it draws nothing. So a step can
be repeated.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as image_ops

from ..errors import TrainError
from .crop import Crop, MiddleCrop, PrincipalCrop, check, uniform

JITTERS: Mapping[str, Callable[[Tensor, float], Tensor]] = MappingProxyType(
    {
        "brightness": image_ops.adjust_brightness,
        "contrast": image_ops.adjust_contrast,
        "saturation": image_ops.adjust_saturation,
        "hue": image_ops.adjust_hue,
    }
)


@dataclass(frozen=True, kw_only=True)
class AugmentOptions:
    """What may happen to an image; the defaults are map-anything's for training.

    Attributes:
        jitter_share: of the views whose colours are changed, in an order drawn anew.
        brightness, contrast, saturation: factors are drawn from [max(0, 1 - x), 1 + x].
        hue: turns are drawn from [-x, x], of the whole circle, at most 0.5.
        grey_share: of the views that lose their colours.
        blur_share: of the views that are blurred.
        blur_px: width of the blur's window, odd.
        blur_sigma_px: range that the blur's standard deviation is drawn from.
        alike_share: of the sets whose views are all changed alike.
        depth_share: quantile of an image's depths above which they are left out; 1 = none is.
        crop: what is cut away, where images are cropped to fit.

    Raises:
        ConfigError: a number is out of range.
    """

    jitter_share: float = 0.75
    brightness: float = 0.3
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    grey_share: float = 0.05
    blur_share: float = 0.05
    blur_px: int = 5
    blur_sigma_px: tuple[float, float] = (0.1, 1.0)
    alike_share: float = 0.0
    depth_share: float = 1.0
    crop: Crop = field(default_factory=MiddleCrop)

    def __post_init__(self) -> None:
        for name in ("jitter_share", "grey_share", "blur_share", "alike_share"):
            check(name, getattr(self, name), 0 <= getattr(self, name) <= 1, "a share, from 0 to 1")
        for name in ("brightness", "contrast", "saturation"):
            check(name, getattr(self, name), getattr(self, name) >= 0, "0 changes nothing")
        check("depth_share", self.depth_share, 0 < self.depth_share <= 1, "1 keeps all depths")
        check("hue", self.hue, 0 <= self.hue <= 0.5, "from 0 (no change) to 0.5 (any hue)")
        check("blur_px", self.blur_px, self.blur_px > 0 and self.blur_px % 2 == 1, "an odd number")
        low, high = self.blur_sigma_px
        check("blur_sigma_px", self.blur_sigma_px, 0 < low <= high, "two numbers above 0, the smaller first")


@dataclass(frozen=True, kw_only=True)
class Change:
    """What is done to one image.

    Attributes:
        jitters: (name, factor) in order; hue is a turn.
        grey: without colours.
        blur_sigma_px: none = no blur.
    """

    jitters: tuple[tuple[str, float], ...] = ()
    grey: bool = False
    blur_sigma_px: float | None = None


def augment_colours(images: Tensor, options: AugmentOptions, generator: Generator) -> Tensor:
    """The images of a set with other colours, [V, 3, H, W] in [0, 1], in their dtype and on their device.

    Args:
        images: [V, 3, H, W] float, in [0, 1].
        generator: on the CPU, seeded for the set.

    Raises:
        TrainError: these are no such images.
    """
    if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
        raise TrainError(
            f"images of shape {list(images.shape)} and type {images.dtype} cannot be augmented.",
            where="augment",
            why="[V, 3, H, W] of floats in [0, 1] is expected",
            fix="divide bytes by 255, and give one set of views at a time",
        )
    alike = uniform(0, 1, generator) < options.alike_share
    changes = [draw_change(options, generator) for _ in range(1 if alike else len(images))]
    if alike:
        changes *= len(images)
    return torch.stack(
        [changed(image, change, options.blur_px) for image, change in zip(images, changes, strict=True)]
    )


def draw_change(options: AugmentOptions, generator: Generator) -> Change:
    """What is done to the next image."""
    jitters: tuple[tuple[str, float], ...] = ()
    if uniform(0, 1, generator) < options.jitter_share:
        order = torch.randperm(len(JITTERS), generator=generator).tolist()
        names = [tuple(JITTERS)[i] for i in order]
        jitters = tuple((name, _factor(name, getattr(options, name), generator)) for name in names)
    grey = uniform(0, 1, generator) < options.grey_share
    blurred = uniform(0, 1, generator) < options.blur_share
    sigma_px = uniform(*options.blur_sigma_px, generator) if blurred else None
    return Change(jitters=jitters, grey=grey, blur_sigma_px=sigma_px)


def changed(image: Tensor, change: Change, blur_px: int) -> Tensor:
    """The image [3, H, W] after the change."""
    for name, factor in change.jitters:
        image = JITTERS[name](image, factor)
    if change.grey:
        image = image_ops.rgb_to_grayscale(image, num_output_channels=3)
    if change.blur_sigma_px is not None:
        image = image_ops.gaussian_blur(image, [blur_px, blur_px], [change.blur_sigma_px] * 2)
    return image


def _factor(name: str, strength: float, generator: Generator) -> float:
    if name == "hue":
        return uniform(-strength, strength, generator)
    return uniform(max(0.0, 1 - strength), 1 + strength, generator)


MAPANYTHING = AugmentOptions()
VGGT = AugmentOptions(
    jitter_share=0.9,
    brightness=0.5,
    contrast=0.5,
    saturation=0.5,
    blur_share=0.0,
    alike_share=0.7,
    depth_share=0.98,
    crop=PrincipalCrop(),
)
