"""From the words of `strata train vggt` to the model that is trained."""

from __future__ import annotations

from typing import Any

import torch

from ..configs.schema import TrainVGGTConfig
from ..errors import ConfigError
from ..extract.encoders.image_size import check_whole_patches
from ..extract.encoders.vggt.model import VGGT
from ..store.selection import Selection
from .model_sizes import model_sizes

FIELD_OF_VIEW_RAD = 1.0


def build_model(config: TrainVGGTConfig, selection: Selection | None) -> VGGT:
    """The model; heads that are not scored are left out of it.

    Args:
        config: the options.
        selection: whose tokens take the place of the patch embedding; None = it looks at images.

    Raises:
        ConfigError: the sizes do not do, or cannot be read.
        EncoderError: weights or the encoder are out of reach, or do not fit each other.
    """
    encoder = _encoder(config, selection)
    heads: dict[str, Any] = {"track_head": None}
    if not config.camera:
        heads["camera_head"] = None
    heads |= {f"enable_{name}": False for name in ("depth", "point") if not getattr(config, name)}
    sizes = model_sizes(config.model)
    if sizes is None:
        model = VGGT.from_pretrained(config.model, config=heads, encoder=encoder)
    else:
        if encoder is not None:
            sizes = {name: value for name, value in sizes.items() if name not in ("encoder", "patch_size")}
        own = {} if encoder is None else {"encoder": encoder}
        model = VGGT.from_config({"seed": config.seed, **sizes, **heads, **own})
        open_cameras(model)
    model.checkpointing = config.checkpointing
    return model


@torch.no_grad()
def open_cameras(model: VGGT) -> None:
    """Let the cameras of a model with random weights start with fields of view of about a radian.

    What the camera head answers for a field of view is never negative. One that starts below 0 has no
    gradient, and would stay there.
    """
    head = model.camera_head
    if head is not None:
        head.pose_branch.fc2.bias[7:] = FIELD_OF_VIEW_RAD / head.iters


def check_pixels(size: tuple[int, int], patch: int) -> None:
    """Check that images divide into patches.

    Raises:
        EncoderError: they do not.
    """
    near = [max(patch, round(side / patch) * patch) for side in size]
    check_whole_patches("the model", size, patch, f"write pixels=[{near[0]},{near[1]}]")


def _encoder(config: TrainVGGTConfig, selection: Selection | None) -> dict[str, Any] | None:
    if selection is not None:
        stored, (layer,) = selection.stored_key, selection.layers
        if config.train_encoder:
            raise ConfigError(
                "stored tokens cannot be trained.",
                where="train_encoder=true",
                why="the encoder that made them is not run",
                fix="leave it out, or train with source=online",
            )
        if stored.key.stride:
            raise ConfigError(
                "tokens of overlapping patches cannot stand in for a patch embedding.",
                where=stored.name,
                why=f"VGGT wants a token for every patch of {stored.patch_size} pixels, these have one every "
                f"{stored.key.stride}",
                fix="extract without stride=, and select those features",
            )
        return {
            "name": stored.key.encoder,
            "weights": config.weights,
            "layer": layer,
            "embed_dim": selection.parts[0].width(layer),
            "patch_size": stored.patch_size,
            "digest": stored.key.weights,
        }
    if config.encoder is None:
        return None
    return {
        "name": config.encoder,
        "weights": config.weights,
        "layer": config.layer,
        "frozen": not config.train_encoder,
    }
