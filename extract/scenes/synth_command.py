"""`strata scenes synth`: analytic rooms on disk, in the WAI layout."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from rich.console import Console

from ...configs.schema import SynthConfig
from ...errors import ConfigError
from .synthetic import DATASET, SyntheticSource
from .wai_write import write_wai

SMALLEST_SIDE = 16


def synth(config: SynthConfig, console: Console) -> int:
    """Writes `<out>/synthetic/room_<i>` and the list `<out>/metadata/test`; returns the exit code.

    Raises:
        ConfigError: a number is too small.
        SceneError: other scenes are there already.
    """
    _check(config)
    source = SyntheticSource(config.scenes, config.views, config.width, config.height, config.seed)
    out = Path(config.out)
    for scene in source:
        write_wai(scene, out / DATASET / scene.name)
        console.print(f"{out / DATASET / scene.name}: {len(scene)} views", highlight=False)
    _write_list([scene_id.partition("/")[2] for scene_id in source.ids()], out / "metadata" / "test")
    return 0


def _check(config: SynthConfig) -> None:
    limits = {"scenes": 1, "views": 1, "seed": 0, "width": SMALLEST_SIDE, "height": SMALLEST_SIDE}
    for name, least in limits.items():
        if getattr(config, name) < least:
            raise ConfigError(
                f"{name}={getattr(config, name)} is too small.", where=name, fix=f"at least {least}"
            )


def _write_list(names: list[str], folder: Path) -> None:
    """As JSON, and as the .npy that WAI loaders look for: of fixed-length text, so without a pickle."""
    folder.mkdir(parents=True, exist_ok=True)
    stem = f"{DATASET}_scene_list_test"
    (folder / f"{stem}.json").write_text(json.dumps(names) + "\n")
    np.save(folder / f"{stem}.npy", np.array(names))
