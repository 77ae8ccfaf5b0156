"""VGGT as a source of predictions: its weights, one forward pass, and its answers as values.

Shapes: V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...errors import ConfigError, EncoderError, did_you_mean
from ...extract.encoders.vggt.model import VGGT
from ...extract.encoders.vggt.pose_encoding import decode_pose
from ...extract.encoders.weights import random_seed, state_digest
from ...store.key import COMPUTES
from .frames import Frames
from .prediction import Prediction

UNIT = "the network's own: every scene has another scale"
# A camera head may answer a field of view of 0, or one no lens has; neither is a camera.
NARROWEST_DEG, WIDEST_DEG = 1.0, 175.0
# `model=random:<seed>`: every part of the released model, small enough for any machine.
SMALL = {
    "img_size": 224,
    "embed_dim": 48,
    "depth": 4,
    "num_heads": 3,
    "encoder": {"type": "dinov2", "depth": 2, "num_heads": 3},
    "camera_head": {"trunk_depth": 2, "num_heads": 4},
    "dpt": {"features": 16, "out_channels": [8, 16, 32, 32]},
    "track_head": None,
}


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A model that is ready to predict.

    Attributes:
        model: in evaluation mode, on its device.
        weights: the word that it was opened by.
        digest: sha256 of its weights.
        random: nobody trained it.
        device, compute: where and in which dtype the forward pass runs.
    """

    model: VGGT
    weights: str
    digest: str
    random: bool
    device: str
    compute: str

    @property
    def patch_size(self) -> int:
        return self.model.config.patch_size

    @property
    def image_size(self) -> int:
        """Pixels that it was made for."""
        return self.model.config.img_size

    def predict(self, frames: Frames) -> Prediction:
        """Cameras, depth and points of the views of one scene.

        Raises:
            EncoderError: the views do not fit into memory, or the answer is no number.
        """
        images = torch.from_numpy(frames.images).to(self.device).movedim(-1, 1)[None] / 255
        dtype = getattr(torch, self.compute)
        mixed = torch.autocast(self.device.partition(":")[0], dtype, enabled=dtype != torch.float32)
        try:
            with torch.inference_mode(), mixed:
                outputs = self.model(images)
        except torch.OutOfMemoryError:
            raise EncoderError(
                f"{len(frames)} views do not fit into the memory of {self.device}.",
                where=f"{frames.images.shape[2]} x {frames.images.shape[1]} pixels a view",
                fix="take fewer views (views=), or smaller ones (size=)",
            ) from None
        return prediction_of({name: outputs[name][0] for name in HEADS if name in outputs}, frames)


HEADS = ("pose_enc", "depth", "depth_conf", "world_points", "world_points_conf")


def open_network(weights: str, *, device: str, compute: str) -> Network:
    """The model behind `model=`.

    Args:
        weights: a name on the hub, a path, or `random:<seed>`.
        device: `cpu`, `cuda:0`.
        compute: a dtype, or `auto` = bfloat16 on a GPU, else float32.

    Raises:
        EncoderError: it cannot be had, or lacks the head of cameras or of depth.
        ConfigError: the dtype is unknown.
    """
    if compute not in ("auto", *COMPUTES):
        fix = did_you_mean(compute, ("auto", *COMPUTES))
        raise ConfigError(f"compute={compute} is not known.", where="compute", fix=fix)
    if compute == "auto":
        compute = "bfloat16" if device.startswith("cuda") else "float32"
    seed = random_seed(weights)
    model = VGGT.from_pretrained(weights) if seed is None else VGGT.from_config({**SMALL, "seed": seed})
    if model.config.camera_head is None or not model.config.enable_depth:
        raise EncoderError(
            "the model has no head for cameras or none for depth.",
            where=f"model={weights}",
            why="a reconstruction is made of both",
            fix="give a model with both heads",
        )
    digest = state_digest(model.state_dict())
    model = model.to(device).eval()
    return Network(
        model=model, weights=weights, digest=digest, random=seed is not None, device=device, compute=compute
    )


def prediction_of(outputs: Mapping[str, Tensor], frames: Frames) -> Prediction:
    """The prediction in a model's answers for one scene.

    Args:
        outputs: `pose_enc` [V, 9], `depth` [V, H, W, 1], `depth_conf` [V, H, W]; where there is a point
            head, `world_points` [V, H, W, 3] and `world_points_conf` [V, H, W].
        frames: the views, in the same order.

    Raises:
        EncoderError: a camera is no number.
    """
    pose = outputs["pose_enc"].detach().double().cpu()
    sound = pose[:, 7:].clamp(np.deg2rad(NARROWEST_DEG), np.deg2rad(WIDEST_DEG))
    odd = int((sound != pose[:, 7:]).any(-1).sum())
    height, width = frames.images.shape[1:3]
    cam_from_world, K_px = decode_pose(torch.cat((pose[:, :7], sound), dim=-1), (height, width))
    if not bool(cam_from_world.isfinite().all() and K_px.isfinite().all()):
        raise EncoderError(
            "the model's cameras are no numbers.",
            where="pose_enc",
            why="an overflow, or weights that training has ruined",
            fix="compute=float32; if that does not help, other weights",
        )
    note = f"{odd} fields of view outside {NARROWEST_DEG:.0f} to {WIDEST_DEG:.0f} degrees were cut to that"
    return Prediction(
        frames=frames,
        depth=_array(outputs["depth"][..., 0]),
        confidence=_array(outputs["depth_conf"]),
        K_px=K_px.numpy(),
        cam_from_world=_square(cam_from_world.numpy()),
        points_world=_array(outputs.get("world_points")),
        points_confidence=_array(outputs.get("world_points_conf")),
        notes=(note,) if odd else (),
    )


def _array(tensor: Tensor | None) -> Any:
    return None if tensor is None else tensor.detach().float().cpu().numpy()


def _square(rigid: np.ndarray) -> np.ndarray:
    """[V, 4, 4] of [V, 3, 4]."""
    last = np.broadcast_to([0.0, 0.0, 0.0, 1.0], (len(rigid), 1, 4))
    return np.concatenate((rigid, last), axis=1)
