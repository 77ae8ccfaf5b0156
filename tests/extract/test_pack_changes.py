"""Packing into a folder that has a pack says first what will change, and why."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console
from strata.configs.schema import PackConfig, SynthConfig
from strata.errors import SelectionError
from strata.extract.pack import pack
from strata.extract.pack_changes import pack_changes
from strata.extract.scenes.synth_command import synth
from strata.extract.shards import ShardIndex


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two rooms of 48 x 36 pixels."""
    folder = tmp_path_factory.mktemp("rooms")
    synth(SynthConfig(out=str(folder), scenes=2, views=3, width=48, height=36), Console(quiet=True))
    return str(folder)


def packed(scenes: str, out: Path, console: Console, **words) -> list[str]:
    """What the command says, line by line."""
    before = len(console.file.getvalue())  # type: ignore[attr-defined]
    assert pack(PackConfig(scenes=scenes, out=str(out / "shards"), **words), console) == 0
    return console.file.getvalue()[before:].splitlines()  # type: ignore[attr-defined]


def test_other_settings_are_named_with_those_of_before(scenes, tmp_path, console):
    assert packed(scenes, tmp_path, console)[0].startswith("pack: 2 scenes")
    first, *_, last = packed(scenes, tmp_path, console, max_side=24, shard_mb=1)
    assert first == (
        f"1 finished shard in {tmp_path / 'shards'}; shard_mb=1 (it was packed with 512); "
        "max_side=24 (it was packed with none): shards that come out differently are rewritten"
    )
    assert last.endswith("; 1 rewritten")
    first, *_, last = packed(scenes, tmp_path, console, max_side=24, shard_mb=1)
    assert first.endswith(": what still fits is kept")
    assert last.startswith("nothing to do")


def test_scenes_that_come_and_go_are_named(scenes, tmp_path, console):
    packed(scenes, tmp_path, console)
    first, *_ = packed(scenes, tmp_path, console, scene="room_1")
    assert "1 scene of before left out (synthetic/room_0): shards" in first
    assert [one.id for one in ShardIndex.open(tmp_path / "shards")] == ["synthetic/room_1"]
    first, *_ = packed(scenes, tmp_path, console)
    assert "1 scene more than before (synthetic/room_0): shards" in first


def test_a_pack_that_kept_no_settings_is_packed_as_before(scenes, tmp_path, console):
    packed(scenes, tmp_path, console)
    (tmp_path / "shards" / "settings.json").unlink()
    assert packed(scenes, tmp_path, console, max_side=24)[0].endswith(": what still fits is kept")


@pytest.mark.parametrize("index", [None, {}, {"scenes": 4}, {"scenes": [1, {"id": 2}, {}]}])
def test_an_index_that_says_nothing_changes_nothing(index):
    assert pack_changes(index, None, [], {"max_side": None}) == ""


def test_settings_that_cannot_be_read_are_not_known(scenes, tmp_path, console):
    packed(scenes, tmp_path, console)
    (tmp_path / "shards" / "settings.json").write_bytes(b"[3")
    assert packed(scenes, tmp_path, console)[0].endswith(": what still fits is kept")
    assert packed(scenes, tmp_path, console, max_side=24)[0].endswith("are rewritten")


def test_no_scene_of_that_name(scenes, tmp_path, console):
    with pytest.raises(SelectionError, match="no scene fits 'rom_1'") as caught:
        packed(scenes, tmp_path, console, scene="rom_1")
    assert "room_1" in caught.value.fix
