"""Options of the commands that read scenes: list, check, convert, sample sets, pack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .field import MISSING, option

MIXES = "correspondence | dense | calibration | train | validation"


@dataclass(kw_only=True)
class ScenesConfig:
    """Which scenes to read."""

    scenes: str = option(
        MISSING,
        "a root (one folder per dataset, metadata/ beside them), one dataset, one scene, "
        "or a folder of images",
    )
    source: str = option("auto", "auto | wai | nerfstudio | colmap | folder")
    split: str | None = option(None, "keep the scenes of this split: its name, or a .json/.txt list")
    mix: str | None = option(None, f"keep the scenes of this mix of datasets: {MIXES}")
    scene: str | None = option(None, "keep scenes whose id or name matches this glob")


@dataclass(kw_only=True)
class CheckConfig(ScenesConfig):
    """Report every fault of the scenes at once."""

    out: str | None = option(None, "folder (or .html file) for a page with pictures; none = no page")
    views: int = option(6, "views per picture")
    fix: str | None = option(None, "folder for corrected copies as WAI; what is read stays as it is")
    covisibility: str = option("keep", "with fix: keep (what matches the depth) | make (compute it)")


@dataclass(kw_only=True)
class ConvertConfig(ScenesConfig):
    """Write scenes of any source in the WAI layout."""

    out: str = option(MISSING, "root to write <dataset>/<scene> and metadata/ into")


@dataclass(kw_only=True)
class SynthConfig:
    """Write analytic rooms with exact geometry as WAI scenes."""

    out: str = option(MISSING, "folder to write the dataset `synthetic` into")
    scenes: int = option(2, "number of scenes")
    views: int = option(8, "views per scene")
    width: int = option(192, "image width in pixels; one scene mixes sizes and orientations")
    height: int = option(144, "image height in pixels")
    seed: int = option(0, "seed of textures, furniture and camera paths")


@dataclass(kw_only=True)
class SetsOptions:
    """How view sets are sampled."""

    set_views: int = option(4, "views per set")
    set_count: int = option(20, "sets per scene; equal ones are dropped")
    set_threshold: float = option(0.025, "covisibility above which two views are neighbours")
    set_seed: int = option(777, "seed of the walks")
    sampler: str = option("strata", "strata | mapanything (its exact random numbers)")

    def as_sampler(self) -> dict[str, Any]:
        """The options as a sets file names them."""
        return {
            "views": self.set_views,
            "count": self.set_count,
            "threshold": self.set_threshold,
            "seed": self.set_seed,
            "sampler": self.sampler,
        }


@dataclass(kw_only=True)
class SetsConfig(SetsOptions, ScenesConfig):
    """Sample view sets by a walk over covisible views."""

    out: str = option("sets.json", "file to write")


@dataclass(kw_only=True)
class PackConfig(ScenesConfig):
    """Pack scenes into WebDataset shards."""

    out: str = option(MISSING, "folder for the shards and index.json")
    shard_mb: int = option(512, "a shard is closed after this many MB")
    max_side: int | None = option(
        None, "images with a longer side are made this long in pixels; pixels are still named in the source's"
    )
    sets: str | None = option(None, "keep the scenes that this file of view sets names")
    skip_broken: bool = option(False, "pack the other scenes when some are broken (exit code 1)")
