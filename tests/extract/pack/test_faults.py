"""Scenes that cannot be packed are named, all of them, and commit nothing."""

from __future__ import annotations

import errno
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from strata.errors import DiskFullError, SceneError
from strata.extract.pack import pack_scenes
from strata.extract.pack_folder import ShardFolder
from strata.extract.pack_members import CheckedScene, CheckedView, Member
from strata.extract.pack_plan import plan_shards
from strata.extract.scenes.scene import Blob, Scene, View
from strata.store import atomic

from .memory_source import SMALL, MemorySource, broken_view, contents, depth, five, png, scene, source, view


def test_a_full_disk_leaves_finished_shards_and_no_rest(tmp_path, monkeypatch):
    pack_scenes(five(), tmp_path / "whole", shard_bytes=SMALL)
    calls = []

    def full(handle):
        calls.append(handle)
        if len(calls) > 7:
            raise OSError(errno.ENOSPC, "No space left on device")

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(atomic.os, "fsync", full)
        with pytest.raises(DiskFullError, match="continues with this shard") as caught:
            pack_scenes(five(), out, shard_bytes=SMALL)
    assert "shard-000001" in caught.value.where
    assert sorted(path.name for path in out.iterdir()) == ["shard-000000.json", "shard-000000.tar"]
    assert pack_scenes(five(), out, shard_bytes=SMALL).kept == 1
    assert contents(out) == contents(tmp_path / "whole")


def with_faults() -> MemorySource:
    scenes: dict[str, Scene | str] = {f"made/s{i}": five().scene(f"made/s{i}") for i in range(3)}
    good = scenes["made/s1"]
    assert isinstance(good, Scene)
    views = (good.views[0], broken_view(), replace(broken_view(), name="b"))
    scenes["made/s1"] = replace(good, views=views, covisibility=None)
    return MemorySource({**scenes, "made/lost": "the scene_meta.json is missing."})


def test_broken_scenes_are_all_named_and_nothing_is_committed(tmp_path):
    with pytest.raises(SceneError) as caught:
        pack_scenes(with_faults(), tmp_path, shard_bytes=SMALL)
    message = str(caught.value)
    assert "2 scenes are broken" in message
    assert message.count("made/s1: the picture cannot be decoded.") == 2
    assert "made/lost: the scene_meta.json is missing." in message
    assert "skip_broken=true" in message
    assert not (tmp_path / "index.json").exists()


def test_skip_broken_packs_the_others_as_if_the_broken_were_not_there(tmp_path):
    summary = pack_scenes(with_faults(), tmp_path / "a", shard_bytes=SMALL, skip_broken=True)
    assert [scene.id for scene in summary.broken] == ["made/s1", "made/lost"]
    good = with_faults()
    pack_scenes(source(good.scene("made/s0"), good.scene("made/s2")), tmp_path / "b", shard_bytes=SMALL)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_shards_of_a_refused_run_serve_the_run_that_skips(tmp_path):
    with pytest.raises(SceneError):
        pack_scenes(with_faults(), tmp_path, shard_bytes=SMALL)
    summary = pack_scenes(with_faults(), tmp_path, shard_bytes=SMALL, skip_broken=True)
    assert summary.kept == summary.shards > 0


def test_a_finished_pack_survives_a_run_with_broken_scenes(tmp_path):
    pack_scenes(five(), tmp_path, shard_bytes=SMALL)
    expected = contents(tmp_path)
    with pytest.raises(SceneError):
        pack_scenes(with_faults(), tmp_path, shard_bytes=SMALL)
    assert contents(tmp_path) == expected


def test_only_broken_scenes_are_refused_even_when_skipping(tmp_path):
    with pytest.raises(SceneError, match="1 scene is broken"):
        pack_scenes(MemorySource({"made/x": "gone."}), tmp_path, shard_bytes=SMALL, skip_broken=True)


def test_no_scenes_and_two_scenes_of_one_id_are_refused(tmp_path):
    class Twice(MemorySource):
        def ids(self) -> list[str]:
            return [*self.by_id, *self.by_id]

    with pytest.raises(SceneError, match="scenes share an id: made/a"):
        pack_scenes(Twice({"made/a": scene("a")}), tmp_path, shard_bytes=SMALL)
    with pytest.raises(SceneError, match="no scenes"):
        pack_scenes(MemorySource({}), tmp_path, shard_bytes=SMALL)


BAD = {
    "no views": Scene(id="made/x", views=()),
    "not unique: same": Scene(id="made/x", views=(view(0, "same"), view(1, "same"))),
    "covisibility has shape": replace(scene("x"), covisibility=np.zeros((2, 3), np.float32)),
    "K_px is not a finite": Scene(id="made/x", views=(replace(view(0), K_px=np.full((3, 3), np.nan)),)),
    "world_from_cam is not": Scene(id="made/x", views=(replace(view(0), world_from_cam=np.eye(3)),)),
    "not Unicode": Scene(id="made/x", views=(view(0, "a\udcff"),)),
    "depth is not of the image's size": Scene(id="made/x", views=(replace(view(0), depth=depth(0, 5, 5)),)),
    "file cannot be read": Scene(
        id="made/x", views=(replace(view(0), image=Blob(suffix="png", path=Path("/nowhere.png"))),)
    ),
}


@pytest.mark.parametrize("said", BAD)
def test_every_kind_of_fault_is_named(tmp_path, said):
    with pytest.raises(SceneError) as caught:
        pack_scenes(source(BAD[said]), tmp_path, shard_bytes=SMALL)
    assert said in str(caught.value)


def test_a_broken_file_is_named_by_its_path(tmp_path):
    file = tmp_path / "broken.png"
    file.write_bytes(png(0).read()[:150])
    bad = Scene(id="made/x", views=(View(name="0", image=Blob(suffix="png", path=file)),))
    with pytest.raises(SceneError, match=r"broken\.png"):
        pack_scenes(source(bad), tmp_path / "out", shard_bytes=SMALL)


def test_a_file_that_changes_after_its_check_is_refused(tmp_path):
    file = tmp_path / "0.png"
    file.write_bytes(png(0).read())
    image = Blob(suffix="png", path=file)
    member = Member(blob=image, size=file.stat().st_size, sha256=image.sha256)
    checked = CheckedView(
        view=View(name="0", image=image),
        width=16,
        height=12,
        image_digest="0" * 64,
        geometry_digest="0" * 64,
        image=member,
    )
    about = {"scale_type": None, "rules": 1, "scene_scale_m": None, "covisibility": None}
    (plan,) = plan_shards([CheckedScene(id="made/a", views=(checked,), **about)], SMALL)
    file.write_bytes(png(1).read())
    with ThreadPoolExecutor(1) as pool, pytest.raises(SceneError, match="changed while it was being packed"):
        ShardFolder(tmp_path / "out").put(plan, pool)
    assert list((tmp_path / "out").iterdir()) == []
