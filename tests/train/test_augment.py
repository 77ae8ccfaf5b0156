"""Random changes of images: what is drawn, what is done, and that a generator repeats it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from strata.errors import ConfigError, TrainError
from strata.train.augment import (
    MAPANYTHING,
    VGGT,
    AugmentOptions,
    Change,
    augment_colours,
    changed,
    draw_change,
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
        {"depth_share": 0.0},
        {"brightness": -1.0},
        {"hue": 0.6},
        {"blur_px": 4},
        {"blur_sigma_px": (0.0, 1.0)},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_options_that_cannot_be_meant(wrong: dict):
    with pytest.raises(ConfigError) as caught:
        AugmentOptions(**wrong)
    assert caught.value.where == f"augment.{next(iter(wrong))}"
