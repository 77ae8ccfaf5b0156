"""Whether the options of a fit can be meant, before anything is read or written."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..configs.schema import FitOptions
from ..errors import ConfigError, did_you_mean
from .trackers import TRACKERS

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "float32", "bfloat16", "float16")


def check_options(config: FitOptions) -> None:
    """Check each option by itself.

    Raises:
        ConfigError: one is out of range, or a word is unknown.
    """
    for name, fix in _faults(config):
        raise ConfigError(f"{name}={getattr(config, name)} cannot be meant.", where=name, fix=fix)


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` = bfloat16 on a GPU, float32 elsewhere."""
    if precision != "auto":
        return precision
    return "bfloat16" if device.type == "cuda" else "float32"


def _faults(config: FitOptions) -> Iterator[tuple[str, str]]:
    """Options that are wrong, and what to write instead."""
    for name in ("epochs", "accumulate", "bad_steps", "validate_every", "keep", "log_every"):
        if getattr(config, name) < 1:
            yield name, f"write {name}=1 or more"
    for name in ("steps_per_epoch", "checkpoint_every", "pictures_every"):
        if getattr(config, name) is not None and getattr(config, name) < 1:
            yield name, f"write {name}=none, or 1 or more"
    for name in ("lr", "lr_min", "weight_decay", "seed"):
        if not 0 <= getattr(config, name) < float("inf"):
            yield name, "give a number that is not negative"
    if not 0 <= config.warmup < 1:
        yield "warmup", "give a share of all steps: 0.05"
    if len(config.betas) != 2 or not all(0 <= beta < 1 for beta in config.betas):
        yield "betas", "give two numbers from 0 to below 1: betas=0.9,0.999"
    if config.precision not in PRECISIONS:
        yield "precision", did_you_mean(config.precision, PRECISIONS)
    if config.best is not None and not config.best.startswith(("max:", "min:")):
        yield "best", f"write best=max:{config.best} or best=min:{config.best}"
    for word in config.log:
        if word not in TRACKERS:
            yield "log", did_you_mean(word, TRACKERS)
