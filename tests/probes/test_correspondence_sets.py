"""Which sets can be scored, which pairs are compared in depth, and parts that survive a crash."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from strata.probes.base import Record
from strata.probes.depth_check import covisible_pairs, depth_record
from strata.probes.run_records import Part, part_path, read_part, write_part, write_records
from strata.probes.set_views import PlacedSet, place_sets, read_views
from strata.store.schema import ViewRow, ViewSet

A, B, C, D = (letter * 64 for letter in "abcd")


def block(names: str, images: list[str], missing: tuple[str, ...] = (), **more: Any) -> SimpleNamespace:
    views = [
        ViewRow(name=name, position=i, image_digest=image, geometry_digest=A)
        for i, (name, image) in enumerate(zip(names, images, strict=True))
    ]
    return SimpleNamespace(names=tuple(names), views=tuple(views), missing=dict.fromkeys(missing), **more)


def selection(*blocks: SimpleNamespace) -> Any:
    return SimpleNamespace(
        blocks=lambda: iter(blocks),
        scenes=("set/room",),
        key=SimpleNamespace(context="view"),
        stored_key=SimpleNamespace(patch_size=14, pixels_folder="pixels/crop-p14"),
    )


def view_set(members: str, images: list[str], covisibility: Any = None) -> ViewSet:
    return ViewSet(scene="set/room", members=tuple(members), images=tuple(images), covisibility=covisibility)


def test_sets_are_placed_over_two_blocks():
    part = selection(block("wx", [A, B]), block("y", [C], missing=("z",)))
    whole, short = view_set("ywx", [C, A, B]), view_set("wzy", [A, D, C])
    placed, skipped = place_sets(part, [whole, short])
    assert [one.names for one in placed] == [("y", "w", "x"), ("w", "y")]
    assert [one.dropped for one in placed] == [(), ("z",)]
    assert placed[0].digest == whole.digest[:16]
    assert not skipped


def test_sets_that_cannot_be_scored_are_counted():
    part = selection(block("wx", [A, B], missing=("z",)))
    stale = [view_set("wx", [A, C]), view_set("wv", [A, B])]
    placed, skipped = place_sets(part, [*stale, view_set("wz", [A, D]), view_set("w", [A])])
    assert placed == []
    assert skipped == Counter(
        {
            "stale: it names images that the store does not have": 2,
            "fewer than two of its views have features": 2,
        }
    )


def test_views_are_read_once_per_block():
    part, calls = selection(block("wxy", [A, B, C]), block("z", [D])), []

    def read(of: Any, rows: list[int]) -> list[str]:
        calls.append(rows)
        return [of.names[row].upper() for row in rows]

    assert read_views(part, ["y", "w", "z"], read) == {"w": "W", "y": "Y", "z": "Z"}
    assert calls == [[0, 2], [0]]


def test_covisible_pairs_are_ordered_and_measured_by_what_a_view_shows_itself():
    shares = ((1.0, 0.3, 0.0), (0.1, 0.4, 0.5), (0.39, 0.1, 1.0))
    one = view_set("wxy", [A, B, C], shares)
    whole = PlacedSet(view_set=one, names=("w", "x", "y"))
    assert covisible_pairs([whole, whole]) == [("w", "x"), ("x", "w"), ("x", "y"), ("y", "w")]
    two = PlacedSet(view_set=one, names=("w", "x"), dropped=("y",))
    assert covisible_pairs([two]) == [("w", "x"), ("x", "w")]
    unknown = view_set("wx", [A, B])
    assert covisible_pairs([PlacedSet(view_set=unknown, names=("w", "x"))]) == []


@pytest.mark.parametrize(("shift_m", "expected"), [(0.0, 1.0), (0.5, 0.0)])
def test_depth_agreement_sees_a_wrong_camera(shift_m: float, expected: float):
    """Two cameras before a wall; `shift_m` is what the second one's pose is wrong by, along its axis."""
    K_px = np.array([[20.0, 0, 7.5], [0, 20.0, 5.5], [0, 0, 1]])
    cam_from_world = np.stack([np.eye(4), np.eye(4)])
    cam_from_world[1, 2, 3] = -1 + shift_m
    depth_m = np.stack([np.full((12, 16), 4.0, np.float32), np.full((12, 16), 3.0, np.float32)])
    geometry = SimpleNamespace(
        depth_m=depth_m, valid=depth_m > 0, K_px=np.stack([K_px] * 2), cam_from_world=cam_from_world
    )
    part = selection(block("wx", [A, B], geometry=lambda rows: geometry))
    one = PlacedSet(view_set=view_set("wx", [A, B], ((1.0, 0.9), (0.9, 1.0))), names=("w", "x"))
    record = depth_record(part, [one])
    assert record.unit == "scene"
    assert record.value == expected
    assert record.covariates["pairs"] == 2
    assert record.covariates["compared_px"] > 12 * 16


def test_depth_agreement_without_pairs_says_why():
    part = selection(block("wx", [A, B]))
    record = depth_record(part, [PlacedSet(view_set=view_set("wx", [A, B]), names=("w", "x"))])
    assert record.value is None
    assert record.covariates["reason"] == "no covisible pair of views"


def record(value: float | None) -> Record:
    return Record(
        probe="correspondence",
        protocol="voxel",
        encoder="e",
        key="0" * 12,
        layer="norm",
        dataset="set",
        scene="set/room",
        unit="set",
        set="1" * 16,
        metric="corr",
        value=value,
    )


def test_parts_come_back_while_their_fingerprint_holds(tmp_path: Path):
    path = part_path(tmp_path, "e@0123", "set/a room")
    part = Part(fingerprint="f", records=(record(0.5), record(None)), skipped=Counter({"stale": 2}))
    assert read_part(path, "f") is None
    write_part(path, part)
    assert read_part(path, "f") == part
    assert read_part(path, "g") is None


@pytest.mark.parametrize(
    "damage", ["", "{}", "no json\n", '{"fingerprint": "f", "skipped": {}}\n{"probe": 1}\n']
)
def test_a_damaged_part_is_computed_again(tmp_path: Path, damage: str):
    path = part_path(tmp_path, "e@0123", "set/room")
    path.parent.mkdir(parents=True)
    path.write_text(damage)
    assert read_part(path, "f") is None


def test_scenes_have_paths_of_their_own(tmp_path: Path):
    scenes = ["a.b/c", "a/b.c", "a/b%2Fc", "a/ä c"]
    paths = {part_path(tmp_path, "e@0123", scene) for scene in scenes}
    assert len(paths) == 4
    assert {path.parent for path in paths} == {tmp_path / "parts" / "e@0123"}


def test_records_are_lines(tmp_path: Path):
    write_records(tmp_path, [record(0.25), record(None)])
    lines = (tmp_path / "records.jsonl").read_text().splitlines()
    assert [Record.from_json(line).value for line in lines] == [0.25, None]
