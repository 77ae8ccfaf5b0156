"""How far predicted camera poses are from the true ones: angles of pairs, their AUC, trajectory error.

Each measure stands here twice. `reference_*` is the measure as published results have it, faults included
(3DFeatProbe and VGGT's evaluation); the other one is what it is meant to be:

    measure             reference_*                              mended
    angles              acos, which loses digits near 0          atan2
    translation angle   folded to [0, 90]: backward is right     [0, 180]
    AUC                 steps of one degree, errors cut down     the integral itself
    trajectory error    mean after a rigid fit of truth to       root mean square after a similarity from
                        prediction, in units of the prediction   prediction to truth, in units of the truth

Poses are `world_from_cam`. Both AUCs are in percent.

Shapes: ... any batch dimensions, V views, P = V (V - 1) / 2 pairs i < j in the order 01, 02, .., 12, ..
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .alignment import fit_similarity
from .geometry import angle_deg, invert_rigid
from .masked import masked_mean
from .precision import full_precision

FAILED_DEG = 180.0


@dataclass(frozen=True, kw_only=True, eq=False)
class PairErrors:
    """Errors of the relative poses of all pairs of views.

    Attributes:
        rotation_deg, translation_deg: [..., P]; the translation's is that of its direction.
        valid: [..., P] bool, both views are there.
    """

    rotation_deg: Tensor
    translation_deg: Tensor
    valid: Tensor

    @property
    def worse_deg(self) -> Tensor:
        """[..., P], the larger of the two."""
        return torch.maximum(self.rotation_deg, self.translation_deg)


def relative_poses(world_from_cam: Tensor) -> Tensor:
    """`cam_i_from_cam_j` [..., P, 4, 4] of poses [..., V, 4, 4]."""
    i, j = _pairs(world_from_cam)
    return invert_rigid(world_from_cam[..., i, :, :]) @ world_from_cam[..., j, :, :]


def rotation_angle_deg(a: Tensor, b: Tensor) -> Tensor:
    """Angle [...] in degrees of the turn between rotations [..., 3, 3].

    2 atan2(|A - B|_F / sqrt 8, sqrt(1 + tr A^T B) / 2), exact for small and for half turns.
    """
    sine = (a - b).square().sum((-2, -1)).sqrt() / 8**0.5
    cosine = (1 + (a * b).sum((-2, -1))).clamp(min=0).sqrt() / 2
    return torch.rad2deg(2 * torch.atan2(sine, cosine))


@full_precision
def pair_errors(world_from_cam: Tensor, truth: Tensor, present: Tensor | None = None) -> PairErrors:
    """Errors of predicted poses, all pairs.

    Where two true cameras stand at one place, there is no direction, and the rotation alone counts. Where a
    prediction has no direction although there is one, or is not finite, the error is 180 degrees.

    Args:
        world_from_cam: [..., V, 4, 4], predicted.
        truth: [..., V, 4, 4].
        present: [..., V] bool, views that are there; none = all.
    """
    predicted, true = relative_poses(world_from_cam), relative_poses(truth)
    rotation = rotation_angle_deg(predicted[..., :3, :3], true[..., :3, :3])
    translation = angle_deg(predicted[..., :3, 3], true[..., :3, 3])
    translation = torch.where(_still(predicted, world_from_cam), FAILED_DEG, translation)
    translation = torch.where(_still(true, truth), 0.0, translation)
    finite = predicted.isfinite().all(-1).all(-1)
    return PairErrors(
        rotation_deg=torch.where(finite, rotation, FAILED_DEG),
        translation_deg=torch.where(finite, translation, FAILED_DEG),
        valid=_both(truth, present),
    )


@full_precision
def reference_pair_errors(world_from_cam: Tensor, truth: Tensor, present: Tensor | None = None) -> PairErrors:
    """Errors as the reference has them; arguments as `pair_errors`.

    Rotation acos(1 - 2 max(1 - (q . q')^2, 1e-15)), of unit quaternions; translation
    acos(sqrt(1 - max(1 - (t . t')^2, 1e-15))) of unit directions, 1e6 where it is not a number.
    """
    predicted, true = relative_poses(world_from_cam), relative_poses(truth)
    # (q . q')^2 = (1 + tr R^T R') / 4: the quaternions themselves are not needed.
    overlap = (1 + (predicted[..., :3, :3] * true[..., :3, :3]).sum((-2, -1))) / 4
    rotation = torch.acos(1 - 2 * (1 - overlap).clamp(min=1e-15))
    directions = [poses[..., :3, 3] for poses in (predicted, true)]
    a, b = (t / (t.norm(dim=-1, keepdim=True) + 1e-15) for t in directions)
    cosine = (1 - (1 - (a * b).sum(-1).square()).clamp(min=1e-15)).sqrt()
    translation = torch.acos(cosine)
    return PairErrors(
        rotation_deg=torch.rad2deg(rotation),
        translation_deg=torch.rad2deg(translation).nan_to_num(1e6, 1e6, 1e6),
        valid=_both(truth, present),
    )


def pose_auc_percent(errors: PairErrors, threshold_deg: float) -> Tensor:
    """Area [...] under the recall of pairs over 0 to `threshold_deg`, in percent; NaN without a pair.

    100 / K * integral over [0, K] of the share of pairs with `worse_deg` < x = 100 * mean max(0, 1 - e / K).
    """
    score = (1 - errors.worse_deg / threshold_deg).clamp(min=0)
    return 100 * masked_mean(score, errors.valid)


def reference_pose_auc_percent(errors: PairErrors, threshold_deg: int) -> Tensor:
    """As `pose_auc_percent`, of the histogram with bins of one degree: 100 * mean cumsum(hist / pairs).

    A pair of error e is in bin floor(e), and so in the sums of K - floor(e) of the K bins; the last bin
    holds its right edge.
    """
    worse = errors.worse_deg
    bins = torch.where(worse == threshold_deg, threshold_deg - 1.0, worse.floor())
    score = ((threshold_deg - bins) / threshold_deg).clamp(min=0).nan_to_num(0)
    return 100 * masked_mean(score, errors.valid)


@full_precision
def trajectory_rmse(world_from_cam: Tensor, truth: Tensor, present: Tensor | None = None) -> Tensor:
    """Root mean square distance [...] of camera centres after the similarity from prediction to truth.

    In units of the truth; arguments as `pair_errors`. NaN with fewer than three views, which a similarity
    always fits, and where a prediction is not finite.
    """
    centres, true = world_from_cam[..., :3, 3], truth[..., :3, 3]
    there = torch.ones_like(true[..., 0], dtype=torch.bool) if present is None else present
    residual = fit_similarity(centres, true, there).apply(centres) - true
    rmse = masked_mean(residual.square().sum(-1), there).sqrt()
    return torch.where((there.sum(-1) > 2) & rmse.isfinite(), rmse, torch.nan)


@full_precision
def reference_trajectory_error(
    world_from_cam: Tensor, truth: Tensor, present: Tensor | None = None
) -> Tensor:
    """Mean (the reference calls it RMSE) distance [...] of centres after a rigid fit of truth to prediction.

    In units of the prediction; arguments as `pair_errors`.
    """
    centres, true = world_from_cam[..., :3, 3], truth[..., :3, 3]
    there = torch.ones_like(true[..., 0], dtype=torch.bool) if present is None else present
    residual = fit_similarity(true, centres, there, scaled=False).apply(true) - centres
    return masked_mean(residual.norm(dim=-1), there)


def _pairs(poses: Tensor) -> tuple[Tensor, Tensor]:
    i, j = torch.triu_indices(poses.shape[-3], poses.shape[-3], 1, device=poses.device)
    return i, j


def _both(poses: Tensor, present: Tensor | None) -> Tensor:
    i, j = _pairs(poses)
    if present is None:
        return torch.ones(*poses.shape[:-3], len(i), dtype=torch.bool, device=poses.device)
    return present[..., i] & present[..., j]


def _still(relative: Tensor, poses: Tensor) -> Tensor:
    """Whether a pair's baseline [..., P] is no more than rounding leaves of the cameras' coordinates."""
    reach = poses[..., :3, 3].norm(dim=-1).amax(-1, keepdim=True)
    return relative[..., :3, 3].norm(dim=-1) <= 16 * torch.finfo(poses.dtype).eps * reach
