"""The options of every command: name, type, default and what it does, in one place.

`load.py` merges a preset and `name=value` words into these; `--help` prints them. A field without
default (MISSING) must be given.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

MISSING = "???"


def _option(default: Any, doc: str) -> Any:
    if isinstance(default, list | dict):
        return field(default_factory=default.copy, metadata={"doc": doc})
    return field(default=default, metadata={"doc": doc})


@dataclass(kw_only=True)
class ScenesConfig:
    """Which scenes to read."""

    scenes: str = _option(
        MISSING,
        "a root (one folder per dataset, metadata/ beside them), one dataset, one scene, "
        "or a folder of images",
    )
    source: str = _option("auto", "auto | wai | nerfstudio | colmap | folder")
    split: str | None = _option(None, "keep the scenes of this split: its name, or a .json/.txt list")


@dataclass(kw_only=True)
class CheckConfig(ScenesConfig):
    """Report every fault of the scenes at once."""

    out: str | None = _option(None, "folder (or .html file) for a page with pictures; none = no page")
    views: int = _option(6, "views per picture")
    fix: str | None = _option(None, "folder for corrected copies as WAI; what is read stays as it is")
    covisibility: str = _option("keep", "with fix: keep (what matches the depth) | make (compute it)")


@dataclass(kw_only=True)
class ConvertConfig(ScenesConfig):
    """Write scenes of any source in the WAI layout."""

    out: str = _option(MISSING, "root to write <dataset>/<scene> and metadata/ into")


@dataclass(kw_only=True)
class SynthConfig:
    """Write analytic rooms with exact geometry as WAI scenes."""

    out: str = _option(MISSING, "folder to write the dataset `synthetic` into")
    scenes: int = _option(2, "number of scenes")
    views: int = _option(8, "views per scene")
    width: int = _option(192, "image width in pixels; one scene mixes sizes and orientations")
    height: int = _option(144, "image height in pixels")
    seed: int = _option(0, "seed of textures, furniture and camera paths")


@dataclass(kw_only=True)
class SetsOptions:
    """How view sets are sampled."""

    set_views: int = _option(4, "views per set")
    set_count: int = _option(20, "sets per scene; equal ones are dropped")
    set_threshold: float = _option(0.025, "covisibility above which two views are neighbours")
    set_seed: int = _option(777, "seed of the walks")
    sampler: str = _option("strata", "strata | mapanything (its exact random numbers)")

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

    out: str = _option("sets.json", "file to write")


@dataclass(kw_only=True)
class PackConfig(ScenesConfig):
    """Pack scenes into WebDataset shards."""

    out: str = _option(MISSING, "folder for the shards and index.json")
    shard_mb: int = _option(512, "a shard is closed after this many MB")
    skip_broken: bool = _option(False, "pack the other scenes when some are broken (exit code 1)")


@dataclass(kw_only=True)
class ExtractConfig(SetsOptions):
    """Extract features of several layers into the store."""

    shards: str = _option(MISSING, "folder that `strata pack` wrote")
    store: str = _option(MISSING, "the store, a folder that ends in .zarr")
    encoder: str = _option(MISSING, "a name of `strata encoders ls`, timm:<model name> or hf:<repository>")
    weights: str = _option("hub", "hub | random:<seed> | path of a checkpoint")
    layers: list[str] = _option(
        ["1/4", "1/2", "3/4", "last"], "block<k>, k/m of the depth, norm (= last), patch_embed"
    )
    fit: str = _option("crop", "crop | pad | stretch")
    grid: Any = _option("aspect:37", "tokens: aspect:N or [rows,cols]")
    pixels: Any = _option(None, "[height,width] instead of a grid")
    orient: str = _option("view", "view: portrait views get the turned grid | scene: one grid a scene")
    filter: str = _option("auto", "auto (Lanczos down, bicubic up) | lanczos | bicubic | bilinear | nearest")
    compute: str = _option("auto", "float32 | bfloat16 | float16; auto = bfloat16 on a GPU, else float32")
    storage: str = _option("auto", "auto | f16 | bf16 | f32; auto = bf16 for layers beyond 16,000")
    views: str = _option("all", "what is kept of the views: all | geometry | none")
    split: str | None = _option(None, "only the scenes of this split (its name, or a file)")
    scene: str | None = _option(None, "only scenes whose id matches this glob")
    limit: int | None = _option(None, "only the first N scenes")
    batch: int = _option(8, "views per forward pass")
    unit_views: int | None = _option(None, "views per shard; none = by size, at most 256")
    device: str = _option("auto", "auto | cpu | cuda | cuda:<n>")
    backend: str = _option("local", "local: this process | ray: one worker per GPU, or workers= on CPUs")
    address: str | None = _option(
        None,
        "backend=ray: auto | host:port | ray://host:port; none = RAY_ADDRESS, else a Ray of its own",
    )
    workers: int | None = _option(None, "backend=ray: processes; none = one per GPU, or per two CPUs")
    retry: str = _option("none", "none | failed: compute the views that were missing again")
    force: bool = _option(False, "start even if the disk looks too small")


@dataclass(kw_only=True)
class CorrespondenceConfig(SetsOptions):
    """Score multiview correspondence of stored features."""

    store: str = _option(MISSING, "the store")
    encoder: str = _option("all", "all, a name, or name@key; several separated by commas")
    layers: list[str] | None = _option(None, "layers to score; none = all that are stored")
    protocol: list[str] = _option(["reference", "voxel"], "reference (the seed's) and voxel")
    voxel: Any = _option(0.05, "edge in scene scales, or metric as 0.3m")
    reference_voxel: float = _option(0.3, "edge of protocol=reference, in scene units")
    scene: str | None = _option(None, "only scenes whose id matches this glob")
    split: str | None = _option(None, "only the scenes of this split")
    sets: str | None = _option(None, "sets file; none = the store's sets of these set_ options")
    out: str = _option("runs/correspondence", "folder for records.jsonl, sets.json, config.json, pictures")
    pictures: int = _option(2, "PCA pictures: sets per dataset")
    seed: int = _option(0, "seed of the bootstrap")
    resamples: int = _option(1000, "bootstrap resamples")


@dataclass(kw_only=True)
class ReportConfig:
    """Turn probe results into one page and tables."""

    out: str = _option("report", "folder for report.html, .md, .csv and .json")
    allow_mixed_sets: bool = _option(False, "compare runs although their view sets differ")


@dataclass(kw_only=True)
class SubmitConfig:
    """Run a command as a job on a Ray cluster."""

    address: str | None = _option(
        None,
        "the cluster's dashboard, as http://host:8265; none = RAY_API_SERVER_ADDRESS, else this machine's",
    )


@dataclass(kw_only=True)
class DemoConfig:
    """The whole pipeline on synthetic rooms, in under two minutes."""

    out: str = _option("demo", "folder for scenes, shards, store, runs and report")
    encoder: str = _option("vit_tiny_demo", "the image encoder beside the oracles")
    scenes: int = _option(3, "synthetic scenes")
