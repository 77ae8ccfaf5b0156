"""Encoded views to arrays: image, depth and masks of one size.

Shapes: H W pixels. `depth_m` is z-depth in scene units, 0 = none.
"""

from __future__ import annotations

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from ...errors import SceneError
from .exr import read_exr
from .scene import Blob, View

FORMATS = ("PNG", "JPEG", "WEBP")
EXIF_ORIENTATION = 0x0112
# A mask is resized to its image, but one that would be stretched more than this is another image's.
LARGEST_STRETCH = 1.5
# Where a PNG file may say how it is turned; behind the pixels too, so Pillow would decode all of them.
PNG_ORIENTED = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
# EXIF orientation -> what turns the stored picture upright.
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class DecodedView:
    """A view as arrays.

    Attributes:
        image: [H, W, 3] u8, upright.
        depth_m: [H, W] f32, 0 where there is none, a mask is off, or it is beyond the view's
            `far_percentile`; None without depth.
        valid: [H, W] bool, where `depth_m` > 0; None without depth.
    """

    image: np.ndarray
    depth_m: np.ndarray | None
    valid: np.ndarray | None

    @property
    def width(self) -> int:
        return self.image.shape[1]

    @property
    def height(self) -> int:
        return self.image.shape[0]


def decode_view(view: View) -> DecodedView:
    """The view's image, depth and validity.

    Raises:
        SceneError: a part cannot be decoded, or depth or a mask has another size than the image.
    """
    image = decode_image(view)
    depth_m = decode_depth(view, image.shape[:2])
    return DecodedView(image=image, depth_m=depth_m, valid=None if depth_m is None else depth_m > 0)


def decode_image(view: View, *, on_white: bool = False) -> np.ndarray:
    """[H, W, 3] u8; grey is repeated, the recorded orientation is applied.

    Args:
        view: what to decode.
        on_white: what alpha lets through is white; else alpha is dropped.

    Raises:
        SceneError: the image is damaged, or is not 8-bit grey or RGB.
    """
    picture = _pixels(view.image, ("L", "LA", "RGB", "RGBA"))
    if on_white and picture.mode in ("LA", "RGBA"):
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    picture = picture.convert("RGB")
    turn = UPRIGHT.get(view.orientation)
    return np.asarray(picture if turn is None else picture.transpose(turn))


def decode_depth(view: View, size: tuple[int, ...]) -> np.ndarray | None:
    """[H, W] f32 with 0 where depth is not positive, not finite, too far or masked out; or None.

    Args:
        view: what to decode.
        size: (height, width) of its image.

    Raises:
        SceneError: depth or a mask is damaged or of another size.
    """
    if view.depth is None:
        return None
    depth_m = read_exr(view.depth.read(), view.depth.where)
    _check_size("depth", depth_m.shape, size, view.depth)
    # NaN compares false, so it is dropped here too.
    keep = (depth_m > 0) & (depth_m < np.inf)
    if view.far_percentile is not None:
        keep &= depth_m <= np.percentile(np.where(keep, depth_m, np.float32(0)), view.far_percentile)
    for blob in view.masks.values():
        keep &= decode_mask(blob, size)
    return np.where(keep, depth_m, np.float32(0))


def decode_mask(blob: Blob, size: tuple[int, ...]) -> np.ndarray:
    """[H, W] bool, on where the picture is not black.

    A mask of another size, as networks predict them, is brought to (height, width) by nearest pixel.

    Raises:
        SceneError: the mask is damaged, has colours, or is of another shape than the image.
    """
    mask = np.asarray(_pixels(blob, ("1", "L"))) > 0
    stretch = (mask.shape[0] * size[1]) / (mask.shape[1] * size[0])
    if not 1 / LARGEST_STRETCH < stretch < LARGEST_STRETCH:
        _check_size("mask", mask.shape, size, blob)
    rows, cols = (_nearest(have, want) for have, want in zip(mask.shape, size, strict=True))
    return mask[rows[:, None], cols]


def _nearest(have: int, want: int) -> np.ndarray:
    """[want] indices into `have` pixels, rounded down as OpenCV's nearest neighbour does."""
    return np.minimum(np.floor(np.arange(want) * (1 / (want / have))).astype(int), have - 1)


def image_size(blob: Blob, orientation: int = 1) -> tuple[int, int]:
    """(width, height) of the upright image, from its header alone.

    Raises:
        SceneError: it is not an image.
    """
    with _opened(blob, _stream(blob)) as picture:
        width, height = picture.size
    return (height, width) if orientation >= 5 else (width, height)


def exif_orientation(blob: Blob) -> int:
    """1 to 8 as the image's EXIF block says; 1 where it says nothing or nonsense.

    Raises:
        SceneError: it is not an image.
    """
    with _opened(blob, _stream(blob)) as picture:
        if picture.format == "PNG" and not _says_how_turned(blob.read()):
            return 1
        try:
            said = picture.getexif().get(EXIF_ORIENTATION, 1)
        except Exception:  # a damaged EXIF block is no reason to refuse the pixels
            return 1
    return said if said in UPRIGHT else 1


def _says_how_turned(png: bytes) -> bool:
    return any(mark in png for mark in PNG_ORIENTED)


def _stream(blob: Blob) -> Path | BytesIO:
    """Where a header can be read from: the file itself, if the blob is all of it."""
    whole = blob.path is not None and blob.path.is_file() and blob.size is None and blob.offset == 0
    whole = whole and blob.data is None and blob.convert is None
    return blob.path if whole and blob.path else BytesIO(blob.read())


def _opened(blob: Blob, stream: Path | BytesIO) -> Image.Image:
    try:
        return Image.open(stream, formats=FORMATS)
    except Exception as error:  # Pillow's parsers raise whatever they stumble over
        raise _undecodable(blob, error) from None


def _pixels(blob: Blob, modes: tuple[str, ...]) -> Image.Image:
    data = blob.read()
    picture = _opened(blob, BytesIO(data))
    # Pillow reads 16-bit colour as 8-bit without a word, so the PNG header is asked.
    mode = f"{picture.mode};16" if data[:4] == b"\x89PNG" and data[24] == 16 else picture.mode
    if mode not in modes:
        raise SceneError(
            f"a picture of mode {mode} is not supported.",
            where=blob.where,
            why=f"8-bit pictures of mode {', '.join(modes)} are",
            fix="convert the picture to 8 bits per channel",
        )
    try:
        picture.load()
    except Exception as error:  # as above
        raise _undecodable(blob, error) from None
    return picture


def _undecodable(blob: Blob, error: Exception) -> SceneError:
    unknown = isinstance(error, Image.UnidentifiedImageError)
    return SceneError(
        "the picture cannot be decoded.",
        where=blob.where,
        why="it is no PNG, JPEG or WebP file" if unknown else str(error),
        fix="copy the file again, or leave the scene out",
    )


def _check_size(what: str, found: tuple[int, ...], size: tuple[int, ...], blob: Blob) -> None:
    if tuple(found) != tuple(size):
        raise SceneError(
            f"the {what} is not of the image's size.",
            where=blob.where,
            why=f"height and width are {list(size)} for the image, {list(found)} for the {what}",
            fix=f"store the {what} at the size of its image",
        )
