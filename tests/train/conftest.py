"""The small task of `toy.py`, here and in processes of its own; rooms and a VGGT that trains in a moment."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
from rich.console import Console
from strata.configs.schema import ExtractConfig, PackConfig, SetsConfig, SynthConfig, TrainVGGTConfig
from strata.store.view_sets import read_sets, write_sets
from strata.train.fit import fit

from . import toy as toy_module

TOY = Path(__file__).with_name("toy.py")


@pytest.fixture(autouse=True)
def _no_waiting(quick_disk: None) -> None:
    """A run syncs every checkpoint."""


@pytest.fixture(scope="session")
def toy() -> ModuleType:
    return toy_module


@pytest.fixture
def train(toy, tmp_path, console):
    """Fit a toy into a folder; changes of options by name."""

    def run(task=None, out="run", **changes):
        words = {"curves": False, **changes}
        return fit(task or toy.Toy(), toy.options(tmp_path / out, **words), console, command="toy again")

    return run


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, list[int]]]:
    """Runs that were killed, stopped or shared: their folders, and exit codes by folder."""
    folder = tmp_path_factory.mktemp("runs")
    done = subprocess.run(
        [sys.executable, TOY, folder],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not done.stderr
    return folder, json.loads(done.stdout.splitlines()[-1])


SIZES = """
img_size: 56
embed_dim: 32
depth: 2
num_heads: 2
mlp_ratio: 2.0
num_register_tokens: 1
encoder: {type: conv}
camera_head: {trunk_depth: 1, num_heads: 2, mlp_ratio: 2.0, iters: 2}
dpt: {features: 16, out_channels: [16, 16, 16, 16]}
"""


@dataclass(frozen=True, kw_only=True)
class Rooms:
    """Three rooms of five views, as scenes, as shards and as tokens; and sets of three views of each."""

    folder: Path

    def __getattr__(self, name: str) -> str:
        return str(self.folder / {"store": "f.zarr", "sets": "sets.json"}.get(name, name))


@pytest.fixture(scope="session")
def rooms(tmp_path_factory: pytest.TempPathFactory) -> Rooms:
    from strata.extract.pack import pack
    from strata.extract.run import run
    from strata.extract.scenes.synth_command import synth
    from strata.extract.sets_command import make

    made, quiet = Rooms(folder=tmp_path_factory.mktemp("rooms")), Console(file=io.StringIO())
    synth(SynthConfig(out=made.scenes, scenes=3, views=5, width=56, height=42, seed=1), quiet)
    make(SetsConfig(scenes=made.scenes, out=made.sets, set_views=3, set_count=4), quiet)
    pack(PackConfig(scenes=made.scenes, out=made.shards), quiet)
    (made.folder / "sizes.yaml").write_text(SIZES)
    words = {"layers": ["block0", "norm"], "pixels": [42, 56], "orient": "scene", "storage": "f32"}
    config = ExtractConfig(
        shards=made.shards,
        store=made.store,
        encoder="vit_tiny_demo",
        weights="random:0",
        sets=made.sets,
        **words,
    )
    run(config, quiet)
    return made


@pytest.fixture
def training(rooms: Rooms, tmp_path: Path) -> Callable[..., TrainVGGTConfig]:
    """Options of a training on the first two rooms, the third held out."""

    def options(**words) -> TrainVGGTConfig:
        usual = {
            "out": str(tmp_path / "run"),
            "model": str(rooms.folder / "sizes.yaml"),
            "scenes": rooms.scenes,
            "scene": "*/room_[01]",
            "val_scene": "*/room_2",
            "pixels": [42, 56],
            "augment": "none",
            "set_count": 2,
            "views": [2, 2],
            "max_images": 4,
            "epochs": 1,
            "lr": 1e-3,
            "curves": False,
            "checkpointing": False,
            "device": "cpu",
        }
        return TrainVGGTConfig(**{**usual, **words})

    return options


@pytest.fixture
def few_sets(rooms: Rooms, tmp_path: Path) -> Callable[[int], str]:
    """Writes a file with some sets of the first room, and gives its path."""

    def written(count: int) -> str:
        path = tmp_path / f"{count}-sets.json"
        sets = [one for one in read_sets(rooms.sets) if one.scene.endswith("room_0")][:count]
        write_sets(path, sets, sampler={"views": 3, "count": count})
        return str(path)

    return written
