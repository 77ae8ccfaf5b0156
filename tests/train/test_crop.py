"""What is cut away while training: cameras and pixels stay those of one another."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from strata.errors import ConfigError
from strata.extract.preprocess import place, place_image, place_intrinsics, place_plane
from strata.kernels.geometry import depth_agreement, invert_rigid
from strata.train.augment import VGGT
from strata.train.crop import MiddleCrop, PrincipalCrop
from strata.train.distributed import Shard
from strata.train.vggt_command import make_task


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_a_crop_of_one_pixel_is_the_one_without(shared: Path):
    K_px = np.array([[140.0, 0, 79.5], [0, 140.0, 59.5], [0, 0, 1]])
    golden = json.loads((shared / "golden" / "wai" / "golden.json").read_text())
    placement = MiddleCrop(px=1).draw(160, 120, K_px, (56, 84), seeded())
    assert placement == place(160, 120, (56, 84), "crop")
    np.testing.assert_allclose(place_intrinsics(K_px, placement), golden["K_84x56"], atol=1e-5)


def test_depth_and_intrinsics_follow_the_crop():
    K_px = np.array([[60.0, 0, 40.0], [0, 60.0, 30.0], [0, 0, 1]])
    v, u = np.mgrid[:64, :80].astype(np.float64)
    plane = np.array([0.2, -0.1, 1.0])  # n . X = 2
    depth_m = 2 / ((u - 40) / 60 * plane[0] + (v - 30) / 60 * plane[1] + plane[2])
    image = np.repeat((2 * u)[..., None], 3, -1).astype(np.uint8)
    scales = set()
    for seed in range(12):
        placement = MiddleCrop().draw(80, 64, K_px, (42, 56), seeded(seed))
        new_K, scale = place_intrinsics(K_px, placement), placement.affine[0]
        scales.add(round(scale, 6))
        assert 0.7 <= scale <= (42 + 15) / 64 + 1e-6
        placed = place_plane(depth_m, placement)
        assert placed.shape == (42, 56)
        rows, cols = np.mgrid[:42, :56]
        rays = np.stack(((cols - new_K[0, 2]) / new_K[0, 0], (rows - new_K[1, 2]) / new_K[1, 1]), -1)
        on_plane = placed * (rays @ plane[:2] + plane[2])
        # Depth is the nearest source pixel's: up to a pixel away, a step of depth of 0.4 % here.
        np.testing.assert_allclose(on_plane, 2, rtol=0.01)
        shade = place_image(image, placement)[21, 28, 0] / 2
        assert shade == pytest.approx((28 - placement.affine[1]) / scale, abs=1)
    assert len(scales) > 5


def step_by_step(K_px: np.ndarray, size: tuple[int, int], target: tuple[int, int], seed: int) -> np.ndarray:
    """[3, 3] target pixel of source pixel, as VGGT's training is described: cut, resize, cut."""
    generator = seeded(seed)
    drawn = [float(torch.rand((), generator=generator, dtype=torch.float64)) for _ in range(3)]
    part = [side * min(0.8 + 0.4 * one, 1) for side, one in zip(size, drawn[:2], strict=True)]
    middle = np.array([K_px[1, 2], K_px[0, 2]])
    cut = np.eye(3)
    cut[1, 2], cut[0, 2] = -(middle - np.array(part) / 2 + 0.5)
    # Of a triangle that falls from 0 to 0.3, the share below x is 1 - (1 - x / 0.3)^2.
    margin = 4 + 0.3 * max(target) * (1 - (1 - drawn[2]) ** 0.5)
    scale = max((side + margin) / have for side, have in zip(target, part, strict=True))
    resize = np.array([[scale, 0, scale / 2 - 0.5], [0, scale, scale / 2 - 0.5], [0, 0, 1]])
    found = resize @ cut
    moved = found @ [middle[1], middle[0], 1]
    found[:2, 2] += np.array([target[1], target[0]]) / 2 - moved[:2]
    return found


@pytest.mark.parametrize("principal", [(40.0, 30.0), (12.0, 50.0)], ids=["middle", "border"])
def test_the_principal_point_comes_to_the_middle(principal: tuple[float, float]):
    K_px = np.array([[60.0, 0, principal[0]], [0, 61.0, principal[1]], [0, 0, 1]])
    source = 1.0 + np.mgrid[:64, :80]  # [2, 64, 80] v and u, nowhere 0
    scales = set()
    for seed in range(40):
        placement = PrincipalCrop().draw(80, 64, K_px, (42, 56), seeded(seed))
        ours, wanted = place_intrinsics(K_px, placement), step_by_step(K_px, (64, 80), (42, 56), seed)
        # Whole pixels: half a pixel in the size of the image, and half in where it is cut.
        np.testing.assert_allclose(ours[:2, :2], (wanted @ K_px)[:2, :2], rtol=0.5 / 42)
        np.testing.assert_allclose(ours[:2, 2], [28, 21], atol=0.5001)
        scales.add(round(placement.affine[0], 3))
        v, u = np.mgrid[:42, :56]
        inverse = np.linalg.inv(ours @ np.linalg.inv(K_px))
        seen = np.stack((inverse[1, 1] * v + inverse[1, 2], inverse[0, 0] * u + inverse[0, 2]))
        placed = np.stack([place_plane(plane, placement) for plane in source])
        there = (placed > 0).all(0)
        # The nearest pixel by its corner, as everywhere in `preprocess.py`.
        assert np.abs(placed - 1 - seen)[:, there].max() <= 0.5 + 0.5 / placement.affine[0]
        edges = np.array([64, 80])[:, None, None]
        assert np.array_equal(((seen > -0.5) & (seen < edges - 0.5)).all(0), there)
        assert there.all() == (principal == (40.0, 30.0))
    assert len(scales) > 15
    # At least 60 pixels of 80, the whole width; at most 0.3 of 56 more, of 0.8 of the height.
    assert 60 / 80 <= min(scales) < max(scales) < (46 + 0.3 * 56) / (0.8 * 64) + 0.01


def agreement(batch, K_px: torch.Tensor) -> float:
    """Of the first two views of all sets, the share of pixels that agree in depth."""
    counts = []
    for b, (i, j) in itertools.product(range(len(batch["depth"])), ((0, 1), (1, 0))):
        poses, depth, K = batch["world_from_cam"][b], batch["depth"][b], K_px[b]
        b_from_a = invert_rigid(poses[j]) @ poses[i]
        counts.append(depth_agreement(depth[i], depth[j], K[i], K[j], b_from_a))
    agreeing, compared = np.sum(counts, axis=0)
    assert compared > 10_000
    return float(agreeing / compared)


def test_views_that_were_cut_agree_in_depth(training, console):
    batches = make_task(training(augment="vggt", pixels=[84, 112], max_images=8), console)[0].batches(
        0, 0, Shard()
    )
    batch = next(batches)
    batches.close()
    K_px = batch["K_px"]
    assert (K_px[..., :2, 2] - torch.tensor([56.0, 42.0])).abs().max() < 0.51
    assert len(K_px[..., 0, 0].unique()) == K_px[..., 0, 0].numel()
    # Depth is the nearest source pixel's, and a source pixel is two wide: as many agree without a cut.
    assert agreement(batch, K_px) > 0.8
    assert agreement(batch, K_px.flip(1)) < 0.65


@pytest.mark.parametrize(
    "make",
    [
        lambda: MiddleCrop(px=0),
        lambda: PrincipalCrop(share=(1.2, 0.8)),
        lambda: PrincipalCrop(margin_px=-1),
        lambda: PrincipalCrop(zoom=-0.1),
    ],
)
def test_crops_that_cannot_be_meant(make):
    with pytest.raises(ConfigError, match="cannot be meant") as caught:
        make()
    assert caught.value.where.startswith("augment.crop.")


def test_the_augmentation_of_vggt_cuts_around_the_principal_point():
    assert VGGT.crop == PrincipalCrop(share=(0.8, 1.2), margin_px=4, zoom=0.3)
