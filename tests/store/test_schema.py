"""Values of the catalog: ids against an independent computation, and what is refused on reading."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace

import pytest
from strata.errors import StoreError
from strata.store.record_fields import check_scene_id
from strata.store.schema import (
    Bundle,
    SceneRow,
    SceneViews,
    SetRow,
    ViewRow,
    ViewSet,
    make_bundle,
    scene_digest,
    scene_geometry,
)
from strata.store.split_lists import Split


def sha(value) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def view(scene: str, position: int) -> ViewRow:
    image, geometry = sha([scene, position]), sha([scene, position, "geometry"])
    return ViewRow(name=f"{position:03d}", position=position, image_digest=image, geometry_digest=geometry)


def scene_views(scene: str, positions: list[int], generation: int = 1) -> SceneViews:
    views = tuple(view(scene, p) for p in positions)
    return SceneViews(
        id=scene,
        digest=scene_digest([(v.name, v.image_digest) for v in views]),
        geometry=scene_geometry([v.geometry_digest for v in views]),
        generation=generation,
        views=views,
    )


SCENES = [scene_views("toy/a", [0, 2]), scene_views("toy/b", [0, 1, 2], generation=3)]


def test_ids_and_folders_are_those_of_the_format():
    bundle = make_bundle((4, 6), SCENES)
    rows = [[s.id, v.position, v.image_digest] for s in SCENES for v in s.views]
    assert bundle.id == sha({"grid": [4, 6], "rows": rows})[:16] == "106bc1fbe3510e88"
    assert bundle.geometry == sha([s.geometry for s in SCENES])[:8]
    assert bundle.folder == f"toy.a+1@{bundle.id}"
    assert bundle.geometry_folder == f"toy.a+1@{bundle.id}-{bundle.geometry}"
    assert [(r.start, r.stop, r.generation) for r in bundle.scenes] == [(0, 2, 1), (2, 5, 3)]
    assert len(bundle) == 5
    sets = (SetRow(digest=sha("set"), start=0, stop=2),)
    assert (
        make_bundle((4, 6), SCENES, sets).id
        == sha({"grid": [4, 6], "rows": rows, "sets": [sets[0].digest]})[:16]
    )


def test_the_id_covers_images_and_the_geometry_covers_geometry():
    bundle = make_bundle((4, 6), SCENES)
    mended = bundle.with_versions({("toy/b", SCENES[1].digest): (sha("mended"), 4)})
    assert mended.id == bundle.id
    assert mended.geometry != bundle.geometry
    assert [row.generation for row in mended.scenes] == [1, 4]
    assert bundle.with_versions({("toy/b", sha("other")): (sha("mended"), 4)}) == bundle
    assert make_bundle((6, 4), SCENES).id != bundle.id
    assert make_bundle((4, 6), SCENES[::-1]).id != bundle.id


def test_records_come_back():
    bundle = make_bundle((4, 6), SCENES)
    assert Bundle.from_dict(bundle.id, json.loads(json.dumps(bundle.to_dict()))) == bundle
    sets = tuple(SetRow(digest=sha(k), start=k, stop=k + 1) for k in range(5))
    of_sets = make_bundle((4, 6), SCENES, sets)
    assert Bundle.from_dict(of_sets.id, json.loads(json.dumps(of_sets.to_dict()))) == of_sets
    assert (bundle.together, of_sets.together) == (1, 1)
    row = view("toy/a", 3)
    assert ViewRow.from_dict(json.loads(json.dumps(row.to_dict()))) == row


@pytest.mark.parametrize("runs", [[(0, 2)], [(0, 2), (2, 5)], [(1, 5)], [(0, 1), (2, 3)]])
def test_sets_are_whole_and_of_one_size(runs):
    rows = tuple(SetRow(digest=sha("set"), start=start, stop=stop) for start, stop in runs)
    bundle = make_bundle((4, 6), SCENES, rows)
    with pytest.raises(ValueError, match="sets"):
        Bundle.from_dict(bundle.id, bundle.to_dict())


@pytest.mark.parametrize(
    "change",
    [
        {"start": 2},
        {"stop": 0},
        {"stop": 4097},
        {"start": -1},
        {"generation": 0},
        {"stop": "2"},
        {"stop": 1.5},
        {"digest": "xyz"},
        {"geometry": None},
        {"digest": sha("x").upper()},
    ],
    ids=str,
)
def test_malformed_rows_of_scenes_are_refused(change):
    row = make_bundle((4, 6), SCENES).scenes[0].to_dict()
    assert SceneRow.from_dict(row).stop == 2
    with pytest.raises(ValueError, match=r"\w"):
        SceneRow.from_dict({**row, **change})


@pytest.mark.parametrize("change", [{"position": -1}, {"position": "0"}, {"image_digest": "00"}], ids=str)
def test_malformed_views_are_refused(change):
    with pytest.raises(ValueError, match=r"\w"):
        ViewRow.from_dict({**view("toy/a", 0).to_dict(), **change})


def test_bundles_whose_rows_leave_gaps_are_refused():
    record = make_bundle((4, 6), SCENES).to_dict()
    record["scenes"][1] = {**record["scenes"][1], "start": 3}
    with pytest.raises(ValueError, match="do not follow"):
        Bundle.from_dict("0" * 16, record)
    with pytest.raises(ValueError, match="do not follow"):
        Bundle.from_dict("0" * 16, {**record, "scenes": []})
    with pytest.raises(ValueError, match="16 hex digits"):
        Bundle.from_dict("../../etc", record)
    with pytest.raises(ValueError, match="whole number"):
        Bundle.from_dict("0" * 16, {**record, "grid": [0, 6]})


@pytest.mark.parametrize(
    "scene_id",
    ["toy", "toy/", "/a", "../a", "toy/..", "./a", "toy/a/b", "toy/a\\b", "toy/a\n", "toy/\x00", "", 7, None],
    ids=repr,
)
def test_scene_ids_that_lead_out_of_a_folder_are_refused(scene_id):
    with pytest.raises(StoreError, match="is not a scene id"):
        check_scene_id(scene_id)


@pytest.mark.parametrize("scene_id", ["toy/a", "eth3d/courtyard 2", "d/.hidden", "d/été", "d/a..b"])
def test_scene_ids(scene_id):
    assert check_scene_id(scene_id) == scene_id


def test_a_set_is_what_its_members_are():
    made = ViewSet(
        scene="toy/a", members=("1", "0"), images=(sha(1), sha(0)), covisibility=((1, 0.5), (0.5, 1))
    )
    assert made.digest == sha(["toy/a", [["1", sha(1)], ["0", sha(0)]]])
    assert ViewSet.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    turned = replace(made, members=("0", "1"), images=(sha(0), sha(1)))
    assert turned.digest != made.digest
    with pytest.raises(ValueError, match="not that of its members"):
        ViewSet.from_dict({**made.to_dict(), "members": ["1", "2"]})
    with pytest.raises(ValueError, match="as many image digests"):
        ViewSet.from_dict({**made.to_dict(), "images": [sha(1)]})


def test_a_split_comes_back():
    split = Split(name="test/toy", scenes=("toy/a", "toy/b"))
    assert Split.from_dict(split.to_dict()) == split
    with pytest.raises(StoreError):
        Split.from_dict({**split.to_dict(), "scenes": ["../a"]})


ROW = {"id": "toy/a", "digest": "1" * 64, "geometry": "2" * 64, "generation": 1, "start": 0, "stop": 2}


@pytest.mark.parametrize("more", [{}, {"later": "field"}], ids=str)
def test_rows_read_together_are_those_read_one_by_one(more):
    rows = [{**ROW, "id": f"toy/{i}", "start": i, "stop": i + 1, **more} for i in range(5)]
    together = SceneRow.from_dicts(rows)
    assert together == tuple(map(SceneRow.from_dict, rows))
    assert [hash(row) for row in together] == [hash(SceneRow.from_dict(row)) for row in rows]
    assert together[0].to_dict() == {name: value for name, value in rows[0].items() if name != "later"}
    assert SceneRow.from_dicts([]) == ()


@pytest.mark.parametrize(
    "bad",
    [
        {"id": "toy/.."},
        {"id": "toy/a\ntoy/b"},
        {"id": 7},
        {"digest": "1" * 63},
        {"digest": "1" * 63 + "G"},
        {"geometry": "2" * 65},
        {"generation": 0},
        {"generation": True},
        {"start": -1},
        {"start": 2},
        {"stop": 2.0},
        {"stop": 5000},
    ],
    ids=str,
)
def test_one_bad_row_of_many_is_refused(bad):
    with pytest.raises((StoreError, ValueError)):
        SceneRow.from_dicts([ROW, {**ROW, **bad}, ROW])
