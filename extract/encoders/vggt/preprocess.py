"""Image files to what a VGGT looks at.

Pillow's bicubic filter; alpha is put on white. Pixels are taken as they are stored: a turn that a
camera recorded beside them is not applied.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad

from ....errors import ConfigError, SceneError, first_few

MODES = ("crop", "pad")


def load_images(
    paths: Sequence[str | Path], *, mode: str = "crop", size: int = 518, patch_size: int = 14
) -> Tensor:
    """Images [V, 3, H, W] f32 in [0, 1] of one size.

    Args:
        paths: at least one file.
        mode: `crop` makes images `size` wide, cuts what is higher than that from the middle, and leaves
            lower ones as they are; `pad` makes the longer side `size` and adds white borders to a square.
            Other sides are rounded to whole patches.
        size: in pixels, a multiple of the patch size.
        patch_size: of the model.

    Images that still differ in size get white borders up to the largest; a warning says so.

    Raises:
        ConfigError: the mode is unknown, or the size no multiple of the patch size.
        SceneError: there are no paths, or files cannot be read; all of them are listed.
    """
    if mode not in MODES:
        raise ConfigError(f"mode {mode!r} is unknown.", where="mode", why=f"it is {' or '.join(MODES)}")
    if size <= 0 or size % patch_size:
        raise ConfigError(
            f"images of {size} pixels have no whole number of patches.",
            where="size",
            why=f"the patch size is {patch_size}",
            fix=f"write {max(1, size // patch_size) * patch_size}",
        )
    return _stacked([_prepared(picture, mode, size, patch_size) for picture in _pictures(paths)])


def load_images_square(paths: Sequence[str | Path], *, size: int = 1024) -> tuple[Tensor, Tensor]:
    """Images as squares with black borders, and where in them the pictures lie.

    Args:
        paths: at least one file.
        size: of the square's side in pixels.

    Returns:
        (images [V, 3, size, size] f32 in [0, 1], boxes [V, 6] f32: left, top, right, bottom in pixels of the
        square, then width and height of the file).

    Raises:
        SceneError: there are no paths, or files cannot be read; all of them are listed.
    """
    images, boxes = [], []
    for picture in _pictures(paths):
        width, height = picture.size
        side = max(width, height)
        left, top = (side - width) // 2, (side - height) // 2
        square = Image.new("RGB", (side, side))
        square.paste(picture, (left, top))
        images.append(_tensor(square.resize((size, size), Image.Resampling.BICUBIC)))
        corners = [edge * size / side for edge in (left, top, left + width, top + height)]
        boxes.append([*corners, width, height])
    return torch.stack(images), torch.tensor(boxes, dtype=torch.float32)


def resized_size(width: int, height: int, *, mode: str, size: int, patch_size: int) -> tuple[int, int]:
    """(width, height) that an image is resized to, before it is cut or bordered.

    The width (`crop`) or the longer side (`pad`) becomes `size`; the other one the nearest whole number of
    patches, at least one, halves going to the even number.
    """
    long = width if mode == "crop" else max(width, height)
    columns, rows = (
        size if side == long else max(1, round(side * size / long / patch_size)) * patch_size
        for side in (width, height)
    )
    return columns, rows


def _prepared(picture: Image.Image, mode: str, size: int, patch_size: int) -> Tensor:
    resized = resized_size(*picture.size, mode=mode, size=size, patch_size=patch_size)
    image = _tensor(picture.resize(resized, Image.Resampling.BICUBIC))
    if mode == "pad":
        return _bordered(image, size, size)
    top = max(0, resized[1] - size) // 2
    return image[:, top : top + size]


def _stacked(images: list[Tensor]) -> Tensor:
    sizes = sorted({(image.shape[1], image.shape[2]) for image in images})
    if len(sizes) > 1:
        warnings.warn(
            f"images of different sizes, {first_few(sizes)}, get white borders up to the largest",
            stacklevel=3,
        )
    height, width = (max(size[axis] for size in sizes) for axis in (0, 1))
    return torch.stack([_bordered(image, height, width) for image in images])


def _bordered(image: Tensor, height: int, width: int) -> Tensor:
    """[3, H, W] in the middle of white; the odd pixel goes behind."""
    rows, cols = height - image.shape[1], width - image.shape[2]
    return pad(image, (cols // 2, cols - cols // 2, rows // 2, rows - rows // 2), value=1.0)


def _tensor(picture: Image.Image) -> Tensor:
    pixels = np.asarray(picture, dtype=np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)


def _pictures(paths: Sequence[str | Path]) -> list[Image.Image]:
    if isinstance(paths, str | Path) or not len(paths):
        raise SceneError(
            "there is no list of images.",
            where=f"paths={paths}",
            why="one file is expected at least",
            fix="give a list of paths",
        )
    pictures, faults = [], []
    for path in paths:
        try:
            pictures.append(_on_white(Image.open(path)))
        except Exception as error:  # Pillow's parsers raise whatever they stumble over
            faults.append(f"{path}: {error}")
    if faults:
        raise SceneError(
            f"{len(faults)} of {len(paths)} images cannot be read.",
            where=first_few(faults, most=1),
            why="\n".join(faults[1:5]) if len(faults) > 1 else "",
            fix="copy the files again, or leave them out",
        )
    return pictures


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")
