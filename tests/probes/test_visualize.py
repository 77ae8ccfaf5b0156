"""PCA colours are comparable between views, robust and deterministic."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from strata.errors import ProbeError
from strata.probes.visualize import INVALID_GREY, pca_picture, pca_rgb


def ramp(rows: int, cols: int, width: int, seed: int = 0) -> np.ndarray:
    """[R, C, D] three directions of falling strength, mixed into D channels."""
    generator = np.random.default_rng(seed)
    latent = generator.normal(size=(rows, cols, 3)) * [9, 3, 1]
    return latent @ np.random.default_rng(99).normal(size=(3, width))


def test_one_feature_has_one_colour_in_every_view() -> None:
    a, b = ramp(5, 7, 16, seed=1), ramp(6, 4, 16, seed=2)
    b[2, 3] = a[1, 1]
    colours_a, colours_b = pca_rgb([a, b])
    assert colours_a.shape == (5, 7, 3)
    assert colours_b.shape == (6, 4, 3)
    assert colours_a.dtype == np.uint8
    np.testing.assert_array_equal(colours_a[1, 1], colours_b[2, 3])


def test_the_strongest_direction_is_red() -> None:
    tokens = ramp(12, 12, 8)
    red = pca_rgb([tokens])[0][..., 0].astype(float).ravel()
    strongest = np.linalg.svd(tokens.reshape(-1, 8) - tokens.reshape(-1, 8).mean(0))[2][0]
    scores = (tokens.reshape(-1, 8) - tokens.reshape(-1, 8).mean(0)) @ strongest
    assert abs(np.corrcoef(red, scores)[0, 1]) > 0.97


def test_an_outlier_does_not_flatten_the_rest() -> None:
    tokens = np.linspace(0, 1, 400).reshape(20, 20, 1)
    tokens[0, 0] = 1000
    red = pca_rgb([tokens])[0][..., 0].astype(int)
    assert np.ptp(red.ravel()[1:]) > 200


def test_colours_do_not_depend_on_the_sign_of_the_solver(monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = ramp(6, 6, 8)
    expected = pca_rgb([tokens])[0]
    solve = np.linalg.eigh
    monkeypatch.setattr(np.linalg, "eigh", lambda matrix: (solve(matrix)[0], -solve(matrix)[1]))
    np.testing.assert_array_equal(pca_rgb([tokens])[0], expected)


def test_tokens_that_are_not_finite_are_grey_and_change_nothing_else() -> None:
    tokens = ramp(6, 6, 8).astype(np.float16)
    clean = pca_rgb([np.delete(tokens.reshape(36, 8), 7, 0)[None]])[0].reshape(-1, 3)
    tokens[1, 1, 3] = np.nan
    colours = pca_rgb([tokens])[0].reshape(-1, 3)
    np.testing.assert_array_equal(colours[7], INVALID_GREY)
    np.testing.assert_array_equal(np.delete(colours, 7, 0), clean)
    assert (pca_rgb([np.full((2, 2, 8), np.nan)])[0] == INVALID_GREY).all()


@pytest.mark.parametrize("width", [1, 2])
def test_fewer_than_three_channels_leave_the_others_flat(width: int) -> None:
    colours = pca_rgb([ramp(4, 4, 3)[..., :width]])[0]
    assert np.ptp(colours[..., 0].astype(int)) > 200
    assert (colours[..., width:] == 128).all()


def test_constant_tokens_are_flat_not_noise() -> None:
    assert (pca_rgb([np.full((3, 3, 8), 0.1, np.float32)])[0] == 128).all()


def test_directions_without_spread_are_flat_not_rounding_noise() -> None:
    line = np.linspace(-1, 1, 30).reshape(5, 6, 1) * np.random.default_rng(0).normal(size=8)
    colours = pca_rgb([line])[0]
    assert np.ptp(colours[..., 0].astype(int)) > 200
    assert (colours[..., 1:] == 128).all()


def test_widths_must_agree() -> None:
    with pytest.raises(ProbeError, match="differ in width"):
        pca_rgb([ramp(2, 2, 3), ramp(2, 2, 4)])


def test_pictures_are_equal_byte_for_byte(tmp_path: Path) -> None:
    images = [np.full((30, 40, 3), 90, np.uint8), np.full((40, 30, 3), 200, np.uint8)]
    layers = {"block5": [ramp(3, 4, 8), ramp(4, 3, 8)], "norm": [ramp(3, 4, 5), ramp(4, 3, 5)]}
    for name in ("a", "b"):
        pca_picture(images, layers, tmp_path / name / "one.png", "room, set 0")
    first, second = (tmp_path / name / "one.png" for name in ("a", "b"))
    assert first.read_bytes() == second.read_bytes()
    pixels = np.asarray(Image.open(first).convert("RGB"))
    assert (pixels == 90).all(-1).sum() > 1000
    assert (pixels == 200).all(-1).sum() > 1000


def test_a_layer_needs_one_map_per_image(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    with pytest.raises(ProbeError, match="1 token maps for 2 images"):
        pca_picture([image, image], {"norm": [ramp(2, 2, 3)]}, tmp_path / "x.png", "x")
