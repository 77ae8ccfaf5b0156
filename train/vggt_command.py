"""`strata train vggt`: data, model, the loop, and what it leaves."""

from __future__ import annotations

import os

from rich.console import Console

from ..configs.load import command_line
from ..configs.schema import TrainVGGTConfig
from ..errors import ConfigError, did_you_mean
from ..extract.encoders.vggt.model import VGGT
from ..kernels.dense_metrics import FORMS
from ..store.key import FITS, Size
from . import augment
from .augment import AugmentOptions
from .camera_loss import CameraLossOptions
from .data import TrainingData, describe, open_data
from .dense_loss import DenseLossOptions
from .export import check_export_name, export
from .fit import fit
from .held_out import HeldOut
from .held_out_table import show_datasets
from .losses import LossOptions
from .set_batches import SetBatches
from .vggt import VGGTTask
from .vggt_model import build_model, check_pixels
from .view_counts import BatchOptions
from .views import Look

AUGMENTS: dict[str, AugmentOptions | None] = {
    "mapanything": augment.MAPANYTHING,
    "vggt": augment.VGGT,
    "none": None,
}


def run(config: TrainVGGTConfig, console: Console) -> int:
    """Train, or go on with it; returns the exit code.

    What it leaves is said in `export.py`.

    Raises:
        StrataError: an option, the data, or the model does not do.
    """
    check_export_name(config)
    quiet = Console(quiet=True) if int(os.environ.get("RANK", "0")) else console
    task, model = make_task(config, quiet)
    fitted = fit(task, config, quiet, command=command_line("strata train vggt", config))
    show_datasets(fitted.metrics, quiet)
    if not int(os.environ.get("RANK", "0")):
        export(model, fitted, config, quiet)
    return 0


def make_task(config: TrainVGGTConfig, console: Console) -> tuple[VGGTTask, VGGT]:
    """The task, and its model.

    Raises:
        StrataError: as `run`.
    """
    loss, size, changes = loss_options(config), _size(config), _augment(config)
    options = _batch_options(config)
    if config.metrics not in FORMS:
        raise _unknown("metrics", config.metrics, tuple(FORMS))
    data = open_data(config, lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True))
    model = build_model(config, data.selection)
    patch = model.config.patch_size
    if data.selection is None:
        check_pixels(size, patch)
    train = SetBatches(
        views=data.views,
        draws=data.draws,
        mix=data.mix,
        options=options,
        size=size,
        patch=patch,
        augment=changes,
        seed=config.seed,
        pin=config.device != "cpu" and _on_gpu(),
    )
    held_out, endless = _held_out(config, data, size), config.steps_per_epoch is not None
    _check_best(config.best, held_out)
    return VGGTTask(model, train, held_out, loss, describe(data), endless=endless), model


def loss_options(config: TrainVGGTConfig) -> LossOptions:
    """What is scored.

    Raises:
        ConfigError: nothing is, or an option is out of range.
    """
    share = config.valid_range
    return LossOptions(
        camera=CameraLossOptions(weight=config.camera) if config.camera else None,
        depth=DenseLossOptions(weight=config.depth, surface=config.depth_surface, valid_range=share)
        if config.depth
        else None,
        point=DenseLossOptions(weight=config.point, surface=config.point_surface, valid_range=share)
        if config.point
        else None,
    )


def _held_out(config: TrainVGGTConfig, data: TrainingData, size: Size) -> HeldOut | None:
    if not data.held_out:
        return None
    return HeldOut(
        views=data.views,
        draws=data.held_out,
        look=Look(size=size),
        max_images=max(1, config.max_images // config.accumulate),
        form=config.metrics,
    )


def _check_best(best: str | None, held_out: HeldOut | None) -> None:
    """Now, and not after the first epoch."""
    name = "" if best is None else best.partition(":")[2]
    if name and held_out is None:
        raise ConfigError(
            "nothing is held out, so no epoch is the best.",
            where=f"best={best}",
            fix="hold scenes out with val_split= or val_scene=, or leave best= out",
        )
    if name and held_out is not None and name not in held_out.names:
        raise ConfigError(
            f"no measure of held-out sets is called {name!r}.",
            where=f"best={best}",
            fix=did_you_mean(name, held_out.names),
        )


def _size(config: TrainVGGTConfig) -> Size:
    if config.fit not in FITS:
        raise _unknown("fit", config.fit, FITS)
    if (
        not isinstance(config.pixels, list)
        or len(config.pixels) != 2
        or not all(_is_size(n) for n in config.pixels)
    ):
        raise ConfigError(
            f"pixels={config.pixels} is no size.", where="pixels", fix="write pixels=[392,518]: height, width"
        )
    return int(config.pixels[0]), int(config.pixels[1])


def _is_size(value: object) -> bool:
    return isinstance(value, int) and value > 0


def _augment(config: TrainVGGTConfig) -> AugmentOptions | None:
    if config.augment not in AUGMENTS:
        raise _unknown("augment", config.augment, tuple(AUGMENTS))
    return AUGMENTS[config.augment]


def _batch_options(config: TrainVGGTConfig) -> BatchOptions:
    for name in ("views", "aspects"):
        value = getattr(config, name)
        if value is not None and len(value) != 2:
            raise ConfigError(
                f"{name}={value} is no range.", where=name, fix="give two numbers, the lower first"
            )
    if config.source == "store" and config.aspects is not None:
        raise ConfigError(
            "stored views have one size.",
            where="aspects",
            fix="leave aspects out, or train with source=online",
        )
    return BatchOptions(
        max_images=config.max_images,
        views=(config.views[0], config.views[1]),
        aspects=None if config.aspects is None else (config.aspects[0], config.aspects[1]),
    )


def _unknown(name: str, value: str, known: tuple[str, ...]) -> ConfigError:
    return ConfigError(f"{name}={value} is not known.", where=name, fix=did_you_mean(value, known))


def _on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
