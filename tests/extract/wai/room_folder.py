"""A synthetic room as a WAI scene on disk, and changes of its `scene_meta.json`."""

from __future__ import annotations

import json

from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.scenes.wai import WaiSource

SYNTHETIC = SyntheticSource(1, views=4, width=24, height=18)
ID = "synthetic/room_0"


def read(folder):
    return WaiSource(folder).scene(f"{folder.parent.name}/{folder.name}")


def change(folder, edit):
    path = folder / "scene_meta.json"
    meta = json.loads(path.read_text())
    edit(meta)
    path.write_text(json.dumps(meta))


def change_frame(folder, number=1, **values):
    change(folder, lambda meta: meta["frames"][number].update(values))
