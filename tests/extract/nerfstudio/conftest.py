"""A sound folder to be changed."""

from __future__ import annotations

import pytest

from .room_folder import ROOM, cameras, save, write


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "rooms" / "lounge"
    frames = [write(folder, view, i) | cameras(view) for i, view in enumerate(ROOM.views)]
    save(folder, {"camera_model": "OPENCV", "k1": 0, "p2": 0.0, "frames": frames})
    return folder
