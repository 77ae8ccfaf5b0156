"""`strata scenes synth`: analytic rooms on disk, in the WAI layout."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from ...configs.schema import SynthConfig
from ...errors import ConfigError, counted
from ...store.split_lists import write_names
from .synthetic import DATASET, SyntheticSource
from .wai_write import write_wai

SMALLEST_SIDE = 16


def synth(config: SynthConfig, console: Console) -> int:
    """Writes `<out>/synthetic/room_<i>` and the lists of `<out>/metadata`; returns the exit code.

    Raises:
        ConfigError: a number is too small.
        SceneError: other scenes are there already.
    """
    _check(config)
    source = SyntheticSource(config.scenes, config.views, config.width, config.height, config.seed)
    out = Path(config.out)
    for scene in source:
        write_wai(scene, out / DATASET / scene.name)
        console.print(f"{out / DATASET / scene.name}: {counted(len(scene), 'view')}", highlight=False)
    for name, ids in source.splits().items():
        split = name.partition("/")[0]
        write_names([scene_id.partition("/")[2] for scene_id in ids], split, DATASET, out)
        console.print(f"split {split}: {len(ids)} of {config.scenes}", highlight=False)
    return 0


def _check(config: SynthConfig) -> None:
    limits = {"scenes": 1, "views": 1, "seed": 0, "width": SMALLEST_SIDE, "height": SMALLEST_SIDE}
    for name, least in limits.items():
        if getattr(config, name) < least:
            raise ConfigError(
                f"{name}={getattr(config, name)} is too small.", where=name, fix=f"at least {least}"
            )
