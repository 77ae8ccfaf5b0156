"""Rooms in shards, whole and to be damaged; and a disk that is not waited for."""

from __future__ import annotations

from pathlib import Path

import pytest
from strata.extract.pack import pack_scenes

from .decorated_rooms import SHARD_BYTES, Decorated


@pytest.fixture(autouse=True)
def _no_waiting(quick_disk: None) -> None:
    """A full pack syncs dozens of files."""


@pytest.fixture(scope="module")
def source() -> Decorated:
    return Decorated()


@pytest.fixture(scope="module")
def packed(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shards")
    assert pack_scenes(source, folder, shard_bytes=SHARD_BYTES).shards >= 3
    return folder


@pytest.fixture
def copied(packed, tmp_path) -> Path:
    """A pack that a test may damage."""
    for path in packed.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path
