"""Scenes in memory to pack, what a pack holds, and a process that dies while it writes one."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from strata.errors import SceneError
from strata.extract import pack_folder
from strata.extract.scenes.exr import write_exr
from strata.extract.scenes.scene import Blob, Scene, SceneSource, View
from strata.store import atomic
from webdataset.compat import WebDataset

SMALL = 20_000


class MemorySource(SceneSource):
    """Scenes that are given; a string in place of a scene is the error that reading it raises."""

    def __init__(self, scenes: dict[str, Scene | str], splits: dict[str, tuple[str, ...]] | None = None):
        self.by_id, self.lists = scenes, splits or {}

    def ids(self) -> list[str]:
        return list(self.by_id)

    def scene(self, scene_id: str) -> Scene:
        scene = self.by_id[scene_id]
        if isinstance(scene, str):
            raise SceneError(scene, where=scene_id)
        return scene

    def splits(self) -> dict[str, tuple[str, ...]]:
        return self.lists


def png(seed: int, width: int = 16, height: int = 12, mode: str = "RGB") -> Blob:
    channels = {"RGB": (3,), "L": ()}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Blob(suffix="png", data=file.getvalue())


def depth(seed: int, width: int = 16, height: int = 12) -> Blob:
    values = np.random.default_rng(seed).uniform(-1, 4, (height, width)).astype(np.float32)
    return Blob(suffix="exr", data=write_exr(values, half=False))


def view(seed: int, name: str | None = None) -> View:
    return View(
        name=name or f"frame.{seed:03d}",
        image=png(seed),
        depth=depth(seed),
        K_px=np.array([[20, 0, 8.3], [0, 21, 6.7], [0, 0, 1]]) + seed / 7,
        world_from_cam=np.eye(4),
    )


def scene(name: str, seed: int = 0, views: int = 3) -> Scene:
    return Scene(
        id=f"made/{name}",
        views=tuple(view(100 * seed + i) for i in range(views)),
        covisibility=np.random.default_rng(seed).random((views, views), np.float32),
        scale_type="metric",
    )


def source(*scenes: Scene, splits: dict[str, tuple[str, ...]] | None = None) -> MemorySource:
    return MemorySource({scene.id: scene for scene in scenes}, splits)


def five() -> MemorySource:
    return source(*(scene(f"s{i}", i, views=2 + 4 * (i == 2)) for i in range(5)))


def broken_view() -> View:
    return replace(view(7), image=Blob(suffix="png", data=png(7).read()[:200]))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def samples(folder: Path) -> dict[str, dict]:
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    return {sample["__key__"]: sample for sample in WebDataset(urls, shardshuffle=False)}


class StopError(BaseException):
    """A kill: nothing of ours catches it."""


def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The process dies right after the `after`-th file is in place."""
    written = []

    def write(path, parts):
        atomic.write_atomic(path, parts)
        written.append(path)
        if len(written) == after:
            raise StopError

    monkeypatch.setattr(pack_folder, "write_atomic", write)
