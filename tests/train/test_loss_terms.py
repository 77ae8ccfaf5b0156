"""What the loss of VGGT is made of: slopes, normals, bounds, quantiles, and normalised scenes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from strata.kernels.dense_views import DenseViews
from strata.kernels.geometry import invert_rigid
from strata.train.normalise import normalised
from strata.train.robust import below_quantile, bounded, nothing
from strata.train.surface_loss import normal_loss, slope_loss, surface_normals
from torch import Tensor


@pytest.fixture(scope="module")
def recorded(shared: Path) -> Mapping[str, Tensor]:
    return load_file(shared / "golden" / "vggt" / "fn_loss.safetensors")


def test_gradients_of_the_surfaces_are_those_of_their_values():
    rng = torch.Generator().manual_seed(0)
    points, truth = torch.randn(2, 1, 6, 7, 3, generator=rng, dtype=torch.float64)
    valid = torch.rand(1, 6, 7, generator=rng) > 0.1
    conf = 1 + torch.rand(1, 6, 7, generator=rng, dtype=torch.float64)
    for loss in (slope_loss, normal_loss):
        inputs = (points.clone().requires_grad_(), conf.clone().requires_grad_())
        assert torch.autograd.gradcheck(lambda p, c, loss=loss: loss(p, truth, valid, c, scales=2), inputs)


def test_normals_of_many_maps_are_those_of_all_at_once(monkeypatch):
    rng = torch.Generator().manual_seed(0)
    points, truth = torch.randn(2, 9, 8, 8, 3, generator=rng, dtype=torch.float64)
    valid, conf = torch.rand(9, 8, 8, generator=rng) > 0.1, 1 + torch.rand(9, 8, 8, generator=rng).double()
    results = []
    for at_once in (4, 100):
        monkeypatch.setattr("strata.train.surface_loss.MAPS_AT_ONCE", at_once)
        leaf = points.clone().requires_grad_()
        loss = normal_loss(leaf, truth, valid, conf)
        loss.backward()
        results.append((loss.detach(), leaf.grad))
    for chunked, whole in zip(*results, strict=True):
        torch.testing.assert_close(chunked, whole)


def test_slopes_by_hand():
    values = torch.tensor([[[0.0, 1], [3, 700]]])[..., None]
    valid = torch.tensor([[[True, True], [True, False]]])
    loss = slope_loss(values, torch.zeros_like(values), valid, scales=1)
    assert loss.item() == pytest.approx((1 + 3) / 3)
    leaf, holes = values.clone().requires_grad_(), torch.where(valid[..., None], 0, torch.nan)
    around = slope_loss(leaf, holes, valid, scales=1)
    around.backward()
    assert around == loss
    assert leaf.grad.flatten().tolist() == pytest.approx([-2 / 3, 1 / 3, 1 / 3, 0])
    steep = slope_loss(values, torch.zeros_like(values), torch.ones_like(valid), scales=1)
    assert steep.item() == pytest.approx((1 + 100 + 3 + 100) / 4)


def test_normals_are_as_recorded(recorded):
    valid = recorded["batch.point_masks"][0]
    normals, corners = surface_normals(recorded["batch.world_points"][0], valid)
    assert torch.equal(corners, recorded["normal.valid"])
    torch.testing.assert_close(normals[corners], recorded["normal.n"][corners])


def test_normals_next_to_holes_have_clean_gradients():
    rng = torch.Generator().manual_seed(0)
    points, truth = torch.randn(2, 1, 6, 6, 3, generator=rng)
    valid = torch.rand(1, 6, 6, generator=rng) > 0.2
    gradients = []
    for filling in (0.0, torch.nan):
        leaf = points.clone().requires_grad_()
        normal_loss(leaf, truth.where(valid[..., None], torch.tensor(filling)), valid).backward()
        gradients.append(leaf.grad)
    assert torch.equal(*gradients)
    assert gradients[0].count_nonzero() > 0


def test_few_corners_count_for_nothing():
    points = torch.randn(1, 4, 4, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)
    valid = torch.zeros(1, 4, 4, dtype=torch.bool)
    valid[:, :2, :3] = True  # 8 corners
    loss = normal_loss(points, torch.randn(1, 4, 4, 3), valid)
    loss.backward()
    assert loss == 0
    assert points.grad.count_nonzero() == 0


def test_bounds_and_quantile_are_as_recorded(recorded):
    fixed = recorded["fix.in"]
    assert torch.equal(bounded(fixed), recorded["fix.out"])
    assert torch.equal(bounded(fixed, None), recorded["fix.out_nomax"])
    assert torch.equal(below_quantile(recorded["q.in"], 0.98), recorded["q.out_0.98"])
    assert torch.equal(below_quantile(recorded["q.small_in"], 0.98), recorded["q.small_out"])


def test_the_quantile_keeps_enough():
    values = torch.arange(1500.0)
    assert below_quantile(values, 0.5).max() == 100  # 750 would be left: all are kept, and bounded
    assert len(below_quantile(values / 100, 0.5)) == 1500
    assert len(below_quantile(values / 100, 0.8)) == 1199
    assert torch.equal(below_quantile(values, None), values)


def test_of_very_many_values_some_are_ranked(monkeypatch):
    monkeypatch.setattr("strata.train.robust.MOST_RANKED", 10_000)
    monkeypatch.setattr("strata.train.robust.RANKED", 1_000)
    values = torch.rand(20_000, generator=torch.Generator().manual_seed(0))
    kept = below_quantile(values, 0.9)
    assert len(kept) / len(values) == pytest.approx(0.9, abs=0.03)


def test_nothing_is_a_zero_with_a_gradient():
    broken = torch.tensor([1.0, torch.nan, torch.inf], requires_grad=True)
    zero = nothing(broken)
    zero.backward()
    assert (zero.item(), broken.grad.tolist()) == (0, [0, 0, 0])


def test_normalisation_is_as_recorded(shared: Path, recorded):
    tensors = load_file(shared / "golden" / "vggt" / "fn_normalize.safetensors")
    views = DenseViews(
        points_world=tensors["world_points"],
        depth=tensors["depths"],
        world_from_cam=invert_rigid(tensors["extrinsics"]),
        K_px=recorded["batch.intrinsics"],
    )
    valid = tensors["point_masks"]
    exact = normalised(views, valid).depth
    for scaled, word in ((True, "out"), (False, "noscale")):
        made = normalised(views, valid, scaled=scaled)
        extrinsics = invert_rigid(made.world_from_cam)[..., :3, :]
        for mine, name in ((made.points_world, "world_points"), (extrinsics, "extrinsics")):
            torch.testing.assert_close(mine, tensors[f"{word}_{name}"], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(normalised(views, valid).depth, tensors["out_depths"])
    assert torch.equal(normalised(views, valid, scaled=False).depth, tensors["depths"])
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(normalised(views, valid).depth, exact)
    spoilt = torch.where(valid[..., None], views.points_world, torch.nan)
    again = normalised(replace(views, points_world=spoilt), valid).depth
    assert torch.equal(again, normalised(views, valid).depth)
    empty = normalised(views, torch.zeros_like(valid)).depth
    torch.testing.assert_close(empty, 1e6 * tensors["depths"])
