"""Errors of camera poses: equal to the reference where there is one, and right where it is not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from strata.kernels.alignment import fit_similarity
from strata.kernels.geometry import invert_rigid
from strata.kernels.pose_metrics import (
    PairErrors,
    pair_errors,
    pose_auc_percent,
    reference_pair_errors,
    reference_pose_auc_percent,
    reference_trajectory_error,
    rotation_angle_deg,
    trajectory_rmse,
)
from torch import Tensor


def turn(axis: list[float], angle_deg: float) -> Tensor:
    cross = torch.linalg.cross(torch.tensor(axis).double().expand(3, 3), torch.eye(3).double()).mT
    return torch.linalg.matrix_exp(cross * np.deg2rad(angle_deg))


def trajectory(views: int, seed: int = 0) -> Tensor:
    """Random rigid poses [V, 4, 4] in float64."""
    rng = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(views, 3, 3, generator=rng, dtype=torch.float64))[0]
    poses = torch.eye(4).double().repeat(views, 1, 1)
    poses[:, :3, :3] = rotation * torch.linalg.det(rotation)[:, None, None]
    poses[:, :3, 3] = torch.randn(views, 3, generator=rng, dtype=torch.float64)
    return poses


@pytest.fixture(scope="module")
def wai(shared: Path) -> tuple[dict, Tensor, Tensor]:
    folder = shared / "golden" / "wai"
    inputs = np.load(folder / "metrics_inputs.npz")
    predicted, truth = (torch.from_numpy(inputs[name]) for name in ("pr_poses", "gt_poses"))
    return json.loads((folder / "golden.json").read_text()), predicted, truth


def test_reference_errors_of_pairs_are_map_anythings(wai):
    golden, predicted, truth = wai
    errors = reference_pair_errors(predicted, truth)
    # The recorded values are float32, where acos leaves three or four digits.
    torch.testing.assert_close(errors.rotation_deg, torch.tensor(golden["rot_deg"]), atol=1.5e-3, rtol=0)
    torch.testing.assert_close(errors.translation_deg, torch.tensor(golden["trans_deg"]), atol=1.5e-3, rtol=0)
    assert float(reference_pose_auc_percent(errors, 5)) == pytest.approx(golden["auc5"])
    assert float(reference_pose_auc_percent(errors, 30)) == pytest.approx(golden["auc30"])


def test_reference_trajectory_error_is_map_anythings(wai):
    golden, predicted, truth = wai
    assert float(reference_trajectory_error(predicted, truth)) == pytest.approx(golden["ate"], rel=1e-5)


def test_reference_auc_is_that_of_vggts_evaluation(shared: Path):
    golden = json.loads((shared / "golden" / "vggt" / "fn_pose_auc.json").read_text())
    given = {name: torch.tensor(value).double() for name, value in golden.items() if name.endswith("deg")}
    predicted, truth = (
        invert_rigid(torch.tensor(golden[name], dtype=torch.float64)) for name in ("pred", "gt")
    )
    for measure in (reference_pair_errors, pair_errors):
        measured = measure(predicted, truth)
        torch.testing.assert_close(measured.rotation_deg, given["rot_err_deg"], atol=1e-5, rtol=0)
        torch.testing.assert_close(measured.translation_deg, given["trans_err_deg"], atol=1e-5, rtol=0)
    for threshold, value in golden["auc"].items():
        auc = float(reference_pose_auc_percent(reference_pair_errors(predicted, truth), int(threshold)))
        assert auc == pytest.approx(100 * value)


def errors_of(*degrees: float) -> PairErrors:
    worse = torch.tensor(degrees).double()
    return PairErrors(rotation_deg=worse, translation_deg=worse / 2, valid=torch.ones(len(worse)).bool())


def test_auc_by_hand():
    errors = errors_of(0.5, 4.0, 5.0, 40.0)
    assert float(pose_auc_percent(errors, 5)) == pytest.approx(100 * (0.9 + 0.2) / 4)
    # Histogram 0..5: one pair in bin 0, two in bin 4, whose right edge belongs to it.
    assert float(reference_pose_auc_percent(errors, 5)) == pytest.approx(100 * (1 + 1 + 1 + 1 + 3) / 4 / 5)
    assert float(pose_auc_percent(errors, 0.75)) == pytest.approx(100 / 3 / 4)


def test_auc_of_the_histogram_equals_numpys():
    degrees = np.concatenate((np.random.default_rng(0).uniform(0, 40, 200), np.arange(41)))
    share = np.cumsum(np.histogram(degrees, bins=np.arange(31))[0] / len(degrees)).mean()
    assert float(reference_pose_auc_percent(errors_of(*degrees), 30)) == pytest.approx(100 * share)


@pytest.mark.parametrize("angle", [0.0, 1e-5, 0.3, 90.0, 179.9999, 180.0])
def test_rotation_angle_keeps_its_digits(angle: float):
    a = turn([0.6, 0.0, 0.8], 40.0)
    measured = float(rotation_angle_deg(a @ turn([0.0, 0.6, 0.8], angle), a))
    assert measured == pytest.approx(angle, rel=1e-6, abs=1e-7)


def test_a_backward_translation_is_wrong_but_for_the_reference():
    truth = torch.eye(4).double().repeat(2, 1, 1)
    truth[1, 0, 3] = 1
    predicted = truth.clone()
    predicted[1, 0, 3] = -1
    assert pair_errors(predicted, truth).translation_deg.tolist() == pytest.approx([180])
    assert reference_pair_errors(predicted, truth).translation_deg.tolist() == pytest.approx([0], abs=1e-4)


def test_pairs_without_direction():
    truth = trajectory(3)
    place = torch.tensor([700.0, 800, 900])
    # Far from the origin one place differs by rounding.
    truth[0, :3, 3], truth[1, :3, 3] = place, place.nextafter(torch.tensor(1e9))
    assert pair_errors(trajectory(3).float(), truth.float()).translation_deg[0] == 0
    unmoved = pair_errors(truth.float(), trajectory(3).float()).translation_deg == 180
    assert unmoved.tolist() == [True, False, False]


@pytest.mark.parametrize("column", [0, 3], ids=["rotation", "translation"])
def test_a_pose_that_is_not_finite_fails_its_pairs(column: int):
    truth = trajectory(3)
    predicted = truth.clone()
    predicted[2, 0, column] = torch.nan
    errors = pair_errors(predicted, truth)
    assert errors.worse_deg[1:].tolist() == [180, 180]
    assert float(pose_auc_percent(errors, 5)) == pytest.approx(100 / 3)
    assert float(reference_pose_auc_percent(reference_pair_errors(predicted, truth), 5)) < 40


def test_views_that_are_not_there_change_nothing():
    truth, predicted = trajectory(5), trajectory(5)
    predicted[:, :3, 3] += 0.1 * trajectory(5, seed=1)[:, :3, 3]
    padded = predicted.clone()
    padded[3:] = torch.nan
    present = torch.tensor([True, True, True, False, False])
    for both, there in (((predicted[:3], truth[:3]), None), ((padded, truth), present)):
        auc = float(pose_auc_percent(pair_errors(*both, there), 30))
        rmse = float(trajectory_rmse(*both, there))
        if there is None:
            expected = auc, rmse
    assert (auc, rmse) == pytest.approx(expected)
    assert 0 < rmse < 0.2


def test_trajectory_rmse_forgives_a_similarity_and_nothing_else():
    truth = trajectory(6)
    similar = truth.clone()
    similar[:, :3, 3] = 2.5 * truth[:, :3, 3] @ turn([0, 0, 1.0], 70).mT + torch.tensor([1.0, 2, 3]).double()
    assert float(trajectory_rmse(similar, truth)) < 1e-12
    assert float(reference_trajectory_error(similar, truth)) > 0.5
    mirrored = truth.clone()
    mirrored[:, 0, 3] *= -1
    assert float(trajectory_rmse(mirrored, truth)) > 0.1


def test_trajectory_rmse_is_a_root_mean_square_in_units_of_the_truth():
    truth = torch.eye(4).double().repeat(4, 1, 1)
    truth[:, :3, 3] = torch.tensor([[1.0, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]])
    predicted = truth.clone()
    predicted[0, 2, 3], predicted[1, 2, 3], predicted[2, 2, 3], predicted[3, 2, 3] = 0.3, 0.3, -0.3, -0.3
    predicted[:, :3, 3] *= 10
    # By symmetry the fit keeps the axes; the scale s minimises (1 - s)^2 + (0.3 s)^2.
    s = 1 / 1.09
    assert float(trajectory_rmse(predicted, truth)) == pytest.approx(((1 - s) ** 2 + (0.3 * s) ** 2) ** 0.5)


def test_trajectory_rmse_weighs_large_residuals_more_than_their_mean():
    truth, predicted = trajectory(6), trajectory(6)
    predicted[0, :3, 3] += 1
    centres, true = predicted[:, :3, 3], truth[:, :3, 3]
    residual = (fit_similarity(centres, true).apply(centres) - true).norm(dim=-1)
    rmse = float(trajectory_rmse(predicted, truth))
    assert rmse == pytest.approx(float(residual.square().mean().sqrt()))
    assert rmse > 1.01 * float(residual.mean())


def test_trajectory_of_two_views_has_no_error():
    assert trajectory_rmse(trajectory(2), trajectory(2, 1)).isnan()
    broken = trajectory(4)
    broken[1, 0, 3] = torch.inf
    assert trajectory_rmse(broken, trajectory(4)).isnan()


@pytest.mark.parametrize("scaled", [True, False])
def test_similarity_is_found_in_batches(scaled: bool):
    rng = torch.Generator().manual_seed(3)
    source = torch.randn(2, 3, 7, 3, generator=rng, dtype=torch.float64)
    rotation = trajectory(6, seed=5)[:, :3, :3].reshape(2, 3, 3, 3)
    scale = (
        torch.rand(2, 3, generator=rng, dtype=torch.float64) + 0.5 if scaled else torch.ones(2, 3).double()
    )
    target = scale[..., None, None] * source @ rotation.mT + 4
    valid = torch.rand(2, 3, 7, generator=rng) > 0.3
    target[~valid] = 99
    target[~valid & (torch.rand(2, 3, 7, generator=rng) < 0.5)] = torch.nan
    fit = fit_similarity(source, target, valid, scaled=scaled)
    torch.testing.assert_close(fit.rotation, rotation)
    torch.testing.assert_close(fit.scale, scale)
    torch.testing.assert_close(fit.apply(source)[valid], target[valid])


def test_a_mirrored_partner_gets_the_best_turn_and_scale():
    source = trajectory(8)[:, :3, 3]
    target = source * torch.tensor([-2.0, 2, 2])
    fit = fit_similarity(source, target)
    assert float(torch.linalg.det(fit.rotation)) == pytest.approx(1)

    def error(scale: float, turned: Tensor) -> float:
        moved = replace(fit, scale=fit.scale * scale, rotation=turned @ fit.rotation)
        centred = moved.apply(source) - moved.apply(source).mean(0)
        return float((centred - target + target.mean(0)).square().sum())

    best = error(1.0, torch.eye(3).double())
    assert best < min(error(scale, torch.eye(3).double()) for scale in (0.99, 1.01))
    assert best < min(error(1.0, turn(axis, 1.0)) for axis in ([1, 0, 0.0], [0, 1, 0.0], [0, 0, 1.0]))


def test_similarity_of_points_at_one_place():
    source, target = torch.ones(4, 3).double(), torch.arange(12).double().reshape(4, 3)
    fit = fit_similarity(source, target)
    assert float(fit.scale) == 1
    torch.testing.assert_close(fit.apply(source), target.mean(0).expand(4, 3))


def test_autocast_and_halves_cost_no_digits():
    truth, predicted = trajectory(5).float(), trajectory(5).float()
    predicted[:, :3, 3] += 0.01 * trajectory(5, seed=1)[:, :3, 3].float()
    exact = pair_errors(predicted, truth).translation_deg, trajectory_rmse(predicted, truth)
    with torch.autocast("cpu", torch.bfloat16):
        rough = pair_errors(predicted, truth).translation_deg, trajectory_rmse(predicted, truth)
        assert trajectory_rmse(predicted.bfloat16(), truth).dtype == torch.float32
    assert torch.equal(exact[0], rough[0])
    assert torch.equal(exact[1], rough[1])
