"""Words of `strata extract` that are wrong whatever the scenes hold: told before torch is imported."""

from __future__ import annotations

from collections.abc import Sequence

from ..configs.schema import ExtractConfig
from ..errors import ConfigError, did_you_mean
from ..store.key import COMPUTES, Preprocess
from ..store.layers import STORAGES
from .encoders.image_size import overlapping
from .encoders.presets import load_preset, preset_names
from .packed_folder import check_packed

VIEWS = ("all", "geometry", "none")
BACKENDS = ("local", "ray")


def check_words(config: ExtractConfig) -> None:
    """Nothing, if the words can be meant.

    Raises:
        ConfigError: one is not known, or out of range.
        EncoderError: a preset's patches do not overlap evenly at the stride.
        ShardError: there are no shards at the path.
    """
    preprocess_of(config)
    _one_of("views", config.views, VIEWS)
    _one_of("storage", config.storage, ("auto", *STORAGES))
    _one_of("compute", config.compute, ("auto", *COMPUTES))
    _one_of("backend", config.backend, BACKENDS)
    _one_of("retry", config.retry, ("none", "failed"))
    _check_numbers(config)
    if config.backend == "local" and (config.address or config.workers is not None):
        raise ConfigError(
            "address= and workers= say how Ray is used, and this run does not use it.",
            where=f"address={config.address}, workers={config.workers}",
            fix="add backend=ray, or leave them out",
        )
    if config.stride is not None and config.encoder in preset_names():
        overlapping(load_preset(config.encoder).info, config.stride)
    check_packed(config.shards)


def preprocess_of(config: ExtractConfig) -> Preprocess:
    """The preprocessing that the words of the command ask for.

    Raises:
        ConfigError: there is none such.
    """
    grid = None if config.pixels is not None else config.grid
    return Preprocess(
        fit=config.fit, grid=grid, pixels=config.pixels, orient=config.orient, filter=config.filter
    )


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ConfigError(f"{name}={value} is not known.", where=name, fix=did_you_mean(value, known))


def _check_numbers(config: ExtractConfig) -> None:
    if config.workers is not None and config.workers < 1:
        raise ConfigError(
            f"workers={config.workers} leaves nobody to work.", where="workers", fix="write workers=1 or more"
        )
    if config.limit is not None and config.limit < 1:
        raise ConfigError(
            f"limit={config.limit} leaves no scene.", where="limit", fix="write limit=1 or more"
        )
    if config.batch < 1 or (config.unit_views is not None and config.unit_views < 1):
        raise ConfigError(
            "a batch and a unit have at least one view.",
            where=f"batch={config.batch}, unit_views={config.unit_views}",
            fix="write batch=8, and leave unit_views out",
        )
