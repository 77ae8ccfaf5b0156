"""Options of measurements on stored features, and of what shows them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .field import MISSING, option
from .scenes import SetsOptions


@dataclass(kw_only=True)
class CorrespondenceConfig(SetsOptions):
    """Score multiview correspondence of stored features."""

    store: str = option(MISSING, "the store")
    encoder: str = option("all", "all, a name, or name@key; several separated by commas")
    layers: list[str] | None = option(None, "layers to score; none = all that are stored")
    protocol: list[str] = option(["visible"], "visible (seen by both views) | voxel | reference; several")
    ranking: bool = option(True, "recall, ROC-AUC, mutual precision too: a product of all pairs of tokens")
    voxel: Any = option(0.05, "edge of protocol=voxel in scene scales, or metric as 0.3m")
    reference_voxel: float = option(0.3, "edge of protocol=reference, in scene units")
    scene: str | None = option(None, "only scenes whose id or name matches this glob")
    split: str | None = option(None, "only the scenes of this split (its name, or a file)")
    sets: str | None = option(None, "sets file; none = the store's sets of these set_ options")
    out: str = option("runs/correspondence", "folder for records.jsonl, sets.json, config.json, pictures")
    pictures: int = option(2, "PCA pictures: sets per dataset")
    seed: int = option(0, "seed of the bootstrap")
    resamples: int = option(1000, "bootstrap resamples")


@dataclass(kw_only=True)
class ReconstructConfig:
    """Cameras, depth and points of scenes from one forward pass."""

    out: str = option(MISSING, "folder for <dataset>/<scene>/viewer.html and the rest; with images= itself")
    scenes: str | None = option(None, "scenes: a root, a dataset or one scene; needs no cameras")
    images: list[str] | None = option(None, "instead of scenes: a folder of images, or a list of files")
    model: str = option("facebook/VGGT-1B", "name on the hub | path | random:<seed>, small, for trying out")
    size: int | None = option(None, "width of the images in pixels, a multiple of the patch; none = model's")
    fit: str = option("crop", "crop: cut the middle of tall images | pad: borders round the longer side")
    views: int | None = option(None, "at most so many views of a scene, evenly chosen")
    points: str = option("depth", "depth: points from depth and cameras | head: from the point head")
    conf: float = option(50.0, "drop this share of the pixels, in percent, the least confident ones")
    max_points: int = option(1_000_000, "points in points.ply; the viewer shows at most 300,000")
    sets: str | None = option(None, "sets file: one reconstruction per view set instead of per scene")
    source: str = option("auto", "auto | wai | nerfstudio | colmap | folder")
    split: str | None = option(None, "keep the scenes of this split: its name, or a .json/.txt list")
    limit: int | None = option(None, "only the first N scenes")
    compute: str = option("auto", "float32 | bfloat16 | float16; auto = bfloat16 on a GPU, else float32")
    device: str = option("auto", "auto | cpu | cuda | cuda:<n>")


@dataclass(kw_only=True)
class ReportConfig:
    """Turn results of probes and curves of trainings into one page and tables."""

    out: str = option("report", "folder for report.html, .md, .tex, .csv and .json")
    allow_mixed_sets: bool = option(False, "compare runs although their view sets differ")


@dataclass(kw_only=True)
class DemoConfig:
    """The whole pipeline on synthetic rooms, in under two minutes."""

    out: str = option("demo", "folder for scenes, shards, store, runs and report")
    encoder: str = option("vit_tiny_demo", "the image encoder beside the oracles")
    scenes: int = option(3, "synthetic scenes")
