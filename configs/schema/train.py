"""Options of training: what every task has, and those of VGGT."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .field import MISSING, option
from .scenes import MIXES, SetsOptions


@dataclass(kw_only=True)
class FitOptions:
    """How a model is fitted, whatever to."""

    out: str = option(
        MISSING, "folder for checkpoints, log and curves; the same command resumes", changeable=True
    )
    epochs: int = option(20, "passes over the data; the learning rate falls until the last", changeable=True)
    steps_per_epoch: int | None = option(None, "optimiser steps, one per batch; none = all batches")
    lr: float = option(5e-5, "peak learning rate")
    lr_min: float = option(1e-8, "learning rate at the first step and at the end")
    warmup: float = option(0.05, "share of all steps in which the rate rises linearly; then a cosine")
    lr_scale: list[str] = option([], "factors of the rate by parameter glob: encoder.*:0.1,head.*:2")
    weight_decay: float = option(0.05, "of AdamW")
    no_decay: list[str] = option([], "parameter globs without weight decay: *.bias,*norm*")
    betas: list[float] = option([0.9, 0.999], "of AdamW")
    clip: list[str] = option(
        ["*:1.0"], "largest gradient norm by parameter glob; each is clipped by itself, the first fit counts"
    )
    freeze: list[str] = option([], "module globs that are not trained and stay in evaluation mode")
    precision: str = option("auto", "auto | float32 | bfloat16 | float16; auto = bfloat16 on a GPU")
    tf32: bool = option(True, "let a GPU multiply float32 in TF32")
    accumulate: int = option(1, "pieces that a batch is computed in, to save memory", changeable=True)
    seed: int = option(0, "of batches, dropout and augmentation")
    bad_steps: int = option(10, "stop after this many steps in a row that were not finite", changeable=True)
    device: str = option("auto", "auto | cpu | cuda | cuda:<n>", changeable=True)
    validate_every: int = option(1, "epochs between validations; the last epoch has one", changeable=True)
    validate_first: bool = option(False, "measure before the first step too", changeable=True)
    best: str | None = option(None, "keep the best epoch too: max:<metric> or min:<metric> of validation")
    checkpoint_every: int | None = option(
        500, "steps between checkpoints; none = only after each epoch", changeable=True
    )
    keep: int = option(2, "newest checkpoints that are kept", changeable=True)
    pictures_every: int | None = option(None, "epochs between pictures; none = no pictures", changeable=True)
    log: list[str] = option(
        [], "beside log.jsonl: tensorboard, wandb (offline), wandb:online", changeable=True
    )
    log_every: int = option(10, "steps between two points of tensorboard and wandb", changeable=True)
    curves: bool = option(True, "draw curves.png and curves.html when the run ends", changeable=True)


@dataclass(kw_only=True)
class TrainVGGTConfig(SetsOptions, FitOptions):
    """Fine-tune VGGT, or train one with any encoder inside, from images or from stored tokens."""

    model: str = option(
        "facebook/VGGT-1B",
        "weights to start from: a repository of the hub, a folder or a file; or sizes, to start at random: "
        "a name of configs/models, or a .yaml file",
    )
    source: str = option("online", "online: images of scenes= | store: tokens of store=")
    scenes: str | None = option(None, "source=online: shards, or a root, a dataset, a scene", changeable=True)
    store: str | None = option(
        None, "source=store: the store; sizes are as stored, nothing is augmented", changeable=True
    )
    encoder: str | None = option(
        None,
        "in place of the model's patch embedding: a name of `strata encoders ls`; with source=store "
        "whose tokens, a name or name@key",
    )
    weights: str = option("hub", "of the encoder: hub | random:<seed> | path of a checkpoint")
    layer: str = option("norm", "of the encoder: block<k>, norm, ...")
    train_encoder: bool = option(False, "train the encoder of encoder= too; others are trained unless frozen")
    export_name: str | None = option(
        None,
        "what the trained encoder is called, which <out>/encoder holds; none = <encoder>-<folder of out=>",
        changeable=True,
    )
    split: str | None = option(None, "train on the scenes of this split (its name, or a file)")
    scene: str | None = option(None, "train on scenes whose id or name matches this glob")
    mix: str | None = option(
        None, f"samples of an epoch by dataset: '75k @ blendedmvs + 25k @ mpsd'; or a mix: {MIXES}"
    )
    val_split: str | None = option(None, "hold out the scenes of this split, and measure on them")
    val_scene: str | None = option(None, "hold out scenes whose id or name matches this glob")
    val_limit: int | None = option(200, "view sets that are measured on, spread over all; none = all")
    sets: str | None = option(
        None,
        "view sets, of training and held-out scenes alike; none = new walks (online), the store's sets",
        changeable=True,
    )
    pixels: Any = option([518, 518], "source=online: [height,width] that images are brought to")
    fit: str = option("crop", "source=online: crop | pad | stretch")
    augment: str = option(
        "mapanything",
        "source=online: mapanything | vggt (the farthest 2 % of an image's depth left out; with fit=crop cut "
        "around the principal point) | none",
    )
    max_images: int = option(48, "images of a batch; sets = max(1, max_images / views)")
    views: list[int] = option([2, 4], "fewest and most views of a set; one number is drawn for a batch")
    aspects: list[float] | None = option(
        None, "source=online: lowest and highest height / width, one drawn for a batch; none = as pixels="
    )
    camera: float = option(5.0, "weight of the cameras' loss; 0 = the model has no such head")
    depth: float = option(1.0, "weight of the depth's loss; 0 likewise")
    point: float = option(1.0, "weight of the points' loss; 0 likewise")
    depth_surface: str = option("slope", "none | slope | slope_conf")
    point_surface: str = option("normal", "none | slope | normal, or with _conf")
    valid_range: float | None = option(0.98, "share of the dense terms that count; none = all")
    metrics: str = option(
        "mended", "form of the measures: mended | reference (as published)", changeable=True
    )
    checkpointing: bool = option(
        True, "compute activations again in the backward pass, to save memory", changeable=True
    )
