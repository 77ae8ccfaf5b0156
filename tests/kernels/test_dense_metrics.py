"""Errors of points, depths and rays, and all measures of sets of views at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from strata.errors import ConfigError
from strata.kernels.dense_metrics import dense_metrics
from strata.kernels.dense_views import DenseViews
from strata.kernels.geometry import unproject_depth
from strata.kernels.masked import masked_mean, masked_median
from strata.kernels.point_metrics import (
    abs_rel,
    inlier_share,
    ray_directions,
    ray_error_deg,
    reference_abs_rel,
    reference_inlier_share,
    reference_ray_error_deg,
    reference_scale,
    scale,
)
from torch import Tensor


def test_reference_is_map_anythings(shared: Path):
    folder = shared / "golden" / "wai"
    golden, inputs = json.loads((folder / "golden.json").read_text()), np.load(folder / "metrics_inputs.npz")
    predicted, truth, valid = (
        torch.from_numpy(inputs[name]).flatten(0, 1)[None] for name in ("pr", "gt", "mask")
    )
    assert float(reference_abs_rel(predicted, truth, valid)) == pytest.approx(golden["m_rel_ae"], rel=1e-6)
    for word in ("103", "105"):
        share = reference_inlier_share(predicted, truth, valid, 1 + int(word[1:]) / 100)
        assert float(share) == pytest.approx(golden[f"inl{word}"], rel=1e-6)
    assert float(reference_inlier_share(-truth, truth, valid, 1.03)) == golden["inlier_is_direction_blind"]
    assert float(inlier_share(-truth, truth, valid, 1.03)) == 0


TRUTH = torch.tensor([[[0, 0, 2.0], [0, 0, 4.0], [0, 3.0, 4.0]], [[0, 0, 1.0], [0, 0, 0], [0, 0, 7.0]]])
VALID = torch.tensor([[True, True, True], [True, True, False]])


def predicted(*changes: tuple[int, int, list[float]]) -> Tensor:
    points = TRUTH.clone()
    for view, pixel, point in changes:
        points[view, pixel] = torch.tensor(point)
    return points


def test_relative_errors_by_hand():
    points = predicted((0, 0, [0, 0, 3.0]), (1, 0, [0, 0.25, 1.0]), (1, 2, [9.0, 9, 9]))
    assert float(abs_rel(points, TRUTH, VALID)) == pytest.approx((0.5 / 3 + 0.25) / 2)
    assert float(reference_abs_rel(points, TRUTH, VALID)) == pytest.approx((0.5 / 3 + 0.25) / 2)


def test_inliers_by_hand():
    points = predicted((0, 1, [0, 0.5, 4.0]), (0, 2, [0, 3.3, 4.4]), (1, 0, [0, 0, 0.95]))
    # |p| / |t| is 1.0078, 1.1 and 1.0526; |p - t| / |t| is 0.125, 0.1 and 0.05. A true 0 is an outlier there.
    assert float(reference_inlier_share(points, TRUTH, VALID, 1.051)) == pytest.approx((2 / 3 + 0) / 2)
    assert float(inlier_share(points, TRUTH, VALID, 1.051)) == pytest.approx((1 / 3 + 1) / 2)


def test_what_a_model_does_not_answer_is_wrong():
    points = predicted((0, 0, [torch.nan, 0, 2]), (0, 1, [0, torch.inf, 4]))
    assert float(abs_rel(points, TRUTH, VALID)) == pytest.approx((2 / 3 + 0) / 2)
    assert float(inlier_share(points, TRUTH, VALID, 1.05)) == pytest.approx((1 / 3 + 1) / 2)
    assert reference_abs_rel(points, TRUTH, VALID).isnan()
    assert float(scale(points, VALID)) == 1


def test_a_view_without_valid_pixels_is_left_out():
    valid = VALID & torch.tensor([[True], [False]])
    points = predicted((0, 0, [0, 0, 3.0]))
    assert float(abs_rel(points, TRUTH, valid)) == pytest.approx(0.5 / 3)
    assert float(inlier_share(points, TRUTH, valid, 1.05)) == pytest.approx(2 / 3)
    assert reference_abs_rel(points, TRUTH, valid).isnan()
    nothing = torch.zeros_like(valid)
    assert abs_rel(points, TRUTH, nothing).isnan()
    assert scale(points, nothing).isnan()
    assert float(reference_scale(points, nothing)) == pytest.approx(1e-8)


def test_scales_by_hand():
    assert float(reference_scale(TRUTH, VALID)) == pytest.approx((2 + 4 + 5 + 1 + 0) / 5)
    assert float(scale(TRUTH, VALID)) == 2
    assert float(scale(predicted((0, 2, [0, 3e9, 4])), VALID)) == 2


def test_masked_means_let_nothing_through():
    values = torch.tensor([1.0, torch.nan, 3.0], requires_grad=True)
    mask = torch.tensor([True, False, True])
    mean = masked_mean(values, mask)
    mean.backward()
    assert (mean.item(), values.grad.tolist()) == (2, [0.5, 0, 0.5])
    assert masked_median(values, mask).item() == 1


def test_rays_by_hand():
    K_px = torch.tensor([[2.0, 0, 1], [0, 2.0, 0], [0, 0, 1]])
    rays = ray_directions(K_px, (1, 2))
    torch.testing.assert_close(rays, torch.tensor([[-1 / 5**0.5, 0, 2 / 5**0.5], [0, 0, 1]]))
    wider = ray_directions(
        K_px / torch.tensor([[2.0], [2], [1]]) + torch.tensor([[0, 0, 0.5], [0, 0, 0], [0, 0, 0]]), (1, 2)
    )
    expected = (45 - np.rad2deg(np.arctan(0.5))) / 2
    for error in (ray_error_deg, reference_ray_error_deg):
        assert float(error(wider[None], rays[None])) == pytest.approx(expected, rel=1e-5)
        assert float(error(wider[None], rays[None], torch.tensor([[False, True]]))) == pytest.approx(
            0, abs=0.03
        )
    assert float(ray_error_deg(torch.full_like(rays, torch.nan)[None], rays[None])) == 180


def room(views: int = 4, size: tuple[int, int] = (5, 6), seed: int = 0) -> tuple[DenseViews, Tensor]:
    """Two sets of views with consistent random geometry, and which pixels are valid."""
    rng = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(2, views, 3, 3, generator=rng))[0]
    pose = torch.eye(4).repeat(2, views, 1, 1)
    pose[..., :3, :3] = rotation * torch.linalg.det(rotation)[..., None, None]
    pose[..., :3, 3] = torch.randn(2, views, 3, generator=rng)
    depth = 2 + torch.rand(2, views, *size, generator=rng)
    K_px = torch.tensor([[4.0, 0, 2.5], [0, 4, 2], [0, 0, 1]]).expand(2, views, 3, 3)
    geometry = DenseViews(
        points_world=unproject_depth(depth, K_px, pose), depth=depth, world_from_cam=pose, K_px=K_px
    )
    return geometry, torch.rand(2, views, *size, generator=rng) > 0.2


def moved(views: DenseViews, factor: float) -> DenseViews:
    """The same in another world, in another unit."""
    world = room(seed=7)[0].world_from_cam[0, 0]
    pose = world @ views.world_from_cam
    pose[..., :3, 3] *= factor
    depth = views.depth * factor
    points = unproject_depth(depth, views.K_px, pose)
    return replace(views, world_from_cam=pose, depth=depth, points_world=points)


@pytest.mark.parametrize("form", ["reference", "mended"])
def test_the_truth_in_another_world_and_unit_is_perfect(form: str):
    truth, valid = room()
    values = dense_metrics(moved(truth, 3.0), truth, valid, form=form)
    tops = {"pose_auc_5": 100, "pose_auc_30": 100}
    for name, value in values.items():
        expected = tops.get(name, 1 if "inlier" in name else 0)
        torch.testing.assert_close(
            value, torch.full((2,), float(expected)), atol=0.05 if "ray" in name else 1e-3, rtol=1e-3
        )
    assert len(values) == 10


def test_each_measure_sees_what_it_is_for():
    truth, valid = room()
    perfect = dense_metrics(truth, truth, valid)
    K_px, pose = truth.K_px.clone(), truth.world_from_cam.clone()
    K_px[..., 0, 0] *= 1.2
    pose[:, 1:, :3, 3] += 0.3
    depth, points = truth.depth.clone(), truth.points_world.clone()
    depth[:, :, :3] *= 1.2
    points[:, :, :3] += 0.2
    changes = {"ray": {"K_px": K_px}, "pose": {"world_from_cam": pose}, "z_depth": {"depth": depth}}
    changes["pointmaps"] = {"points_world": points}
    for prefix, change in changes.items():
        values = dense_metrics(replace(truth, **change), truth, valid)
        worse = {name for name in values if not torch.allclose(values[name], perfect[name], atol=1e-3)}
        own = {name for name in values if name.startswith(prefix) and name != "pose_auc_30"}
        assert own <= worse, prefix
        if prefix != "pointmaps":  # their scale is everyone's
            assert all(name.startswith(prefix) for name in worse), prefix


def test_sets_of_fewer_views_are_filled_up():
    truth, valid = room()
    pose = truth.world_from_cam.clone()
    pose[..., :3, 3] += 0.2 * torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(2))
    guess = replace(truth, points_world=truth.points_world + 0.1, world_from_cam=pose)
    short = [
        DenseViews(**{name: value[:, :3] for name, value in vars(views).items()}) for views in (guess, truth)
    ]
    expected = dense_metrics(*short, valid[:, :3])
    assert (expected["pose_auc_30"] > 10).all()
    filled = DenseViews(**{name: value.clone() for name, value in vars(guess).items()})
    for value in vars(filled).values():
        value[:, 3] = torch.nan
    present = torch.tensor([True, True, True, False]).expand(2, 4)
    values = dense_metrics(filled, truth, valid & present[..., None, None], present=present)
    for name, value in values.items():
        torch.testing.assert_close(value, expected[name], msg=lambda text, name=name: f"{name}: {text}")


def test_autocast_and_halves():
    truth, valid = room()
    halves = DenseViews(**{name: value.bfloat16() for name, value in vars(truth).items()})
    exact = dense_metrics(moved(truth, 2.0), truth, valid)
    with torch.autocast("cpu", torch.bfloat16):
        cast = dense_metrics(moved(truth, 2.0).widened(), truth, valid)
        assert all(value.dtype == torch.float32 for value in dense_metrics(halves, truth, valid).values())
    assert cast.keys() == exact.keys()


def test_an_unknown_form_is_told():
    truth, valid = room()
    with pytest.raises(ConfigError, match="form=mendet") as caught:
        dense_metrics(truth, truth, valid, form="mendet")
    assert "mended" in caught.value.fix
