"""A path that is no finished pack is called what it is, with the way to one."""

from __future__ import annotations

from pathlib import Path

import pytest
from strata.errors import ShardError
from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.scenes.wai_write import write_wai
from strata.extract.shards import ShardIndex


def nothing(path: Path) -> None:
    pass


def a_file(path: Path) -> None:
    path.write_bytes(b"tar")


def unfinished(path: Path) -> None:
    path.mkdir()
    (path / "shard-000000.tar").write_bytes(b"tar")


def a_store(path: Path) -> None:
    path.mkdir()
    (path / "zarr.json").write_bytes(b"{}")


def scenes(path: Path) -> None:
    for scene in SyntheticSource(1, views=2, width=32, height=24):
        write_wai(scene, path / "synthetic" / scene.name)


def broken_scenes(path: Path) -> None:
    (path / "sparse" / "0").mkdir(parents=True)
    (path / "images").mkdir()
    for name in ("cameras", "images", "points3D"):
        (path / "sparse" / "0" / f"{name}.txt").write_text("1 2")


def something_else(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("shards?")


@pytest.mark.parametrize(
    ("make", "what", "fix"),
    [
        (nothing, "the folder of shards is not there", "strata pack scenes=... out={}"),
        (a_file, "this is a file", "name the folder that `strata pack` wrote"),
        (unfinished, "packing was not finished", "it continues where it stopped"),
        (a_store, "this is a store of features", "write store={}"),
        (scenes, "these are scenes, not yet packed", "strata pack scenes={} out=shards"),
        (broken_scenes, "these are scenes, not yet packed", "strata pack scenes={} out=shards"),
        (something_else, "there are no shards in this folder", "strata pack scenes=... out={}"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_there_instead_is_told(tmp_path, make, what, fix):
    path = tmp_path / "place"
    make(path)
    with pytest.raises(ShardError, match=what) as caught:
        ShardIndex.open(path)
    assert caught.value.where == str(path)
    assert fix.format(path) in caught.value.fix
