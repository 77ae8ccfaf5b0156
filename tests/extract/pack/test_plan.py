"""Which view goes into which shard, and when scenes are read."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

from strata.extract import pack_check
from strata.extract.pack import pack_scenes
from strata.extract.pack_members import CheckedScene, CheckedView, Member
from strata.extract.pack_plan import plan_shards
from strata.extract.scenes.scene import Blob, Scene, View
from strata.extract.shards import ShardIndex
from strata.extract.tar_write import END_OF_TAR

from .memory_source import SMALL, MemorySource, five, samples


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
