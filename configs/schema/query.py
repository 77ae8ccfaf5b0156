"""Options of the commands that look into a store and take features out of it."""

from __future__ import annotations

from dataclasses import dataclass

from .field import MISSING, option


@dataclass(kw_only=True)
class ListConfig:
    """Which features of a store are listed."""

    encoder: str | None = option(None, "only encoders whose name, or name@key, matches this glob")
    dataset: str | None = option(None, "only views of this dataset")
    scene: str | None = option(None, "only scenes whose id or name matches this glob")
    layer: str | None = option(None, "only features with this layer")


@dataclass(kw_only=True)
class ExportConfig:
    """Stored features as files of other programs."""

    store: str = option(MISSING, "the store")
    encoder: str = option(MISSING, "a name, or name@key")
    out: str = option(MISSING, "folder for export.json and a file per scene and grid")
    format: str = option("npz", "npz | safetensors | webdataset | colmap (model, images, points, features)")
    layers: list[str] | None = option(None, "none = all that every scene has")
    fields: list[str] = option(
        ["tokens"], "tokens, prefix, image, depth_m, K_px, cam_from_world, token_point_world, ...; not colmap"
    )
    scene: str | None = option(None, "only scenes whose id or name matches this glob")
    dataset: str | None = option(None, "only this dataset")
    split: str | None = option(None, "only the scenes of this split (its name, or a file)")
    sets: str | None = option(None, "only the views of the sets in this file")
    storage: str | None = option(None, "f32 | f16 | bf16 | u8; none = the most exact one")
    overwrite: bool = option(False, "remove an export that is in out= first")
