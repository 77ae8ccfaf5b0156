"""Fixtures that tests of several packages share: places, a console, and a small pipeline.

The pipeline is synthetic scenes that a test can change, packed and extracted in a moment.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

# Read when torch is first imported, by whichever test does so: tests run beside other work.
os.environ.setdefault("OMP_NUM_THREADS", "2")

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console
from strata.configs.schema import ExtractConfig
from strata.extract.encoders.base import Encoder, EncoderInfo, FeatureMap, ViewBatch
from strata.extract.pack import pack_scenes
from strata.extract.run import Summary, extract
from strata.extract.scenes.exr import write_exr
from strata.extract.scenes.scene import Blob, Scene, SceneSource, View

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """`shared/` beside the checkout: golden data and real scenes."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(
            f"there is no {folder.name}/ beside the checkout, which holds golden data and real scenes"
        )
    return folder


@pytest.fixture(scope="session")
def real_scenes(shared: Path) -> Path:
    """A root of real WAI scenes; read-only."""
    folder = shared / "scenes"
    if not folder.is_dir():
        pytest.skip("shared/ holds no scenes/")
    return folder


@pytest.fixture
def console() -> Console:
    """A console that is no terminal; `console.file.getvalue()` is what was printed."""
    return Console(file=io.StringIO(), width=120, force_terminal=False)


@pytest.fixture(scope="module")
def quick_disk_of_module() -> Iterator[None]:
    """`quick_disk` for fixtures that a whole file of tests shares."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        yield


@pytest.fixture
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is synced, which the tests of `store/atomic.py` look at; others are not to wait for a disk."""
    monkeypatch.setattr(os, "fsync", lambda handle: None)


class ColourEncoder(Encoder):
    """Mean colour of each cell; `block<k>` adds k. Counts the views it sees, and can be made to fail."""

    def __init__(self, needs: frozenset[str] = frozenset()) -> None:
        name, needs = ("points", needs | {"scene_scale_m"}) if needs else ("colour", needs)
        self.info = EncoderInfo(name=name, patch_size=4, depth=2, needs=needs)
        self.seen: list[int] = []
        self.poison: Callable[[torch.Tensor], torch.Tensor] = lambda tokens: tokens

    def width(self, layer: str) -> int:
        return 3

    def layers(self) -> tuple[str, ...]:
        return ("block0", "block1", "norm")

    def prefix_names(self) -> tuple[str, ...]:
        return ("cls",)

    def forward(self, batch: ViewBatch, layers: tuple[str, ...]) -> dict[str, FeatureMap]:
        sets, views = batch.images.shape[:2]
        self.seen.append(sets * views)
        cells = (
            batch.images.unflatten(-1, (batch.grid[1], 4)).unflatten(-3, (batch.grid[0], 4)).mean((-1, -3))
        )
        tokens = cells.permute(0, 1, 3, 4, 2)
        if batch.token_point_world is not None:
            tokens = batch.token_point_world.nan_to_num(0)
        offset = {"block0": 0.0, "block1": 1.0, "norm": 2.0}
        return {
            layer: FeatureMap(
                tokens=self.poison(tokens + offset[layer]),
                prefix=tokens.mean((2, 3))[:, :, None] + offset[layer],
                prefix_names=("cls",),
            )
            for layer in layers
        }

    def weights_digest(self) -> str:
        return "0" * 64

    def to(self, device: str | torch.device, dtype: torch.dtype) -> Encoder:
        return self


@dataclass
class Scenes(SceneSource):
    """Scenes in memory that a test may change between two packs."""

    scenes: dict[str, Scene] = field(default_factory=dict)

    def ids(self) -> list[str]:
        return sorted(self.scenes)

    def scene(self, scene_id: str) -> Scene:
        return self.scenes[scene_id]

    def splits(self) -> dict[str, tuple[str, ...]]:
        return {"test/toy": tuple(self.ids())[:1]}


@dataclass
class Pipeline:
    """One folder with shards and a store."""

    folder: Path
    source: Scenes = field(default_factory=Scenes)
    store: str = "f.zarr"

    @property
    def root(self) -> Path:
        return self.folder / self.store

    def add(self, name: str, views: int = 3, seed: int = 0, size: tuple[int, int] = (24, 16)) -> None:
        self.source.scenes[f"toy/{name}"] = toy_scene(f"toy/{name}", views, seed, [size] * views)

    def change(self, name: str, edit: Callable[[tuple[View, ...]], Sequence[View]]) -> None:
        scene = self.source.scenes[f"toy/{name}"]
        views = tuple(edit(scene.views))
        self.source.scenes[scene.id] = replace(scene, views=views, covisibility=overlap(len(views)))

    def extract(self, encoder: Encoder | None = None, **options) -> Summary:
        pack_scenes(self.source, self.folder / "shards", shard_bytes=1 << 30)
        words = {"layers": ["block0", "norm"], "grid": "aspect:6", "unit_views": 2, "batch": 2}
        paths = {"shards": str(self.folder / "shards"), "store": str(self.root)}
        config = ExtractConfig(encoder="colour", **paths, **{**words, **options})
        return extract(config, encoder=encoder or ColourEncoder())


def toy_scene(scene_id: str, views: int, seed: int, sizes: Sequence[tuple[int, int]]) -> Scene:
    """Random images before a wall 2 m away; neighbours see each other."""
    rng = np.random.default_rng([seed, *scene_id.encode()])
    made = [toy_view(f"{k:03d}", rng, *size, k) for k, size in zip(range(views), sizes, strict=True)]
    return Scene(id=scene_id, views=tuple(made), covisibility=overlap(views), scale_type="metric")


def toy_view(name: str, rng: np.random.Generator, width: int, height: int, k: int = 0) -> View:
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8).astype(np.uint8))
    pose = np.eye(4)
    pose[0, 3] = 0.1 * k
    return View(
        name=name,
        image=Blob(suffix="png", data=png(image)),
        depth=Blob(suffix="exr", data=write_exr(np.full((height, width), 2.0 + 0.1 * k, np.float32))),
        K_px=np.array([[20.0, 0, width / 2 - 0.5], [0, 20.0, height / 2 - 0.5], [0, 0, 1]]),
        world_from_cam=pose,
    )


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def overlap(views: int) -> np.ndarray:
    steps = np.abs(np.arange(views)[:, None] - np.arange(views)[None])
    return np.clip(1 - 0.3 * steps, 0, 1).astype(np.float32)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """A pipeline without scenes."""
    return Pipeline(tmp_path)


@pytest.fixture(scope="session")
def colour() -> type[ColourEncoder]:
    return ColourEncoder


@pytest.fixture
def new_view() -> Callable[..., View]:
    return toy_view


@pytest.fixture(scope="session")
def new_pipeline() -> type[Pipeline]:
    return Pipeline


@pytest.fixture(scope="session")
def tree() -> Callable[[Path], dict[str, bytes]]:
    """By relative path, the bytes of every file of a store that is compared."""

    def read(root: Path) -> dict[str, bytes]:
        files = (path for path in root.rglob("*") if path.is_file())
        return {
            str(path.relative_to(root)): path.read_bytes()
            for path in files
            if path.relative_to(root).parts[0] != "runs"
        }

    return read
