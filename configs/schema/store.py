"""Options of copying stores, and of looking after them."""

from __future__ import annotations

from dataclasses import dataclass

from .field import MISSING, option


@dataclass(kw_only=True)
class PartOptions:
    """Which part of a store."""

    encoder: list[str] | None = option(None, "names, or name@key, separated by commas; none = all")
    layers: list[str] | None = option(None, "layers of each of them; none = all that are stored")
    scene: str | None = option(None, "only scenes whose id or name matches this glob")
    dataset: str | None = option(None, "only scenes of this dataset")
    split: str | None = option(None, "only the scenes of this split (its name, or a file)")
    views: str = option("all", "what of the views comes along: all | geometry | none")


@dataclass(kw_only=True)
class PullConfig(PartOptions):
    """Copy a part of a store into a folder."""

    out: str = option(MISSING, "the folder, which ends in .zarr")


@dataclass(kw_only=True)
class PushConfig(PartOptions):
    """Copy a part of a store to where others read it."""

    to: str = option(MISSING, "a URL such as s3://bucket/feats.zarr, or a folder of a web server")


@dataclass(kw_only=True)
class VerifyConfig:
    """Find what is not as it was written; the words are for --recompute."""

    shards: str | None = option(
        None, "folder that `strata pack` wrote; --recompute needs it, save for derived features"
    )
    encoder: str | None = option(None, "recompute the features of this encoder only; a name, or name@key")
    weights: str | None = option(
        None, "hub | random:<seed> | path of a checkpoint; none = what the features were made with"
    )
    device: str = option("auto", "auto | cpu | cuda | cuda:<n>")
