"""The rigid motion or the similarity that brings points onto their partners, by least squares.

Minimises sum_i |target_i - (s R source_i + t)|^2. With C = sum_i target_i source_i^T of the centred points
and C = U D V^T: R = U S V^T, s = tr(D S) / sum_i |source_i|^2, S = diag(1, 1, det(U V^T)).

B. Horn, "Closed-form solution of absolute orientation", JOSA A 1987 (s = 1); S. Umeyama, "Least-squares
estimation of transformation parameters between two point patterns", PAMI 1991.

Shapes: ... any batch dimensions, N points.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .precision import full_precision


@dataclass(frozen=True, kw_only=True, eq=False)
class Similarity:
    """target = scale * rotation @ source + translation.

    Attributes:
        scale: [...].
        rotation: [..., 3, 3], of determinant 1.
        translation: [..., 3].
    """

    scale: Tensor
    rotation: Tensor
    translation: Tensor

    @full_precision
    def apply(self, points: Tensor) -> Tensor:
        """Points [..., N, 3] of the source in the frame of the target."""
        turned = points @ self.rotation.mT
        return self.scale[..., None, None] * turned + self.translation[..., None, :]


@full_precision
def fit_similarity(
    source: Tensor, target: Tensor, valid: Tensor | None = None, *, scaled: bool = True
) -> Similarity:
    """The similarity (Umeyama), or the rigid motion (Horn) of scale 1, from source to target points.

    Points on one line leave the turn about it open, and any one is returned; the residuals do not depend
    on it. Where all source points are one, or none is valid, the scale is 1.

    Args:
        source, target: [..., N, 3].
        valid: [..., N] bool, pairs that count; none = all. Others, and pairs that are not finite, do not.
        scaled: fit a scale too.
    """
    finite = source.isfinite().all(-1) & target.isfinite().all(-1)
    weight = finite if valid is None else finite & valid
    source_c, source_mean = _centred(source, weight)
    target_c, target_mean = _centred(target, weight)
    U, D, Vt = torch.linalg.svd(target_c.mT @ source_c)
    flip = torch.linalg.det(U @ Vt).sign()  # [...]
    S = torch.stack((torch.ones_like(flip), torch.ones_like(flip), flip), dim=-1)
    rotation = (U * S[..., None, :]) @ Vt
    spread = source_c.square().sum((-2, -1))
    scale = torch.ones_like(spread)
    if scaled:
        scale = torch.where(spread > 0, (D * S).sum(-1) / spread.where(spread > 0, 1), scale)
    moved_mean = scale[..., None] * (rotation @ source_mean[..., None])[..., 0]
    return Similarity(scale=scale, rotation=rotation, translation=target_mean - moved_mean)


def _centred(points: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Points relative to the mean of those that count, 0 for others, and that mean [..., 3]."""
    kept = torch.where(weight[..., None], points, 0)
    mean = kept.sum(-2) / weight.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(weight[..., None], kept - mean[..., None, :], 0), mean
