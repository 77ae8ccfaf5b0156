"""Loss of predicted cameras, at every refinement the camera head answers.

Stage k of K weighs decay^(K - 1 - k); the weighted sum is divided by K, not by the sum of weights.

Shapes: K stages, B sets, V views; a pose is translation 3, quaternion xyzw 4, fields of view 2.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..kernels.precision import full_precision
from .loss_options import CameraLossOptions
from .robust import LIMIT, bounded


@full_precision
def camera_loss(
    poses: Tensor, truth: Tensor, valid: Tensor, options: CameraLossOptions | None = None
) -> dict[str, Tensor]:
    """Scalars `camera` and its parts `camera_translation`, `camera_rotation`, `camera_fov`, unweighted.

    A set without enough valid pixels in its first view takes no part, whatever its truth holds. Without any
    such set the loss is 0, with gradients of 0.

    Args:
        poses: [K, B, V, 9], predicted `cam_from_world`, the best stage last.
        truth: [B, V, 9].
        valid: [B, V, H, W] bool, pixels with true geometry.
        options: none = the defaults.
    """
    options = options or CameraLossOptions()
    taken = valid[:, 0].sum((-2, -1)) > options.least_pixels  # [B]
    # Chosen before anything is computed: a difference to NaN would spoil the gradient even with weight 0.
    difference = torch.where(taken[:, None, None], poses - truth, 0)
    stages = len(poses)
    decay = options.decay ** torch.arange(stages - 1, -1, -1, device=poses.device, dtype=poses.dtype)
    parts = {}
    for name, part in (("translation", slice(3)), ("rotation", slice(3, 7)), ("fov", slice(7, 9))):
        error = _error(difference[..., part], options.norm, LIMIT if name == "translation" else None)
        per_stage = error.sum((-2, -1)) / (taken.sum() * truth.shape[1]).clamp(min=1)  # [K]
        parts[name] = (decay * per_stage).sum() / stages
    total = sum(getattr(options, name) * part for name, part in parts.items())
    return {"camera": torch.as_tensor(total), **{f"camera_{name}": part for name, part in parts.items()}}


def _error(difference: Tensor, norm: str, limit: float | None) -> Tensor:
    """[K, B, V]."""
    if norm == "l2":
        return bounded(difference.norm(dim=-1), limit)
    return bounded(difference.abs(), limit).mean(-1)
