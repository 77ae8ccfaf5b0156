"""Packing that is stopped, started again, and run over scenes that changed: always the same bytes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from strata.extract import pack_check, pack_folder
from strata.extract.pack import pack_scenes
from strata.extract.shards import ShardIndex

from .memory_source import SMALL, MemorySource, StopError, contents, depth, five, png, scene, source, stopping


def test_two_packs_of_one_source_are_equal_byte_for_byte(tmp_path):
    first = pack_scenes(five(), tmp_path / "a", shard_bytes=SMALL)
    pack_scenes(five(), tmp_path / "b", shard_bytes=SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert (first.scenes, first.views, first.kept, first.written) == (5, 14, 0, True)


def test_stopped_after_any_file_and_started_again_gives_the_same_bytes(tmp_path, monkeypatch):
    whole = pack_scenes(five(), tmp_path / "whole", shard_bytes=SMALL)
    expected = contents(tmp_path / "whole")
    for after in range(1, len(expected)):
        out = tmp_path / str(after)
        with monkeypatch.context() as patch:
            stopping(patch, after)
            with pytest.raises(StopError):
                pack_scenes(five(), out, shard_bytes=SMALL)
        assert not (out / "index.json").exists()
        summary = pack_scenes(five(), out, shard_bytes=SMALL)
        assert summary.kept == after // 2
        assert replace(summary, kept=0) == whole
        assert contents(out) == expected


def test_stopped_in_the_middle_of_a_shard_leaves_only_whole_ones(tmp_path, monkeypatch):
    pack_scenes(five(), tmp_path / "whole", shard_bytes=SMALL)
    read, calls = pack_folder._unchanged, []

    def dying(member):
        calls.append(member)
        if len(calls) == 20:
            raise StopError
        return read(member)

    with monkeypatch.context() as patch:
        patch.setattr(pack_folder, "_unchanged", dying)
        with pytest.raises(StopError):
            pack_scenes(five(), tmp_path / "cut", shard_bytes=SMALL)
    assert len(list((tmp_path / "cut").glob("*.tar"))) == len(list((tmp_path / "cut").glob("shard-*.json")))
    pack_scenes(five(), tmp_path / "cut", shard_bytes=SMALL)
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


def test_a_finished_pack_is_left_alone_and_nothing_is_decoded_again(tmp_path, monkeypatch):
    shards = pack_scenes(five(), tmp_path, shard_bytes=SMALL).shards
    before = {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}
    monkeypatch.setattr(pack_check, "decode_view", lambda view: pytest.fail("decoded again"))
    summary = pack_scenes(five(), tmp_path, shard_bytes=SMALL)
    assert (summary.written, summary.kept) == (False, shards)
    assert before == {path.name: (path.stat().st_ino, path.stat().st_mtime_ns) for path in tmp_path.iterdir()}


def changed() -> list[MemorySource]:
    scenes = [five().scene(scene_id) for scene_id in five().ids()]
    views = scenes[2].views
    other_image = replace(scenes[2], views=(*views[:4], replace(views[4], image=png(999)), *views[5:]))
    other_depth = replace(scenes[2], views=(*views[:-1], replace(views[-1], depth=depth(999))))
    other_pair = replace(scenes[3], covisibility=np.zeros((2, 2), np.float32))
    return [
        source(*scenes[:2], other_image, *scenes[3:]),
        source(*scenes[:2], other_depth, *scenes[3:]),
        source(*scenes[:3], other_pair, scenes[4]),
        source(*scenes[:2], *scenes[3:]),
        source(*scenes[:1]),
        source(*scenes[::-1]),
        source(*scenes, scene("new", 9)),
    ]


@pytest.mark.parametrize(
    "new", changed(), ids=["image", "depth", "covisibility", "removed", "one", "order", "added"]
)
def test_changed_scenes_replace_the_old_pack_and_no_stop_leaves_a_false_index(tmp_path, monkeypatch, new):
    pack_scenes(new, tmp_path / "fresh", shard_bytes=SMALL)
    expected = contents(tmp_path / "fresh")
    for after in (1, 2, 3, 99):
        out = tmp_path / str(after)
        pack_scenes(five(), out, shard_bytes=SMALL)
        with monkeypatch.context() as patch:
            stopping(patch, after)
            try:
                pack_scenes(new, out, shard_bytes=SMALL)
            except StopError:
                if (out / "index.json").exists():
                    ShardIndex.open(out).verify()
        pack_scenes(new, out, shard_bytes=SMALL)
        assert contents(out) == expected
        ShardIndex.open(out).verify()


def test_going_back_to_the_old_scenes_after_a_stop_gives_the_old_pack(tmp_path, monkeypatch):
    pack_scenes(five(), tmp_path / "old", shard_bytes=SMALL)
    for after in range(1, 6):
        out = tmp_path / str(after)
        pack_scenes(five(), out, shard_bytes=SMALL)
        with monkeypatch.context() as patch:
            stopping(patch, after)
            with pytest.raises(StopError):
                pack_scenes(changed()[1], out, shard_bytes=SMALL)
        pack_scenes(five(), out, shard_bytes=SMALL)
        assert contents(out) == contents(tmp_path / "old")


def test_one_changed_depth_is_decoded_with_its_scene_and_the_scale_follows(tmp_path):
    pack_scenes(five(), tmp_path, shard_bytes=SMALL)
    before = ShardIndex.open(tmp_path)
    summary = pack_scenes(changed()[1], tmp_path, shard_bytes=SMALL)
    after = ShardIndex.open(tmp_path)
    assert 0 < summary.kept < summary.shards
    assert after.scene("made/s2").scene_scale_m != before.scene("made/s2").scene_scale_m
    assert after.scene("made/s2").digest == before.scene("made/s2").digest
    assert after.digest != before.digest


def test_another_shard_size_replaces_all(tmp_path):
    pack_scenes(five(), tmp_path / "out", shard_bytes=SMALL)
    pack_scenes(five(), tmp_path / "out", shard_bytes=10 * SMALL)
    pack_scenes(five(), tmp_path / "fresh", shard_bytes=10 * SMALL)
    assert contents(tmp_path / "out") == contents(tmp_path / "fresh")


def test_a_shard_that_was_cut_is_written_again(tmp_path):
    pack_scenes(five(), tmp_path, shard_bytes=SMALL)
    expected = contents(tmp_path)
    cut = tmp_path / "shard-000001.tar"
    cut.write_bytes(cut.read_bytes()[:5000])
    pack_scenes(five(), tmp_path, shard_bytes=SMALL)
    assert contents(tmp_path) == expected
