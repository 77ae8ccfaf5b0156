"""The loss of VGGT: cameras, depth and points, weighed and added.

Shapes: K stages of the camera head, B sets, V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ..errors import TrainError, first_few
from ..extract.encoders.vggt.pose_encoding import encode_pose
from ..kernels.dense_views import DenseViews
from ..kernels.geometry import invert_rigid
from ..kernels.precision import full_precision
from .camera_loss import camera_loss
from .dense_loss import dense_loss
from .loss_options import LossOptions

Prediction = Mapping[str, Tensor | Sequence[Tensor]]


@full_precision
def vggt_loss(
    predicted: Prediction, truth: DenseViews, valid: Tensor, options: LossOptions | None = None
) -> dict[str, Tensor]:
    """The loss of a batch and its parts, all scalars.

    Terms that are not finite count as 0. `nonfinite` says how many predicted numbers were not, and their
    gradient is not finite either, by which a loop notices.

    Args:
        predicted: `pose_enc_list` (K x [B, V, 9]), `depth` [B, V, H, W, 1], `depth_conf` [B, V, H, W],
            `world_points` [B, V, H, W, 3], `world_points_conf` [B, V, H, W], as the model answers them; those
            that `options` score have to be there.
        truth: normalised (see `normalise.py`), on the device of the prediction.
        valid: [B, V, H, W] bool, pixels with true geometry.
        options: none = cameras, depth and points as 5 to 1 to 1.

    Returns:
        `loss`; `camera`, `camera_translation`, `camera_rotation`, `camera_fov`; `depth` and `point`, each the
        sum of its `_conf`, `_reg` and `_surface`; `nonfinite`. All but `loss` are unweighted.

    Raises:
        TrainError: a prediction is missing, or is of another shape than the truth.
    """
    options, truth = options or LossOptions(), truth.widened()
    checked = _checked(predicted, truth, options)
    parts = {"nonfinite": _nonfinite(checked)}
    total = torch.zeros((), device=valid.device)
    if options.camera is not None:
        size = (valid.shape[-2], valid.shape[-1])
        poses = encode_pose(invert_rigid(truth.world_from_cam), truth.K_px, size)
        parts |= camera_loss(checked["pose_enc_list"], poses, valid, options.camera)
        total = total + options.camera.weight * parts["camera"]
    maps = {"depth": ("depth", truth.depth[..., None]), "point": ("world_points", truth.points_world)}
    for name, (key, true) in maps.items():
        dense = getattr(options, name)
        if dense is not None:
            parts |= _with_sum(name, dense_loss(checked[key], checked[f"{key}_conf"], true, valid, dense))
            total = total + dense.weight * parts[name]
    return {"loss": total, **parts}


def _with_sum(name: str, terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    total = torch.stack(tuple(terms.values())).sum()
    return {name: total, **{f"{name}_{term}": value for term, value in terms.items()}}


def _checked(predicted: Prediction, truth: DenseViews, options: LossOptions) -> dict[str, Tensor]:
    """The predictions that are scored, as tensors of the right shape."""
    sets, views, height, width = truth.depth.shape
    pixels = (sets, views, height, width)
    wanted: dict[str, tuple[int, ...]] = {}
    if options.camera is not None:
        wanted["pose_enc_list"] = (sets, views, 9)
    if options.depth is not None:
        wanted |= {"depth": (*pixels, 1), "depth_conf": pixels}
    if options.point is not None:
        wanted |= {"world_points": (*pixels, 3), "world_points_conf": pixels}
    missing = [key for key in wanted if predicted.get(key) is None]
    if missing:
        raise TrainError(
            f"the model does not predict {first_few(missing)}.",
            where="loss",
            why=f"it predicts {first_few(predicted, most=12)}",
            fix="give the model the head, or set that part of the loss to none",
        )
    checked = {key: _stacked(predicted[key]) for key in wanted}
    for key, shape in wanted.items():
        found = checked[key].shape[1:] if key == "pose_enc_list" else checked[key].shape
        if tuple(found) != shape:
            raise TrainError(
                f"{key} has the shape {list(found)}.",
                where="loss",
                why=f"the truth has the shape {list(shape)}",
                fix="predict and compare the same sets, views and pixels",
            )
    return checked


def _stacked(value: Tensor | Sequence[Tensor]) -> Tensor:
    return value if isinstance(value, Tensor) else torch.stack(tuple(value))


def _nonfinite(predictions: Mapping[str, Tensor]) -> Tensor:
    """How many numbers are not finite, as a float: it is logged and averaged like any loss."""
    return torch.stack([(~value.isfinite()).sum() for value in predictions.values()]).sum().float()
