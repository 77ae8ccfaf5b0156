"""`strata train vggt`: data, model, the loop, and what it leaves."""

from __future__ import annotations

import os

from rich.console import Console

from ..configs.load import command_line
from ..configs.schema import TrainVGGTConfig
from ..errors import ConfigError, did_you_mean
from ..extract.encoders.vggt.model import VGGT
from ..store.key import Size
from . import augment
from .augment import AugmentOptions
from .data import TrainingData, describe, open_data
from .export import export
from .fit import fit
from .held_out import HeldOut
from .held_out_table import show_datasets
from .set_batches import SetBatches
from .vggt import VGGTTask
from .vggt_model import build_model, check_pixels
from .vggt_words import batch_options, check_words, image_size, loss_options
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
    check_words(config)
    size = image_size(config)
    data = open_data(config, lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True))
    model = build_model(config, data.selection)
    patch = model.config.patch_size
    if data.selection is None:
        check_pixels(size, patch)
    train = SetBatches(
        views=data.views,
        draws=data.draws,
        mix=data.mix,
        options=batch_options(config),
        size=size,
        patch=patch,
        augment=AUGMENTS[config.augment],
        seed=config.seed,
        pin=config.device != "cpu" and _on_gpu(),
    )
    held_out, endless = _held_out(config, data, size), config.steps_per_epoch is not None
    _check_best(config.best, held_out)
    return VGGTTask(model, train, held_out, loss_options(config), describe(data), endless=endless), model


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


def _on_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
