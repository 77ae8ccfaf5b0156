"""All measures of dense multi-view prediction at once: points, depth, poses and rays of sets of views.

Prediction and truth are each brought into the frame of their own first camera and divided by their own
scale; nothing else is fitted, but for the trajectory. `form` says which twin of each measure is taken:
"reference", which published tables have, or "mended" (see point_metrics.py and pose_metrics.py).

Shapes: B sets, V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor

from ..errors import ConfigError, did_you_mean
from . import point_metrics as points
from . import pose_metrics as poses
from .dense_views import DenseViews

INLIER_THRESHOLDS: Mapping[str, float] = MappingProxyType({"103": 1.03, "105": 1.05})
AUC_THRESHOLDS_DEG = (5, 30)


@dataclass(frozen=True, kw_only=True)
class Form:
    """One twin of every measure."""

    scale: Callable[..., Tensor]
    abs_rel: Callable[..., Tensor]
    inlier_share: Callable[..., Tensor]
    pair_errors: Callable[..., poses.PairErrors]
    pose_auc_percent: Callable[..., Tensor]
    trajectory: Callable[..., Tensor]
    ray_error_deg: Callable[..., Tensor]


FORMS: Mapping[str, Form] = MappingProxyType(
    {
        "reference": Form(
            scale=points.reference_scale,
            abs_rel=points.reference_abs_rel,
            inlier_share=points.reference_inlier_share,
            pair_errors=poses.reference_pair_errors,
            pose_auc_percent=poses.reference_pose_auc_percent,
            trajectory=poses.reference_trajectory_error,
            ray_error_deg=points.reference_ray_error_deg,
        ),
        "mended": Form(
            scale=points.scale,
            abs_rel=points.abs_rel,
            inlier_share=points.inlier_share,
            pair_errors=poses.pair_errors,
            pose_auc_percent=poses.pose_auc_percent,
            trajectory=poses.trajectory_rmse,
            ray_error_deg=points.ray_error_deg,
        ),
    }
)


@torch.no_grad()
def dense_metrics(
    predicted: DenseViews,
    truth: DenseViews,
    valid: Tensor,
    *,
    form: str = "mended",
    present: Tensor | None = None,
) -> dict[str, Tensor]:
    """By name, one value per set [B]; NaN where there is nothing to measure.

    Args:
        predicted, truth: of the same shapes.
        valid: [B, V, H, W] bool, pixels with true geometry.
        form: "reference" or "mended".
        present: [B, V] bool, views that are there, the first always; none = all. A set of fewer views than
            others is filled up with views without valid pixels. The reference form knows no such sets.

    Returns:
        pointmaps_abs_rel, z_depth_abs_rel (shares); pointmaps_inlier_thres_103 and _105,
        z_depth_inlier_thres_103 and _105 (shares); pose_ate_rmse (in scales); pose_auc_5 and _30 (percent);
        ray_dirs_err_deg (over all pixels: true rays need no depth).

    Raises:
        ConfigError: there is no such form.
    """
    if form not in FORMS:
        raise ConfigError(f"form={form} is not known.", where="form", fix=did_you_mean(form, FORMS))
    measures, flat = FORMS[form], valid.flatten(2)
    with torch.autocast(valid.device.type, enabled=False):
        pair = [views.widened().in_first_camera() for views in (predicted, truth)]
        scales = [measures.scale(views.points_world.flatten(2, 3), flat) for views in pair]
        pair = [views.divided(scale) for views, scale in zip(pair, scales, strict=True)]
        return {
            **_point_metrics(pair, flat, measures),
            **_pose_metrics(pair, present, measures),
            "ray_dirs_err_deg": _ray_error_deg(pair, present, measures),
        }


def _point_metrics(pair: list[DenseViews], valid: Tensor, measures: Form) -> dict[str, Tensor]:
    """`pair` is prediction and truth, here and below."""
    maps = {
        "pointmaps": [views.points_world.flatten(2, 3) for views in pair],
        "z_depth": [views.depth.flatten(2)[..., None] for views in pair],
    }
    values = {f"{name}_abs_rel": measures.abs_rel(*both, valid) for name, both in maps.items()}
    for name, both in maps.items():
        for word, threshold in INLIER_THRESHOLDS.items():
            values[f"{name}_inlier_thres_{word}"] = measures.inlier_share(*both, valid, threshold)
    return values


def _pose_metrics(pair: list[DenseViews], present: Tensor | None, measures: Form) -> dict[str, Tensor]:
    both = [views.world_from_cam for views in pair]
    errors = measures.pair_errors(*both, present)
    values = {f"pose_auc_{k}": measures.pose_auc_percent(errors, k) for k in AUC_THRESHOLDS_DEG}
    return {"pose_ate_rmse": measures.trajectory(*both, present), **values}


def _ray_error_deg(pair: list[DenseViews], present: Tensor | None, measures: Form) -> Tensor:
    height, width = pair[1].depth.shape[-2:]
    rays = [points.ray_directions(views.K_px, (height, width)) for views in pair]
    return measures.ray_error_deg(*rays, None if present is None else present[..., None])
