"""Options of extraction, and of jobs on a cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .field import MISSING, option
from .scenes import MIXES, SetsOptions


@dataclass(kw_only=True)
class ExtractConfig(SetsOptions):
    """Extract features of several layers into the store."""

    shards: str = option(MISSING, "folder that `strata pack` wrote")
    store: str = option(MISSING, "the store, a folder that ends in .zarr")
    encoder: str = option(
        MISSING,
        "a name of `strata encoders ls`, timm:<model name>, hf:<repository>, or an exported encoder's folder",
    )
    weights: str = option("hub", "hub | random:<seed> | path of a checkpoint")
    layers: list[str] = option(
        ["1/4", "1/2", "3/4", "last"],
        "block<k>, k/m of the depth, norm (= last), patch_embed, block<k>.attn|mlp|keys|norm; "
        "of vggt frame<k> and global<k>",
    )
    fit: str = option("crop", "crop | pad | stretch")
    grid: Any = option("aspect:37", "tokens: aspect:N or [rows,cols]")
    pixels: Any = option(None, "[height,width] instead of a grid")
    stride: int | None = option(
        None, "pixels between tokens, for patches that overlap: a divisor of the patch size; none = a patch"
    )
    orient: str = option("view", "view: portrait views get the turned grid | scene: one grid a scene")
    filter: str = option("auto", "auto (Lanczos down, bicubic up) | lanczos | bicubic | bilinear | nearest")
    compute: str = option("auto", "float32 | bfloat16 | float16; auto = bfloat16 on a GPU, else float32")
    storage: str = option("auto", "auto | f16 | bf16 | f32 | u8; auto = f16, bf16 for layers beyond 16,000")
    views: str = option("all", "what is kept of the views: all | geometry | none")
    split: str | None = option(None, "only the scenes of this split (its name, or a file)")
    mix: str | None = option(None, f"only the scenes of this mix of datasets: {MIXES}")
    sets: str | None = option(
        None,
        "only the scenes of this file of view sets, which the store keeps (and vggt sees); none = sampled",
    )
    scene: str | None = option(None, "only scenes whose id or name matches this glob")
    limit: int | None = option(None, "only the first N scenes")
    batch: int = option(8, "views per forward pass; of encoders of whole sets at least one set")
    unit_views: int | None = option(None, "views per shard; none = by size, at most 2,048")
    device: str = option("auto", "auto | cpu | cuda | cuda:<n>")
    backend: str = option("local", "local: this process | ray: one worker per GPU, or workers= on CPUs")
    address: str | None = option(
        None,
        "backend=ray: auto | host:port | ray://host:port; none = RAY_ADDRESS, else a Ray of its own",
    )
    workers: int | None = option(None, "backend=ray: processes; none = one per GPU, or per two CPUs")
    retry: str = option("none", "none | failed: compute the views that were missing again")
    force: bool = option(False, "start even if the disk looks too small")


@dataclass(kw_only=True)
class SubmitConfig:
    """Run a command as a job on a Ray cluster."""

    address: str | None = option(
        None,
        "the cluster's dashboard, as http://host:8265; none = RAY_API_SERVER_ADDRESS, else this machine's",
    )
    gpus: int = option(0, "GPUs that the job waits for, all on one node; 0 = it starts on the head node")
    processes: int = option(1, "processes of `train` on that node, started by torchrun, one per GPU")
