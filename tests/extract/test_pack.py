"""Packing: what is in the shards, that bytes are the same however often a run was stopped, and faults."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import tarfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from strata.configs.schema import PackConfig
from strata.errors import ConfigError, DiskFullError, SceneError
from strata.extract import pack_check, pack_folder
from strata.extract.pack import pack, pack_scenes
from strata.extract.pack_folder import ShardFolder
from strata.extract.pack_members import CheckedScene, CheckedView, Member, escaped
from strata.extract.pack_plan import plan_shards
from strata.extract.scenes.decode import decode_view
from strata.extract.scenes.exr import write_exr
from strata.extract.scenes.scene import Blob, Scene, SceneSource, View
from strata.extract.scenes.synthetic import SyntheticSource
from strata.extract.shards import ShardIndex
from strata.extract.tar_write import END_OF_TAR, tar_chunks, tar_layout
from strata.store import atomic
from webdataset.compat import WebDataset

SMALL = 20_000


class MemorySource(SceneSource):
    """Scenes that are given; a string in place of a scene is the error that reading it raises."""

    def __init__(self, scenes: dict[str, Scene | str], splits: dict[str, tuple[str, ...]] | None = None):
        self.by_id, self.lists = scenes, splits or {}

    def ids(self) -> list[str]:
        return list(self.by_id)

    def scene(self, scene_id: str) -> Scene:
        scene = self.by_id[scene_id]
        if isinstance(scene, str):
            raise SceneError(scene, where=scene_id)
        return scene

    def splits(self) -> dict[str, tuple[str, ...]]:
        return self.lists


def png(seed: int, width: int = 16, height: int = 12, mode: str = "RGB") -> Blob:
    channels = {"RGB": (3,), "L": ()}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, *channels), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return Blob(suffix="png", data=file.getvalue())


def depth(seed: int, width: int = 16, height: int = 12) -> Blob:
    values = np.random.default_rng(seed).uniform(-1, 4, (height, width)).astype(np.float32)
    return Blob(suffix="exr", data=write_exr(values, half=False))


def view(seed: int, name: str | None = None) -> View:
    return View(
        name=name or f"frame.{seed:03d}",
        image=png(seed),
        depth=depth(seed),
        K_px=np.array([[20, 0, 8.3], [0, 21, 6.7], [0, 0, 1]]) + seed / 7,
        world_from_cam=np.eye(4),
    )


def scene(name: str, seed: int = 0, views: int = 3) -> Scene:
    return Scene(
        id=f"made/{name}",
        views=tuple(view(100 * seed + i) for i in range(views)),
        covisibility=np.random.default_rng(seed).random((views, views), np.float32),
        scale_type="metric",
    )


def source(*scenes: Scene, splits: dict[str, tuple[str, ...]] | None = None) -> MemorySource:
    return MemorySource({scene.id: scene for scene in scenes}, splits)


def five() -> MemorySource:
    return source(*(scene(f"s{i}", i, views=2 + 4 * (i == 2)) for i in range(5)))


def broken_view() -> View:
    return replace(view(7), image=Blob(suffix="png", data=png(7).read()[:200]))


def depths_of(view: View) -> np.ndarray:
    depth_m = decode_view(view).depth_m
    assert depth_m is not None
    return depth_m[depth_m > 0]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def samples(folder: Path) -> dict[str, dict]:
    urls = [str(path) for path in sorted(folder.glob("*.tar"))]
    return {sample["__key__"]: sample for sample in WebDataset(urls, shardshuffle=False)}


@pytest.fixture(autouse=True)
def _no_waiting_for_the_disk(monkeypatch):
    monkeypatch.setattr(atomic.os, "fsync", lambda handle: None)


class StopError(BaseException):
    """A kill: nothing of ours catches it."""


def stopping(monkeypatch: pytest.MonkeyPatch, after: int) -> None:
    """The process dies right after the `after`-th file is in place."""
    written = []

    def write(path, parts):
        atomic.write_atomic(path, parts)
        written.append(path)
        if len(written) == after:
            raise StopError

    monkeypatch.setattr(pack_folder, "write_atomic", write)


# What is in the shards.


def test_plain_webdataset_finds_every_view_with_its_bytes_untouched(tmp_path):
    room = SyntheticSource(scenes=2, views=3, width=32, height=24)
    pack_scenes(room, tmp_path, shard_bytes=10 * SMALL)
    found = samples(tmp_path)
    for scene_id in room.ids():
        original = room.scene(scene_id)
        for position, view in enumerate(original.views):
            sample = found.pop(f"{scene_id}/{position:06d}-{view.name}")
            assert sample["image.png"] == view.image.read()
            assert view.depth is not None
            assert sample["depth.exr"] == view.depth.read()
            camera = json.loads(sample["camera.json"])
            np.testing.assert_array_equal(camera["K_px"], view.K_px)
            np.testing.assert_array_equal(camera["world_from_cam"], view.world_from_cam)
            assert camera["image_digest"] == view.image_digest
            assert camera["geometry_digest"] == view.geometry_digest("metric", 1)
            decoded = decode_view(view)
            assert (camera["width"], camera["height"]) == (decoded.width, decoded.height)
    assert set(found) == {f"{scene_id}/scene-0000" for scene_id in room.ids()}
    header = found["synthetic/room_0/scene-0000"]
    about = json.loads(header["scene.json"])
    assert about["frames"] == ["0000", "0001", "0002"]
    assert (about["part"], about["parts"], about["scale_type"]) == (0, 1, "metric")
    stored = np.load(io.BytesIO(header["covisibility.npy"]))
    np.testing.assert_array_equal(stored, room.scene("synthetic/room_0").covisibility)


NAMES = ["a.b.c", "x/y", "größe 1", "視点", "__meta__", "100%", "-", "_", ".hidden", "n" * 150]


def test_any_name_becomes_one_sample_and_comes_back(tmp_path):
    hard = Scene(id="__da.ta__/sc.ene ü", views=tuple(view(i, name) for i, name in enumerate(NAMES)))
    pack_scenes(source(hard), tmp_path, shard_bytes=10 * SMALL)
    found = samples(tmp_path)
    assert len(found) == len(NAMES) + 1
    assert {json.loads(s["camera.json"])["name"] for s in found.values() if "camera.json" in s} == set(NAMES)
    assert all(s["image.png"] for s in found.values() if "camera.json" in s)
    assert [v.name for v in ShardIndex.open(tmp_path).scenes[0].views] == NAMES
    with tarfile.open(tmp_path / "shard-000000.tar") as tar:
        assert all(name.isascii() for name in tar.getnames())


def test_escaped_names_are_distinct_and_plain():
    names = [*NAMES, "a%2Eb", "a.b", "%5F_meta__", "A", "a"]
    assert len({escaped(name) for name in names}) == len(names)
    assert escaped("DSC_0286") == "DSC_0286"
    assert escaped("a.b/ü") == "a%2Eb%2F%C3%BC"


def test_masks_orientation_and_missing_parts_are_kept(tmp_path):
    mask = replace(png(3, mode="L"), suffix="png")
    turned = View(name="turned", image=png(1), orientation=6)
    masked = replace(view(2), masks={"moge2.mask": mask, "sky": png(4, mode="L")})
    pack_scenes(source(Scene(id="made/mixed", views=(turned, masked))), tmp_path, shard_bytes=SMALL)
    found = samples(tmp_path)
    first, second = found["made/mixed/000000-turned"], found["made/mixed/000001-frame%2E002"]
    camera = json.loads(first["camera.json"])
    assert (camera["width"], camera["height"], camera["orientation"]) == (12, 16, 6)
    assert camera["K_px"] is None
    assert "depth.exr" not in first
    assert second["mask_moge2%2emask.png"] == mask.read()  # webdataset writes suffixes small
    assert "covisibility.npy" not in found["made/mixed/scene-0000"]
    other_order = replace(masked, masks=dict(reversed(masked.masks.items())))
    again = source(Scene(id="made/mixed", views=(turned, other_order)))
    assert not pack_scenes(again, tmp_path, shard_bytes=SMALL).written


def test_tar_bytes_are_pinned():
    # Fixed for good: other bytes here would make every pack look changed.
    members = [("a/b.c", b"hello"), ("n" * 120 + ".json", b"{}")]
    data = b"".join(tar_chunks(members))
    assert hashlib.sha256(data).hexdigest() == PINNED
    offsets, size = tar_layout((name, len(content)) for name, content in members)
    assert size == len(data)
    assert all(data[offsets[name] :].startswith(content) for name, content in members)
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        assert [(m.name, m.mode, m.mtime, m.uid, m.uname) for m in tar] == [
            (name, 0o644, 0, 0, "") for name, _ in members
        ]


PINNED = "1cce394215797e76f8e46d49adc60c7b90763c5b43e0b5b97758714611411ad7"


# The scale of a scene.


def test_scale_is_the_median_of_all_valid_depths(tmp_path):
    mask = Image.new("L", (16, 12), 255)
    mask.paste(0, (0, 0, 5, 12))
    file = io.BytesIO()
    mask.save(file, "PNG")
    masked = replace(view(1), masks={"m": Blob(suffix="png", data=file.getvalue())})
    made = Scene(id="made/a", views=(view(0), masked, View(name="bare", image=png(2))))
    pack_scenes(source(made), tmp_path, shard_bytes=SMALL)
    expected = np.median(np.concatenate([depths_of(v) for v in made.views[:2]]).astype(np.float64))
    assert ShardIndex.open(tmp_path).scenes[0].scene_scale_m == expected


def test_scale_without_depth_is_none(tmp_path):
    pack_scenes(
        source(Scene(id="made/a", views=(View(name="0", image=png(0)),))), tmp_path, shard_bytes=SMALL
    )
    assert ShardIndex.open(tmp_path).scenes[0].scene_scale_m is None


def test_scale_of_a_giant_scene_takes_equal_shares_of_its_views(tmp_path, monkeypatch):
    monkeypatch.setattr(pack_check, "SCENE_DEPTHS", 60)
    made = scene("giant", views=3)
    pack_scenes(source(made), tmp_path, shard_bytes=SMALL)
    shares = []
    for v in made.views:
        values = depths_of(v)
        shares.append(values[:: -(-len(values) // 20)])
        assert 10 < len(shares[-1]) <= 20
    scale = ShardIndex.open(tmp_path).scenes[0].scene_scale_m
    assert scale == pytest.approx(np.median(np.concatenate(shares)), rel=1e-6)


# Which view goes into which shard.


def planned(sizes: dict[str, list[int]], shard_bytes: int) -> list[list[tuple[str, int, int, int, int]]]:
    """Views of that many bytes in each scene -> (scene, part, parts, start, stop) of each shard."""
    scenes = [
        CheckedScene(
            id=f"made/{name}",
            scale_type=None,
            rules=1,
            scene_scale_m=None,
            covisibility=None,
            views=tuple(
                CheckedView(
                    view=View(name=str(i), image=Blob(suffix="png", data=b"")),
                    width=1,
                    height=1,
                    image_digest="0" * 64,
                    geometry_digest="0" * 64,
                    image=Member(blob=Blob(suffix="png", data=b""), size=size, sha256=""),
                )
                for i, size in enumerate(views)
            ),
        )
        for name, views in sizes.items()
    ]
    return [
        [(part.scene.id[5:], part.number, part.count, part.start, part.stop) for part in shard.parts]
        for shard in plan_shards(scenes, shard_bytes)
    ]


def test_small_scenes_share_a_shard_and_stay_whole():
    shards = planned({f"scene{i}": [1000, 1000] for i in range(5)}, 15_000)
    assert shards == [
        [("scene0", 0, 1, 0, 2), ("scene1", 0, 1, 0, 2)],
        [("scene2", 0, 1, 0, 2), ("scene3", 0, 1, 0, 2)],
        [("scene4", 0, 1, 0, 2)],
    ]


def test_a_large_scene_spans_shards_in_parts():
    shards = planned({"a": [100], "big": [3000] * 7, "z": [100]}, 15_000)
    assert shards == [
        [("a", 0, 1, 0, 1)],
        [("big", 0, 3, 0, 3)],
        [("big", 1, 3, 3, 6)],
        [("big", 2, 3, 6, 7), ("z", 0, 1, 0, 1)],
    ]


def test_a_view_larger_than_a_shard_has_a_shard_of_its_own():
    shards = planned({"a": [100, 50_000, 100]}, 10_000)
    assert [[part[3:] for part in shard] for shard in shards] == [[(0, 1)], [(1, 2)], [(2, 3)]]


def test_shards_come_as_soon_as_they_are_known():
    asked = []

    def scenes():
        for i in range(4):
            asked.append(i)
            yield CheckedScene(
                id=f"made/{i}", scale_type=None, rules=1, scene_scale_m=None, covisibility=None, views=()
            )

    next(plan_shards(scenes(), 1))
    assert asked == [0, 1]


def test_shards_are_not_larger_than_asked_and_parts_are_told(tmp_path):
    pack_scenes(five(), tmp_path, shard_bytes=SMALL)
    assert len(list(tmp_path.glob("*.tar"))) >= 3
    assert all(path.stat().st_size <= SMALL + len(END_OF_TAR) for path in tmp_path.glob("*.tar"))
    headers = {key: json.loads(s["scene.json"]) for key, s in samples(tmp_path).items() if "scene.json" in s}
    parts = [h["part"] for key, h in headers.items() if key.startswith("made/s2/")]
    assert parts == list(range(headers["made/s2/scene-0000"]["parts"]))
    assert len(parts) >= 2
    assert [v.name for v in ShardIndex.open(tmp_path).scene("made/s2").views] == [
        v.name for v in five().scene("made/s2").views
    ]


# Stopped, started again, and run once more.


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


def test_splits_keep_the_scenes_that_were_packed(tmp_path):
    lists = {"test/made": ("made/a", "made/gone"), "train/made": ("made/gone",)}
    pack_scenes(source(scene("a"), splits=lists), tmp_path, shard_bytes=SMALL)
    assert ShardIndex.open(tmp_path).splits == {"test/made": ("made/a",)}
    assert pack_scenes(source(scene("a")), tmp_path, shard_bytes=SMALL).written
    assert ShardIndex.open(tmp_path).splits == {}


def test_scenes_are_read_ahead_by_a_number_of_views(monkeypatch):
    monkeypatch.setattr(pack_check, "AHEAD_VIEWS", 4)
    asked = []

    class Asked(MemorySource):
        def scene(self, scene_id: str) -> Scene:
            asked.append(scene_id)
            return super().scene(scene_id)

    scenes = Asked(five().by_id)
    with ThreadPoolExecutor(2) as pool:
        checked = pack_check.check_scenes(scenes, scenes.ids(), {}, pool)
        assert [next(checked).id, len(asked)] == ["made/s0", 3]  # s0 before 2 and 6 views
        assert [next(checked).id, len(asked)] == ["made/s1", 3]
        assert [scene.id for scene in checked] == ["made/s2", "made/s3", "made/s4"]


# Faults.


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


# The command.


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
