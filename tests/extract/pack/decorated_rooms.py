"""Rooms with masks, a view without geometry and a turned one; and changes of an index."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

from PIL import Image
from strata.extract.scenes.scene import Blob, Scene, SceneSource, View
from strata.extract.scenes.synthetic import SyntheticSource

SHARD_BYTES = 12_000


class Decorated(SceneSource):
    """Synthetic rooms; the first view has masks, the last no camera and a turned image."""

    def __init__(self) -> None:
        self.rooms = SyntheticSource(scenes=2, views=4, width=24, height=16)

    def ids(self) -> list[str]:
        return self.rooms.ids()

    def scene(self, scene_id: str) -> Scene:
        scene = self.rooms.scene(scene_id)
        first, *middle, last = scene.views
        mask = Blob(suffix="png", data=_grey(first))
        first = replace(first, masks={"sky": mask, "moge2/mask": mask})
        last = View(name=last.name, image=last.image, orientation=6)
        return replace(scene, views=(first, *middle, last))

    def splits(self) -> dict[str, tuple[str, ...]]:
        return self.rooms.splits()


def _grey(view: View) -> bytes:
    file = io.BytesIO()
    Image.open(io.BytesIO(view.image.read())).convert("L").save(file, "PNG")
    return file.getvalue()


def edit(folder: Path, change) -> None:
    """Apply `change` to the index."""
    index = json.loads((folder / "index.json").read_bytes())
    change(index)
    (folder / "index.json").write_text(json.dumps(index))


def first_scene(index: dict) -> dict:
    return index["scenes"][0]
