"""Placing images: map-anything's numbers, and maps that agree with the pictures they go with."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from strata.extract.preprocess import (
    place,
    place_image,
    place_intrinsics,
    place_plane,
    token_from_source_px,
)
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.wai import WaiSource
from strata.kernels.geometry import project

FITS = ("crop", "pad", "stretch")
SIZES = [(160, 120), (120, 160), (200, 61), (84, 56), (31, 97), (640, 480)]


def test_the_numbers_of_map_anything(shared):
    golden = json.loads((shared / "golden/wai/golden.json").read_text())
    scene = WaiSource(shared / "golden/wai").scene("eth3d/toy_a")
    view = scene.views[4]
    decoded = decode_view(view)
    assert (decoded.width, decoded.height) == (160, 120)
    placement = place(160, 120, (56, 84), "crop")
    assert view.K_px is not None
    assert decoded.depth_m is not None
    assert place_intrinsics(view.K_px, placement).astype(np.float32).tolist() == golden["K_84x56"]
    image = place_image(decoded.image, placement).astype(np.float64) / 255
    assert image.sum() == pytest.approx(golden["img_sum"], abs=1e-3)
    depth = place_plane(decoded.depth_m, placement).astype(np.float64)
    assert depth.sum() == pytest.approx(golden["depth_sum"], abs=1e-3)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("target", [(56, 84), (84, 56), (14, 14)], ids=str)
def test_everything_has_the_target_size(fit, size, target):
    placement = place(size[0], size[1], target, fit)
    image = np.full((size[1], size[0], 3), 200, np.uint8)
    placed = place_image(image, placement)
    assert (placed.shape, placed.dtype) == ((*target, 3), np.uint8)
    assert place_plane(np.ones((size[1], size[0]), np.float32), placement).shape == target
    black = (placed == 0).all(-1)
    assert black.any() == (fit == "pad" and size[0] * target[0] != size[1] * target[1])
    covered = ~black
    assert (placed[covered] == 200).all()
    if fit == "pad":
        # The borders are equal, up to the odd pixel.
        rows, cols = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
        assert abs(rows[0] - (target[0] - 1 - rows[-1])) <= 1
        assert abs(cols[0] - (target[1] - 1 - cols[-1])) <= 1


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", [(160, 120), (120, 160), (200, 61)], ids=str)
@pytest.mark.parametrize("patch", [8, 14])
def test_a_marker_lands_in_the_token_that_the_map_names(fit, size, patch):
    width, height = size
    grid = (8, 12) if width > height else (12, 8)
    placement = place(width, height, (grid[0] * patch, grid[1] * patch), fit)
    A = token_from_source_px(placement, patch)
    rng, seen = np.random.default_rng(0), 0
    for u, v in zip(rng.integers(0, width, 80), rng.integers(0, height, 80), strict=True):
        col, row = A @ [u, v, 1]
        # Markers near a token's border may be smeared over it; map-anything's own map is off by 1 pixel.
        middle = max(abs(col - round(col)), abs(row - round(row))) < 0.5 - 1.5 / patch
        if not (middle and 0 <= round(row) < grid[0] and 0 <= round(col) < grid[1]):
            continue
        image = np.zeros((height, width, 3), np.uint8)
        image[v, u] = 255
        placed = place_image(image, placement, "bilinear").astype(int).sum(-1)
        sums = placed.reshape(grid[0], patch, grid[1], patch).sum((1, 3))
        assert np.unravel_index(sums.argmax(), grid) == (round(row), round(col)), (u, v)
        seen += 1
    assert seen > 5


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pictures_and_maps_agree_to_half_a_pixel(fit, size):
    """A ramp over the columns, placed, shows the source column that the affine names."""
    width, height = size
    placement = place(width, height, (56, 84), fit)
    ramp = np.repeat(np.arange(width, dtype=np.float32)[None], height, axis=0)
    sx, tx, sy, ty = placement.affine
    resized = Image.fromarray(ramp).resize(
        (placement.resized[1], placement.resized[0]), Image.Resampling.BILINEAR
    )
    cols = np.arange(placement.resized[1])[2:-2]
    named = (cols - placement.left - tx) / sx
    np.testing.assert_allclose(np.asarray(resized)[0, 2:-2], named, atol=0.51 / min(sx, 1) + 0.51)
    rows = np.arange(placement.resized[0]) - placement.top
    assert -1.01 <= (rows[0] - ty) / sy <= (rows[-1] - ty) / sy <= height + 0.01


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_intrinsics_go_with_the_map(fit, size):
    width, height = size
    placement = place(width, height, (56, 84), fit)
    K_px = np.array([[90.0, 0.3, width / 2 - 1], [0, 95.0, height / 2 + 2], [0, 0, 1]])
    points = torch.from_numpy(np.random.default_rng(0).normal([0, 0, 5], 1, (20, 3)))
    source, _ = project(points, torch.from_numpy(K_px))
    placed, _ = project(points, torch.from_numpy(place_intrinsics(K_px, placement)))
    sx, tx, sy, ty = placement.affine
    np.testing.assert_allclose(placed, source.numpy() * [sx, sy] + [tx, ty], atol=1e-9)
    tokens = (
        torch.cat([source, torch.ones(20, 1)], 1) @ torch.from_numpy(token_from_source_px(placement, 7)).T
    )
    np.testing.assert_allclose(tokens, (placed + 0.5) / 7 - 0.5, atol=1e-9)


def test_corners_of_the_target_are_corners_of_the_grid():
    placement = place(60, 40, (20, 30), "stretch")
    A = token_from_source_px(placement, 5)
    for u, v, col, row in ((-0.5, -0.5, -0.5, -0.5), (59.5, 39.5, 5.5, 3.5), (29.5, 19.5, 2.5, 1.5)):
        np.testing.assert_allclose(A @ [u, v, 1], [col, row], atol=1e-12)


def test_filters():
    image = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8).astype(np.uint8)
    down, up = place(60, 40, (20, 30), "stretch"), place(60, 40, (80, 120), "stretch")
    assert (place_image(image, down) == place_image(image, down, "lanczos")).all()
    assert (place_image(image, up) == place_image(image, up, "bicubic")).all()
    assert (place_image(image, up, "nearest") == image.repeat(2, 0).repeat(2, 1)).all()
    assert (place_image(image, place(60, 40, (40, 60), "crop")) == image).all()
