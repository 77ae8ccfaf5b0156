"""A sound scene to be damaged."""

from __future__ import annotations

import pytest
from strata.extract.scenes.wai_write import write_wai

from .room_folder import ID, SYNTHETIC


@pytest.fixture
def folder(tmp_path):
    """A sound scene to be damaged."""
    write_wai(SYNTHETIC.scene(ID), tmp_path / "synthetic" / "room_0")
    return tmp_path / "synthetic" / "room_0"
