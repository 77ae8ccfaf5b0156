"""Loss of predicted maps of depth or of points, with the confidence the model gives them.

With e = |prediction - truth| of a valid pixel and its confidence c:
conf = mean of gamma e c - alpha log c, reg = mean of e, both without their largest terms, and the slopes or
normals of `surface_loss.py`. The three are added.

Shapes: B sets, V views, H W pixels, C coordinates (1 of a depth, 3 of a point).
"""

from __future__ import annotations

from torch import Tensor

from ..kernels.precision import full_precision
from .loss_options import DenseLossOptions
from .robust import below_quantile, bounded, nothing
from .surface_loss import normal_loss, slope_loss

LEAST_PIXELS = 100


@full_precision
def dense_loss(
    values: Tensor, conf: Tensor, truth: Tensor, valid: Tensor, options: DenseLossOptions
) -> dict[str, Tensor]:
    """Scalars `conf`, `reg` and `surface`, unweighted.

    Fewer than 100 valid pixels in the batch give 0, with gradients of 0.

    Args:
        values: [B, V, H, W, C], predicted.
        conf: [B, V, H, W], positive.
        truth: [B, V, H, W, C]; beyond +-100 it counts as +-100, and what is not finite as 0.
        valid: [B, V, H, W] bool, pixels with true geometry.
    """
    truth = bounded(truth)
    # One index for all maps: each mask would wait for the device anew, and list four numbers a pixel.
    chosen = valid.flatten().nonzero()[:, 0]  # [n]
    if len(chosen) < LEAST_PIXELS:
        zero = nothing(values, conf)
        return {"conf": zero, "reg": zero, "surface": zero}
    error = bounded((_taken(values, chosen) - _taken(truth, chosen)).norm(dim=-1))  # [n]
    c = _taken(conf[..., None], chosen)[:, 0]
    confident = bounded(options.gamma * error * c - options.alpha * c.log())
    return {
        "conf": below_quantile(confident, options.valid_range).mean(),
        "reg": below_quantile(error, options.valid_range).mean(),
        "surface": _surface(values, conf, truth, valid, options),
    }


def _surface(values: Tensor, conf: Tensor, truth: Tensor, valid: Tensor, options: DenseLossOptions) -> Tensor:
    if options.surface == "none":
        return nothing(values)
    loss = normal_loss if options.surface.startswith("normal") else slope_loss
    return loss(
        values.flatten(0, 1),
        truth.flatten(0, 1),
        valid.flatten(0, 1),
        conf.flatten(0, 1) if options.surface.endswith("_conf") else None,
        gamma=options.gamma,
        alpha=options.alpha,
    )


def _taken(values: Tensor, chosen: Tensor) -> Tensor:
    """[n, C] of [B, V, H, W, C]."""
    return values.flatten(0, -2).index_select(0, chosen)
