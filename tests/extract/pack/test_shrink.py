"""`pack max_side=`: what smaller views are."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, JpegImagePlugin
from rich.console import Console
from strata.configs.schema import PackConfig
from strata.errors import ConfigError
from strata.extract import pack_folder
from strata.extract.pack import pack, pack_scenes
from strata.extract.packed_scene import PackedView
from strata.extract.prepare import Request, placed_camera
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.exr import read_exr, write_exr
from strata.extract.scenes.exr_header import parse_header
from strata.extract.scenes.scene import Blob, Scene, SceneSource, View
from strata.extract.shards import ShardIndex
from strata.extract.shrink import nearest_pixels, reduced_size
from strata.kernels.geometry import (
    resized_from_original_px,
    unproject,
)
from strata.store.key import Preprocess

MB = 1_000_000


class One(SceneSource):
    """A scene of given views."""

    def __init__(self, *views: View) -> None:
        self.views = views

    def ids(self) -> list[str]:
        return ["made/one"]

    def scene(self, scene_id: str) -> Scene:
        return Scene(id=scene_id, views=self.views, scale_type="metric")


def picture(width: int, height: int, kind: str = "PNG", **options: object) -> tuple[np.ndarray, Blob]:
    """Smooth colours, which JPEG keeps."""
    v, u = np.mgrid[:height, :width]
    waves = [127 + 120 * np.sin(u / (7 + k) + v / (9 - k)) for k in range(3)]
    pixels, file = np.stack(waves, axis=-1).astype(np.uint8), io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return pixels, Blob(suffix=kind.lower(), data=file.getvalue())


def depth_of(width: int, height: int, half: bool = False) -> tuple[np.ndarray, Blob]:
    """Every pixel has a depth of its own; halves repeat."""
    steps = np.arange(width * height, dtype=np.float32).reshape(height, width)
    depth_m = 1 + (steps % 512 / 4 if half else steps / 3)
    return depth_m, Blob(suffix="exr", data=write_exr(depth_m, half=half))


def packed_views(folder: Path, *views: View, max_side: int | None) -> tuple[PackedView, ...]:
    pack_scenes(One(*views), folder, shard_bytes=MB, max_side=max_side)
    return ShardIndex.open(folder).scenes[0].views


@pytest.mark.parametrize(
    ("size", "max_side", "smaller"),
    [
        ((6048, 4032), 1024, (1024, 683)),
        ((33, 100), 10, (3, 10)),
        ((500, 1), 10, (10, 1)),
        ((5, 4), 2, (2, 2)),
    ],
)
def test_the_long_side_is_as_asked_and_the_short_one_rounded(size, max_side, smaller):
    assert reduced_size(*size, max_side) == smaller


@pytest.mark.parametrize(("have", "want"), [(97, 31), (8, 4), (9, 3), (5, 5), (4032, 683)])
def test_the_nearest_pixel_is_nearest(have, want):
    centres = (np.arange(want) + 0.5) * have / want - 0.5
    apart = np.abs(np.arange(have) - centres[:, None])
    picked = nearest_pixels(have, want)
    np.testing.assert_allclose(apart[np.arange(want), picked], apart.min(1), atol=1e-9)
    assert picked.min() >= 0
    assert picked.max() < have


def test_outer_edges_stay_outer_edges():
    A = resized_from_original_px((60, 45), (20, 15)).numpy()
    np.testing.assert_allclose(A @ [-0.5, -0.5, 1], [-0.5, -0.5, 1], atol=1e-12)
    np.testing.assert_allclose(A @ [59.5, 44.5, 1], [19.5, 14.5, 1], atol=1e-12)


def test_images_keep_their_format_and_depth_its_values(tmp_path):
    pixels, image = picture(60, 44)
    depth_m, depth = depth_of(60, 44)
    K_px = np.array([[50.0, 1.5, 28.3], [0, 51.0, 22.1], [0, 0, 1]])
    png = View(name="png", image=image, depth=depth, K_px=K_px)
    # ETH3D links JPEG bytes under the name .png: what counts is what they are.
    jpeg = View(name="jpeg", image=replace(picture(44, 60, "JPEG")[1], suffix="png"))
    half_m, half = depth_of(60, 44, half=True)
    small, large = packed_views(tmp_path, png, jpeg, replace(png, name="half", depth=half), max_side=30)[:2]
    halves = ShardIndex.open(tmp_path).scenes[0].views[2]

    assert (small.width, small.height, small.source_size, small.image.suffix) == (30, 22, (60, 44), "png")
    decoded = decode_view(small.view())
    expected = Image.fromarray(pixels).resize((30, 22), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(decoded.image, np.asarray(expected))
    taken = depth_m[nearest_pixels(44, 22)[:, None], nearest_pixels(60, 30)]
    np.testing.assert_array_equal(decoded.depth_m, taken)
    assert small.depth is not None
    assert [d.itemsize for d in parse_header(small.depth.read(), "").dtypes] == [4]

    assert (large.width, large.height, large.image.suffix) == (22, 30, "jpg")
    with Image.open(io.BytesIO(large.image.read())) as opened:
        assert isinstance(opened, JpegImagePlugin.JpegImageFile)
        assert JpegImagePlugin.get_sampling(opened) == 0  # 4:4:4
        assert max(opened.quantization[0]) <= 13  # quality 95
    assert halves.depth is not None
    assert [d.itemsize for d in parse_header(halves.depth.read(), "").dtypes] == [2]
    np.testing.assert_array_equal(read_exr(halves.depth.read()), half_m[1::2, 1::2])


def test_the_camera_is_exact_at_half_pixels_and_says_what_was(tmp_path):
    K_px = np.array([[50.0, 1.5, 28.3], [0, 51.0, 22.1], [0, 0, 1]])
    source = View(name="a", image=picture(60, 45)[1], depth=depth_of(60, 45)[1], K_px=K_px)
    (view,) = packed_views(tmp_path, source, max_side=20)
    camera = json.loads(view.camera.read())
    assert (camera["width"], camera["height"]) == (20, 15)
    was = camera["source"]
    assert (was["width"], was["height"], was["K_px"]) == (60, 45, K_px.tolist())
    assert was["image_digest"] == source.image_digest == view.source_digest
    assert was["geometry_digest"] == source.geometry_digest("metric", 1)
    # The middle of each 3 x 3 pixels is the centre of one packed pixel: the rays are the same.
    uv_px = torch.tensor([[0.0, 0.0], [19.0, 14.0], [7.0, 3.0]], dtype=torch.float64)
    ones = torch.ones(3, dtype=torch.float64)
    rays = unproject(uv_px, ones, torch.tensor(camera["K_px"], dtype=torch.float64))
    torch.testing.assert_close(rays, unproject(3 * uv_px + 1, ones, torch.from_numpy(K_px)))


def test_masks_far_depth_and_orientation_are_settled_on_the_source(tmp_path):
    _, depth = depth_of(60, 40)
    mask, file = np.zeros((20, 30), bool), io.BytesIO()
    mask[:, :15] = True  # of half the size, as networks predict them
    Image.fromarray(mask).save(file, "PNG")
    turned = View(name="turned", image=picture(40, 60)[1], orientation=6)
    masks = {"sky": Blob(suffix="png", data=file.getvalue())}
    far = View(name="far", image=picture(60, 40)[1], depth=depth, masks=masks, far_percentile=80.0)
    first, second = packed_views(tmp_path, far, turned, max_side=20)
    decoded, whole = decode_view(first.view()), decode_view(far)
    rows, cols = nearest_pixels(40, first.height), nearest_pixels(60, 20)
    assert whole.depth_m is not None
    np.testing.assert_array_equal(decoded.depth_m, whole.depth_m[rows[:, None], cols])
    assert first.view().far_percentile is None
    assert (first.view().masks["sky"].suffix, list(first.masks)) == ("png", ["sky"])
    assert (second.width, second.height, second.orientation) == (20, 13, 1)
    upright = Image.fromarray(decode_view(turned).image).resize((20, 13), Image.Resampling.LANCZOS)
    np.testing.assert_array_equal(decode_view(second.view()).image, np.asarray(upright))


def test_a_view_that_is_small_enough_is_packed_as_it_is(tmp_path):
    view = View(name="a", image=picture(20, 15)[1], depth=depth_of(20, 15)[1])
    with_limit = packed_views(tmp_path / "limit", view, max_side=20)[0]
    without = packed_views(tmp_path / "none", view, max_side=None)[0]
    assert with_limit.source_digest is None
    assert (tmp_path / "limit" / "index.json").read_bytes() == (tmp_path / "none" / "index.json").read_bytes()
    assert with_limit.image_digest == without.image_digest == view.image_digest


def test_the_scale_is_that_of_all_depths_of_the_source(tmp_path):
    view = View(name="a", image=picture(61, 45)[1], depth=depth_of(61, 45)[1])
    pack_scenes(One(view), tmp_path / "small", shard_bytes=MB, max_side=7)
    pack_scenes(One(view), tmp_path / "whole", shard_bytes=MB)
    scales = [ShardIndex.open(tmp_path / name).scenes[0].scene_scale_m for name in ("small", "whole")]
    assert scales[0] == scales[1]


def test_equal_bytes_again_after_a_stop_and_other_digests_at_another_size(tmp_path, monkeypatch):
    views = [View(name=f"{i}", image=picture(60 + i, 44)[1], depth=depth_of(60 + i, 44)[1]) for i in range(6)]

    def packed(name: str, max_side: int | None = 24):
        return pack_scenes(One(*views), tmp_path / name, shard_bytes=12_000, max_side=max_side)

    def contents(name: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted((tmp_path / name).iterdir())}

    assert packed("whole").shards > 2
    whole = contents("whole")
    assert not packed("whole").written
    real, calls = pack_folder.write_atomic, []

    def killed(path: Path, parts: object) -> None:
        calls.append(path)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(path, parts)

    monkeypatch.setattr(pack_folder, "write_atomic", killed)
    with pytest.raises(KeyboardInterrupt):
        packed("again")
    monkeypatch.undo()
    assert packed("again").kept == 1
    assert contents("again") == whole

    before = ShardIndex.open(tmp_path / "again")
    packed("again", max_side=23)
    after = ShardIndex.open(tmp_path / "again")
    assert before.scenes[0].digest != after.scenes[0].digest
    assert {v.source_digest for v in before.scenes[0].views} == {
        v.source_digest for v in after.scenes[0].views
    }
    packed("again", max_side=None)
    assert [v.image_digest for v in ShardIndex.open(tmp_path / "again").scenes[0].views] == [
        view.image_digest for view in views
    ]


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_tokens_are_found_by_pixels_of_the_source(tmp_path, fit):
    view = View(name="a", image=picture(61, 45)[1])
    (whole,) = packed_views(tmp_path / "whole", view, max_side=None)
    (small,) = packed_views(tmp_path / "small", view, max_side=32)
    request = Request(preprocess=Preprocess(fit=fit), grid=(9, 12), patch=4)
    A, A_small = (placed_camera(packed, request).token_from_source_px for packed in (whole, small))
    # The packed image, placed, behind the exact map from the source to it.
    alone = placed_camera(replace(small, source_size=(32, 24)), request).token_from_source_px
    np.testing.assert_allclose(
        A_small, alone @ resized_from_original_px((61, 45), (32, 24)).numpy(), atol=1e-12
    )
    # 45 * 32/61 = 23.6 rows became 24: the maps differ by that rounding and no more.
    corners = np.array([[-0.5, -0.5, 1], [60.5, -0.5, 1], [-0.5, 44.5, 1], [60.5, 44.5, 1]])
    assert np.abs(corners @ (A_small - A).T).max() < (0.5 if fit != "stretch" else 1e-9)
    if fit == "stretch":
        ends = [[-0.5, -0.5], [11.5, -0.5], [-0.5, 8.5], [11.5, 8.5]]
        np.testing.assert_allclose(corners @ A_small.T, ends, atol=1e-9)


def test_a_size_below_one_is_refused(tmp_path):
    config = PackConfig(scenes=str(tmp_path), out=str(tmp_path / "out"), max_side=0)
    with pytest.raises(ConfigError, match="max_side=0 is too small"):
        pack(config, Console(quiet=True))
