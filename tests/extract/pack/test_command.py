"""The command `pack`: what it says, and how it ends."""

from __future__ import annotations

import pytest
from strata.configs.schema import PackConfig
from strata.errors import ConfigError
from strata.extract.pack import pack
from strata.extract.shards import ShardIndex

from .memory_source import png


def test_the_command_packs_says_so_and_continues(tmp_path, console):
    images = tmp_path / "photos" / "garden"
    images.mkdir(parents=True)
    for i in range(3):
        (images / f"{i}.png").write_bytes(png(i).read())
    config = PackConfig(scenes=str(tmp_path / "photos"), out=str(tmp_path / "out"), shard_mb=1)
    assert pack(config, console) == 0
    assert pack(config, console) == 0
    said = console.file.getvalue()
    assert "packed 1 scene, 3 views, 1 shard" in said
    assert "nothing to do" in said
    assert "1 finished shard in" in said
    assert [v.name for v in ShardIndex.open(tmp_path / "out").scenes[0].views] == ["0", "1", "2"]


def test_the_command_exits_1_when_scenes_were_left_out(tmp_path, console):
    for name in ("good", "bad"):
        (tmp_path / "photos" / name).mkdir(parents=True)
        data = png(1).read()
        (tmp_path / "photos" / name / "0.png").write_bytes(data if name == "good" else data[:200])
    config = PackConfig(scenes=str(tmp_path / "photos"), out=str(tmp_path / "out"), skip_broken=True)
    assert pack(config, console) == 1
    assert "photos/bad: the picture cannot be decoded" in console.file.getvalue()
    assert [scene.id for scene in ShardIndex.open(tmp_path / "out").scenes] == ["photos/good"]


def test_the_command_refuses_a_shard_size_of_nothing(tmp_path, console):
    with pytest.raises(ConfigError, match="shard_mb=0"):
        pack(PackConfig(scenes=str(tmp_path), out=str(tmp_path / "out"), shard_mb=0), console)
