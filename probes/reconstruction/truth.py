"""How near a reconstruction comes to the cameras and depth that a scene has of its own.

A network's world and unit are its own, so that the camera centres are brought onto the true ones by a
similarity first; its scale makes depth comparable. Poses are scored as pairs, which no alignment touches.

Shapes: V views, H W pixels of the network's images.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...extract.preprocess import place_plane
from ...extract.scenes.decode import decode_depth
from ...extract.scenes.scene import View
from ...kernels.alignment import Similarity, fit_similarity
from ...kernels.point_metrics import abs_rel
from ...kernels.pose_metrics import pair_errors, pose_auc_percent, trajectory_rmse
from .prediction import Prediction

THRESHOLD_DEG = 30
FEWEST_VIEWS = 3
TOLD = {"pose_auc_30": "AUC@30 {:.1f}", "ate_rmse": "ATE {:.3g}", "depth_abs_rel": "depth abs rel {:.3g}"}


def score(prediction: Prediction, views: Sequence[View]) -> dict[str, Any] | None:
    """Scores against the truth; None where the views have no poses, or there are too few of them.

    Args:
        prediction: of these views, in their order.
        views: with `world_from_cam`; depth is optional.

    Returns:
        `pose_auc_30`: of the relative poses of all pairs, in percent.
        `ate_rmse`: of the camera centres after alignment, in the scene's unit.
        `depth_abs_rel`: mean over views of the mean |depth - true| / true over pixels that have both; null
            without true depth.
        `truth_from_prediction`: the similarity as a [4, 4] matrix, with its `scale`.

    Raises:
        SceneError: depth cannot be decoded.
    """
    poses = [view.world_from_cam for view in views]
    known = [pose for pose in poses if pose is not None]
    if len(known) < len(poses) or len(known) < FEWEST_VIEWS:
        return None
    predicted, truth = torch.from_numpy(prediction.world_from_cam), torch.from_numpy(np.stack(known))
    similarity = fit_similarity(predicted[:, :3, 3], truth[:, :3, 3])
    depth, true = (
        torch.from_numpy(maps).flatten(1)[..., None].double()  # [V, H W, 1]
        for maps in (prediction.shown_depth, true_depth(prediction, views))
    )
    both = ((depth > 0) & (true > 0))[..., 0]
    scores = {
        "pose_auc_30": pose_auc_percent(pair_errors(predicted, truth), THRESHOLD_DEG),
        "ate_rmse": trajectory_rmse(predicted, truth),
        "depth_abs_rel": abs_rel(similarity.scale * depth, true, both),
    }
    return {
        **{name: _number(value) for name, value in scores.items()},
        "truth_from_prediction": _matrix(similarity).tolist(),
        "scale": float(similarity.scale),
    }


def _matrix(similarity: Similarity) -> np.ndarray:
    """[4, 4] f64."""
    matrix = np.eye(4)
    matrix[:3, :3] = (similarity.scale * similarity.rotation).numpy()
    matrix[:3, 3] = similarity.translation.numpy()
    return matrix


def true_depth(prediction: Prediction, views: Sequence[View]) -> np.ndarray:
    """[V, H, W] f32 true depth at the network's pixels, 0 = none.

    Raises:
        SceneError: depth cannot be decoded.
    """
    maps = np.zeros_like(prediction.depth)
    frames = prediction.frames
    for i, (view, placement) in enumerate(zip(views, frames.placements, strict=True)):
        width, height = frames.source_sizes[i]
        depth_m = decode_depth(view, (height, width))
        if depth_m is not None:
            maps[i] = place_plane(depth_m, placement)
    return maps


def scores_text(scores: Mapping[str, Any] | None) -> list[str]:
    """`AUC@30 91.2`, `ATE 0.043`, `depth abs rel 0.052`, of those there are."""
    there = {name: text for name, text in TOLD.items() if scores and scores[name] is not None}
    return [text.format(scores[name]) for name, text in there.items() if scores]


def _number(value: Tensor) -> float | None:
    return float(value) if bool(value.isfinite()) else None
