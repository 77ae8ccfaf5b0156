"""A folder of images for a model, and both ways to write one."""

from __future__ import annotations

import pytest
from PIL import Image

from .room_model import ROOM, WRITERS, Model


@pytest.fixture(params=WRITERS)
def write(request):
    return WRITERS[request.param]


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / "rooms" / "lounge"
    (folder / "images").mkdir(parents=True)
    for name, view in zip(Model().names, ROOM.views, strict=True):
        Image.fromarray(view.image).save(folder / "images" / name)
    return folder
