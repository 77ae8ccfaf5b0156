"""An office with a thin wall that is seen from both sides."""

from __future__ import annotations

from pathlib import Path

from strata.configs.schema import ExtractConfig
from strata.extract.pack import pack_scenes
from strata.extract.run import extract
from strata.extract.scenes.scene import SceneSource
from strata.extract.scenes.synthetic import SyntheticScene, SyntheticSource
from strata.probes.visibility import SurfaceView
from strata.probes.visible_protocol import VisibleProtocol, VisibleQuestion

WALL = 1
"""The solid of an office that is seen from both sides."""


class Office(SceneSource):
    """One room with a thin wall, walked half round."""

    def __init__(self) -> None:
        self.rooms = SyntheticSource(scenes=4, views=9, width=96, height=72)

    def ids(self) -> list[str]:
        return ["synthetic/room_2"]

    def scene(self, scene_id: str):
        return self.rooms.scene(scene_id)

    def analytic(self) -> SyntheticScene:
        return self.rooms.analytic("synthetic/room_2")


def stored(folder: Path, views: str = "geometry") -> Path:
    pack_scenes(Office(), folder / "shards", shard_bytes=1 << 30)
    store = folder / "f.zarr"
    extract(
        ExtractConfig(
            shards=str(folder / "shards"), store=str(store), encoder="oracle_world", grid=[9, 12], views=views
        )
    )
    return store


def question_of(views: list[SurfaceView]) -> VisibleQuestion:
    question = VisibleProtocol().ask(views, None)
    assert question is not None
    return question
