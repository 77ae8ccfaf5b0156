"""Views in, stored numbers out: the batch that an encoder sees, and the cast that the store keeps.

Shapes: B sets, V views (1 where each is seen alone), R C token rows and columns, T prefix tokens,
D channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from ..errors import SceneError
from ..kernels.quantized import quantize
from .encoders.base import Encoder, FeatureMap, ViewBatch
from .prepare import PreparedView

Sets = Sequence[Sequence[PreparedView]]
"""Views that are encoded together, as many in each set; a view that is seen alone is a set of one."""


def encode(
    encoder: Encoder, sets: Sets, layers: tuple[str, ...], device: str = "cpu"
) -> dict[str, FeatureMap]:
    """All layers of these sets; every map is [B, V, ...]."""
    with torch.inference_mode():
        return encoder.forward(batch_of(encoder, sets, device), layers)


def batch_of(encoder: Encoder, sets: Sets, device: str = "cpu") -> ViewBatch:
    """The batch with the fields that the encoder needs.

    Raises:
        SceneError: a view lacks one of them.
    """
    needs, views = encoder.info.needs, [view for one in sets for view in one]
    shape = (len(sets), len(sets[0]))
    for view in views:
        if lacks := missing_field(view, needs):
            raise SceneError(f"the encoder {encoder.info.name} needs {lacks}, which the view lacks.")

    def field(name: str, of: Callable[[PreparedView], np.ndarray], dtype: torch.dtype) -> Tensor | None:
        if name not in needs:
            return None
        values = torch.from_numpy(np.stack([of(view) for view in views]))
        return values.unflatten(0, shape).to(device=device, dtype=dtype)

    images = torch.from_numpy(np.stack([view.image for view in views]))
    if device != "cpu":
        images = images.pin_memory()
    images = images.to(device, non_blocking=True).permute(0, 3, 1, 2).float().div_(255)
    scale = field("scene_scale_m", lambda view: np.array(view.scene_scale_m), torch.float32)
    return ViewBatch(
        images=images.unflatten(0, shape),
        grid=views[0].grid,
        token_point_world=field("token_point_world", _valid_points, torch.float32),
        depth_m=field("depth_m", lambda view: np.asarray(view.depth_m), torch.float32),
        K_px=field("K_px", lambda view: view.camera.K_px, torch.float64),
        cam_from_world=field("cam_from_world", lambda view: view.camera.cam_from_world, torch.float64),
        scene_scale_m=None if scale is None else scale[:, 0],
    )


def missing_field(view: PreparedView, needs: frozenset[str]) -> str:
    """The first needed field that a view does not have, or an empty string."""
    have = {
        "token_point_world": view.points is not None,
        "depth_m": view.depth_m is not None,
        "K_px": bool(np.isfinite(view.camera.K_px).all()),
        "cam_from_world": bool(np.isfinite(view.camera.cam_from_world).all()),
        "scene_scale_m": view.scene_scale_m is not None,
    }
    return next((name for name in sorted(needs) if not have[name]), "")


def stored_arrays(feature: FeatureMap, storage: str) -> tuple[dict[str, Tensor], Tensor]:
    """(what the store keeps of a layer, [BV, ...] by name, [BV] bool whether all of a view is finite).

    Runs where the values are, so that the bus carries the small form, and does not wait for the device.
    """
    arrays: dict[str, tuple[Tensor, Tensor]] = {}
    tokens = feature.tokens.flatten(0, 1)
    if storage == "u8":
        small = quantize(tokens)
        affine = {"scale": small.scale, "offset": small.offset}
        finite = all_finite(torch.cat(list(affine.values()), dim=1))
        arrays = {name: (values, finite) for name, values in {"tokens": small.values, **affine}.items()}
    else:
        arrays["tokens"] = narrowed(tokens, storage)
    if feature.prefix is not None:
        arrays["prefix"] = narrowed(feature.prefix.flatten(0, 1), "f32" if storage == "u8" else storage)
    finite = torch.stack([there for _, there in arrays.values()]).all(dim=0)
    return {name: values for name, (values, _) in arrays.items()}, finite


def narrowed(values: Tensor, storage: str) -> tuple[Tensor, Tensor]:
    """([B, ...] cast for storage, [B] bool whether all of a view's numbers are finite in it).

    The cast is always a copy: the store keeps it while the encoder may use its memory again.
    """
    dtype = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}[storage]
    cast = values.to(dtype, copy=True)
    return cast, all_finite(cast)


def all_finite(values: Tensor) -> Tensor:
    """[B] bool of [B, ...]."""
    # Infinity and NaN times 0 are NaN. On a CPU this is ten times as fast as isfinite of 16-bit numbers.
    return (values * 0).flatten(1).sum(dim=1) == 0


def on_host(cast: Tensor) -> np.ndarray:
    """The array that the store keeps; bf16 becomes u16. Waits for the device."""
    if cast.dtype == torch.bfloat16:
        return cast.contiguous().view(torch.int16).cpu().numpy().view(np.uint16)
    return cast.cpu().numpy()


def _valid_points(view: PreparedView) -> np.ndarray:
    assert view.points is not None
    return np.where(view.points.valid[..., None], view.points.world, np.nan)
