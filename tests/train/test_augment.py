"""Random changes of images: what is drawn, what is done, and that a generator repeats it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from strata.errors import ConfigError, TrainError
from strata.extract.preprocess import place, place_image, place_intrinsics, place_plane
from strata.train.augment import (
    MAPANYTHING,
    VGGT,
    AugmentOptions,
    Change,
    augment_colours,
    changed,
    draw_change,
    draw_crop,
)

NEVER = AugmentOptions(jitter_share=0, grey_share=0, blur_share=0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(views: int = 3) -> torch.Tensor:
    return torch.rand(views, 3, 11, 13, generator=seeded(5))


def test_the_same_generator_gives_the_same_images_whatever_else_was_drawn():
    first = augment_colours(images(), MAPANYTHING, seeded())
    torch.rand(7)
    assert torch.equal(augment_colours(images(), MAPANYTHING, seeded()), first)
    assert not torch.equal(augment_colours(images(), MAPANYTHING, seeded(1)), first)
    half_way = seeded()
    augment_colours(images(), MAPANYTHING, half_way)
    rest = augment_colours(images(), MAPANYTHING, half_way)
    resumed = seeded()
    augment_colours(images(), MAPANYTHING, resumed)
    state = resumed.get_state()
    assert torch.equal(augment_colours(images(), MAPANYTHING, seeded().set_state(state)), rest)


def test_images_stay_what_they_are():
    before = images()
    kept = before.clone()
    strong = replace(MAPANYTHING, jitter_share=1, blur_share=1, brightness=0.9)
    after = augment_colours(before, strong, seeded())
    assert torch.equal(before, kept)
    assert (after.shape, after.dtype) == (before.shape, before.dtype)
    assert 0 <= after.min() <= after.max() <= 1
    assert torch.equal(augment_colours(before, NEVER, seeded()), before)


def test_shares_and_ranges_are_those_of_the_options():
    rng = seeded()
    drawn = [draw_change(MAPANYTHING, rng) for _ in range(4000)]
    jittered = [dict(change.jitters) for change in drawn if change.jitters]
    assert len(jittered) / 4000 == pytest.approx(0.75, abs=0.03)
    assert sum(change.grey for change in drawn) / 4000 == pytest.approx(0.05, abs=0.015)
    sigmas = [change.blur_sigma_px for change in drawn if change.blur_sigma_px is not None]
    assert len(sigmas) / 4000 == pytest.approx(0.05, abs=0.015)
    ranges = {"brightness": (0.7, 1.3), "contrast": (0.6, 1.4), "saturation": (0.8, 1.2), "hue": (-0.1, 0.1)}
    for name, (low, high) in ranges.items():
        factors = np.array([change[name] for change in jittered])
        assert low <= factors.min() < low + 0.02 * (high - low)
        assert high >= factors.max() > high - 0.02 * (high - low)
        assert factors.mean() == pytest.approx((low + high) / 2, abs=0.02)
    assert 0.1 <= min(sigmas) < max(sigmas) <= 1
    assert len({tuple(change) for change in jittered}) == 24
    assert draw_change(replace(VGGT, jitter_share=1, brightness=3.0), rng).jitters != ()


def test_each_change_does_what_it_says():
    grey_image = torch.full((3, 5, 5), 0.25)
    assert torch.allclose(changed(grey_image, Change(jitters=(("brightness", 2.0),)), 5), 2 * grey_image)
    image = images(1)[0]
    grey = changed(image, Change(grey=True), 5)
    assert torch.equal(grey[0], grey[2])
    assert torch.allclose(
        grey[0], (image * torch.tensor([0.2989, 0.587, 0.114])[:, None, None]).sum(0), atol=1e-3
    )
    dot = torch.zeros(3, 9, 9)
    dot[:, 4, 4] = 1
    blurred = changed(dot, Change(blur_sigma_px=1.0), 5)
    assert (blurred[0] > 0).sum() == 25
    assert blurred[0, 4, 5] / blurred[0, 4, 4] == pytest.approx(np.exp(-0.5), rel=1e-4)
    turned = changed(
        torch.tensor([1.0, 0, 0])[:, None, None].expand(3, 2, 2), Change(jitters=(("hue", 1 / 3),)), 5
    )
    assert turned[:, 0, 0].tolist() == pytest.approx([0, 1, 0], abs=1e-5)
    order = (("brightness", 2.0), ("contrast", 0.0)), (("contrast", 0.0), ("brightness", 2.0))
    assert not torch.equal(*(changed(image, Change(jitters=jitters), 5) for jitters in order))


@pytest.mark.parametrize(("share", "alike"), [(1.0, True), (0.0, False)])
def test_views_are_changed_alike_or_each_in_its_own_way(share: float, alike: bool):
    same = images(1).expand(2, 3, 11, 13)
    options = replace(MAPANYTHING, jitter_share=1, alike_share=share)
    first, second = augment_colours(same, options, seeded())
    assert torch.equal(first, second) == alike


def test_a_crop_of_one_pixel_is_the_one_without(shared: Path):
    golden = json.loads((shared / "golden" / "wai" / "golden.json").read_text())
    placement = draw_crop(160, 120, (56, 84), replace(MAPANYTHING, crop_px=1), seeded())
    assert placement == place(160, 120, (56, 84), "crop")
    K_px = np.array([[140.0, 0, 79.5], [0, 140.0, 59.5], [0, 0, 1]])
    np.testing.assert_allclose(place_intrinsics(K_px, placement), golden["K_84x56"], atol=1e-5)


def test_depth_and_intrinsics_follow_the_crop():
    K_px = np.array([[60.0, 0, 40.0], [0, 60.0, 30.0], [0, 0, 1]])
    v, u = np.mgrid[:64, :80].astype(np.float64)
    plane = np.array([0.2, -0.1, 1.0])  # n . X = 2
    depth_m = 2 / ((u - 40) / 60 * plane[0] + (v - 30) / 60 * plane[1] + plane[2])
    image = np.repeat((2 * u)[..., None], 3, -1).astype(np.uint8)
    scales = set()
    for seed in range(12):
        placement = draw_crop(80, 64, (42, 56), MAPANYTHING, seeded(seed))
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


@pytest.mark.parametrize(
    "given",
    [torch.zeros(3, 4, 5), torch.zeros(2, 4, 5, 5), torch.zeros(2, 3, 4, 5, dtype=torch.uint8)],
    ids=["no views", "rgba", "bytes"],
)
def test_other_images_are_refused(given: torch.Tensor):
    with pytest.raises(TrainError, match="cannot be augmented") as caught:
        augment_colours(given, MAPANYTHING, seeded())
    assert "[V, 3, H, W]" in caught.value.why


@pytest.mark.parametrize(
    "wrong",
    [
        {"jitter_share": 1.2},
        {"alike_share": -0.1},
        {"brightness": -1.0},
        {"hue": 0.6},
        {"blur_px": 4},
        {"blur_sigma_px": (0.0, 1.0)},
        {"crop_px": 0},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_options_that_cannot_be_meant(wrong: dict):
    with pytest.raises(ConfigError) as caught:
        AugmentOptions(**wrong)
    assert caught.value.where == f"augment.{next(iter(wrong))}"
