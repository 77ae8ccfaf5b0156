"""What the words of `strata train vggt` say; wrong ones are refused before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..configs.schema import TrainVGGTConfig
from ..errors import ConfigError, did_you_mean
from ..extract.encoders.registry import encoder_names
from ..extract.packed_folder import INDEX
from ..extract.scenes.open import open_scenes
from ..store.feature_store import FeatureStore
from ..store.key import FITS, Size
from ..store.split_lists import split_scenes
from .fit_options import check_options
from .loss_options import CameraLossOptions, DenseLossOptions, LossOptions
from .model_sizes import model_sizes
from .view_counts import BatchOptions

WORDS = {
    "source": ("online", "store"),
    "fit": FITS,
    "augment": ("mapanything", "vggt", "none"),
    "metrics": ("mended", "reference"),
}
"""By option, what it may be."""


def check_words(config: TrainVGGTConfig) -> None:
    """Check what can be checked without the data, and that the data are there.

    Raises:
        StrataError: an option is out of range or not known, or there is nothing at its place.
    """
    check_options(config)
    for name, known in WORDS.items():
        _check_known(name, getattr(config, name), known)
    check_export_name(config)
    image_size(config)
    batch_options(config)
    loss_options(config)
    model_sizes(config.model)
    _check_places(config)


def image_size(config: TrainVGGTConfig) -> Size:
    """(height, width) that images are brought to.

    Raises:
        ConfigError: `pixels` is no size.
    """
    pixels = config.pixels
    if not isinstance(pixels, list) or len(pixels) != 2 or not all(map(_is_size, pixels)):
        raise ConfigError(
            f"pixels={config.pixels} is no size.", where="pixels", fix="write pixels=[392,518]: height, width"
        )
    return int(pixels[0]), int(pixels[1])


def batch_options(config: TrainVGGTConfig) -> BatchOptions:
    """How large batches are.

    Raises:
        ConfigError: a range is none, or is asked of stored views.
    """
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


def check_export_name(config: TrainVGGTConfig) -> None:
    """Check the name that the encoder will have.

    Raises:
        ConfigError: another encoder has it, or it cannot be a name.
    """
    name = config.export_name
    if name is not None and (name in encoder_names() or not name or set(name) & set("@/\\ ")):
        raise ConfigError(
            f"an encoder that was trained cannot be called {name!r}.",
            where="export_name",
            why="an encoder of that name is there already" if name in encoder_names() else "",
            fix="give a name of its own, without @, slashes and blanks, or leave export_name= out",
        )


def place_of(config: TrainVGGTConfig, name: str) -> str:
    """The value of an option that `source` needs: scenes, store or encoder.

    Raises:
        ConfigError: it is not given.
    """
    value = getattr(config, name)
    if value is None:
        raise ConfigError(
            f"{name}= must be given.",
            where=f"source={config.source}",
            why="online reads images of scenes= (or shards); store reads tokens of encoder= in store=",
            fix=f"add {name}=...",
        )
    return value


def _check_places(config: TrainVGGTConfig) -> None:
    """That scenes and splits, or features, are there; shards and stores elsewhere are asked later."""
    if config.source == "store":
        store, encoder = place_of(config, "store"), place_of(config, "encoder")
        if "://" not in store:
            FeatureStore.open(store).stored_key(encoder)
        return
    scenes = place_of(config, "scenes")
    splits = [split for split in (config.split, config.val_split) if split is not None]
    if not Path(scenes).exists() or (splits and not (Path(scenes) / INDEX).is_file()):
        known = open_scenes(scenes).splits()
        for split in splits:
            split_scenes(split, known, scenes)


def _check_known(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name}={value} is not known.", where=name, fix=did_you_mean(value, known))


def _is_size(value: object) -> bool:
    return isinstance(value, int) and value > 0
