"""Images, depth and masks out of their files."""

import struct
import zlib
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from strata.errors import SceneError
from strata.extract.scenes.decode import decode_view, exif_orientation, image_size
from strata.extract.scenes.exr import write_exr
from strata.extract.scenes.scene import Blob, View


def encoded(array, form="PNG", **options):
    file = BytesIO()
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    picture.save(file, form, **options)
    return Blob(suffix=form.lower(), data=file.getvalue())


def depth_blob(array):
    return Blob(suffix="exr", data=write_exr(np.asarray(array, np.float32), half=False))


RGB = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


def test_colour_grey_and_alpha_become_three_channels():
    alpha = np.concatenate((RGB, np.full((4, 6, 1), 7, np.uint8)), axis=-1)
    for array in (RGB, alpha):
        np.testing.assert_array_equal(decode_view(View(name="a", image=encoded(array))).image, RGB)
    grey = decode_view(View(name="a", image=encoded(RGB[..., 0]))).image
    np.testing.assert_array_equal(grey, RGB[..., :1].repeat(3, -1))


def test_without_depth_there_is_no_validity():
    decoded = decode_view(View(name="a", image=encoded(RGB)))
    assert (decoded.width, decoded.height) == (6, 4)
    assert decoded.depth_m is None
    assert decoded.valid is None


def test_depth_that_is_not_positive_finite_and_unmasked_is_zero():
    depth_m = np.full((4, 6), 2.0)
    depth_m[0, :4] = [np.nan, np.inf, -1, -np.inf]
    mask = np.full((4, 6), 255, np.uint8)
    mask[1, 1] = 0
    one_bit = Image.fromarray(mask).convert("1")
    for blob in (encoded(mask), encoded(one_bit)):
        view = View(name="a", image=encoded(RGB), depth=depth_blob(depth_m), masks={"moge2": blob})
        decoded = decode_view(view)
        expected = np.full((4, 6), 2.0)
        expected[0, :4] = expected[1, 1] = 0
        np.testing.assert_array_equal(decoded.depth_m, expected)
        np.testing.assert_array_equal(decoded.valid, expected > 0)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_is_applied_only_when_the_view_records_it(orientation):
    upright = np.zeros((4, 6, 3), np.uint8)
    upright[0, 0] = 255  # the top left corner of the scene
    back = {1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1]}
    back |= {5: lambda a: a.swapaxes(0, 1), 6: lambda a: np.rot90(a), 8: lambda a: np.rot90(a, -1)}
    back[7] = lambda a: a[::-1, ::-1].swapaxes(0, 1)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = encoded(np.ascontiguousarray(back[orientation](upright)), exif=exif)
    assert exif_orientation(stored) == orientation
    turned = decode_view(View(name="a", image=stored, orientation=orientation)).image
    np.testing.assert_array_equal(turned, upright)
    assert image_size(stored, orientation) == (6, 4)
    np.testing.assert_array_equal(decode_view(View(name="a", image=stored)).image, back[orientation](upright))


def test_a_picture_of_another_mode_is_named():
    wide = encoded(np.zeros((4, 6), np.uint16))
    with pytest.raises(SceneError, match="mode I;16"):
        decode_view(View(name="a", image=wide))
    with pytest.raises(SceneError, match="mode CMYK"):
        decode_view(View(name="a", image=encoded(Image.new("CMYK", (6, 4)), "JPEG")))


def test_sixteen_bit_colour_is_not_read_as_eight_bit():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header)
    data += chunk(b"IDAT", zlib.compress(bytes(7))) + chunk(b"IEND", b"")
    with pytest.raises(SceneError, match="mode RGB;16"):
        decode_view(View(name="a", image=Blob(suffix="png", data=data)))


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_truncated_pictures_are_scene_errors(form, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    data = encoded(noise, form).read()
    for keep in (0, 3, 20, len(data) // 2):
        path = tmp_path / f"{keep}.{form.lower()}"
        path.write_bytes(data[:keep])
        with pytest.raises(SceneError) as caught:
            decode_view(View(name="a", image=Blob(suffix=form.lower(), path=path)))
        assert caught.value.what == "the picture cannot be decoded."
        assert caught.value.where == str(path)
        assert caught.value.why
        assert caught.value.fix


def test_a_decompression_bomb_is_a_scene_error(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(SceneError, match="cannot be decoded"):
        decode_view(View(name="a", image=encoded(RGB)))


def test_depth_and_masks_of_another_size_are_refused():
    with pytest.raises(SceneError, match="depth is not of the image's size") as caught:
        decode_view(View(name="a", image=encoded(RGB), depth=depth_blob(np.ones((6, 4)))))
    assert "[4, 6] for the image, [6, 4] for the depth" in caught.value.why
    with pytest.raises(SceneError, match="depth is not of"):
        decode_view(View(name="a", image=encoded(RGB), depth=depth_blob(np.ones((4, 6, 3)))))
    mask = {"m": encoded(np.zeros((6, 4), np.uint8))}
    with pytest.raises(SceneError, match="mask is not of the image's size"):
        decode_view(View(name="a", image=encoded(RGB), depth=depth_blob(np.ones((4, 6))), masks=mask))


def test_masks_are_brought_to_the_images_size_by_nearest_pixel():
    # OpenCV takes source pixel floor(i * have / want): 0 0 1 1 2 2 of three, 0 0 0 1 1 1 of two.
    small = np.array([[255, 0, 255], [0, 255, 0]], np.uint8)
    view = View(name="a", image=encoded(RGB), depth=depth_blob(np.ones((4, 6))), masks={"m": encoded(small)})
    above, below = [1, 1, 0, 0, 1, 1], [0, 0, 1, 1, 0, 0]
    np.testing.assert_array_equal(decode_view(view).valid, [above, above, below, below])
    large = np.kron(small, np.ones((3, 3), np.uint8))  # [6, 9]
    view = View(name="a", image=encoded(RGB), depth=depth_blob(np.ones((4, 6))), masks={"m": encoded(large)})
    # Rows floor(1.5 i) of 6 are 0 1 3 4, columns of 9 are 0 1 3 4 6 7.
    np.testing.assert_array_equal(decode_view(view).valid, [above, above, below, below])


def test_depth_beyond_the_percentile_of_all_pixels_is_dropped():
    depth_m = np.arange(24, dtype=np.float32).reshape(4, 6)
    depth_m[0, :3] = [np.nan, np.inf, -5]
    view = View(name="a", image=encoded(RGB), depth=depth_blob(depth_m), far_percentile=50.0)
    flat = np.where(np.isfinite(depth_m) & (depth_m > 0), depth_m, 0)
    assert np.percentile(flat, 50) == 11.5  # zeros included; of the positive depths it would be 13
    kept = decode_view(view).depth_m
    np.testing.assert_array_equal(kept, np.where(flat <= 11.5, flat, 0))


def test_jpeg_bytes_named_png_are_decoded(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(RGB, "JPEG").read())
    blob = Blob(suffix="png", path=path)
    assert decode_view(View(name="a", image=blob)).image.shape == RGB.shape
    assert image_size(blob) == (6, 4)
