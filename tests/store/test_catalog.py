"""The catalog: current and stale rows, and records that are damaged."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from strata.errors import StoreError
from strata.store.catalog import Catalog, natural
from strata.store.key import digest
from strata.store.schema import SceneViews, ViewRow, make_bundle


def rows(scene: str, count: int, seed: int = 0) -> tuple[ViewRow, ...]:
    return tuple(
        ViewRow(name=f"{p:03d}", position=p, image_digest=digest([scene, p, seed]), geometry_digest=digest(p))
        for p in range(count)
    )


def put(catalog: Catalog, *scenes: tuple[str, int, int]):
    """Write a bundle of (scene, views, generation)."""
    parts = [
        SceneViews(id=s, digest=digest([s, g]), geometry=digest(s), generation=g, views=rows(s, n, g))
        for s, n, g in scenes
    ]
    bundle = make_bundle((4, 6), parts)
    catalog.write(bundle, [view for part in parts for view in part.views])
    return bundle


def test_records_are_read_back(tmp_path):
    made = Catalog(tmp_path)
    bundles = [put(made, ("toy/a", 2, 1), ("toy/b", 3, 1)), put(made, ("toy/c", 1, 1))]
    read = Catalog.read(tmp_path)
    assert list(read.bundles) == sorted(bundle.id for bundle in bundles)
    assert read.bundles == made.bundles
    assert [view.name for view in read.views(bundles[0])] == ["000", "001", "000", "001", "002"]
    assert read.views(bundles[0]) == made.views(bundles[0])
    assert Catalog.read(tmp_path / "none").bundles == {}


def test_only_the_highest_generation_is_current(tmp_path):
    catalog = Catalog(tmp_path)
    put(catalog, ("toy/a", 2, 1), ("toy/b", 2, 1))
    assert catalog.generation("toy/a") == 1
    newer = put(catalog, ("toy/a", 3, 2))
    assert catalog.generation("toy/a") == 2
    assert [(bundle.id, row.stop) for bundle, row in catalog.current("toy/a")] == [(newer.id, 3)]
    assert len(catalog.rows["toy/a"]) == 2
    assert catalog.stale() == ["toy/a"]
    assert catalog.generation("toy/none") == 0
    assert catalog.current("toy/none") == []


def test_views_stand_before_the_record_that_names_them(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(
        "strata.store.catalog.write_document", lambda path, document: written.append(path.name)
    )
    bundle = put(Catalog(tmp_path), ("toy/a", 2, 1))
    assert written == [f"{bundle.id}.views.json", f"{bundle.id}.json"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda record: record.pop("grid"),
        lambda record: record.update(grid=4),
        lambda record: record.update(scenes=None),
        lambda record: record["scenes"][0].pop("digest"),
        lambda record: record["scenes"][0].update(stop=1),
        lambda record: record["scenes"][0].update(id="../../etc"),
        lambda record: record["scenes"].append("toy/b"),
    ],
)
def test_a_damaged_record_is_named(tmp_path, edit):
    bundle = put(Catalog(tmp_path), ("toy/a", 2, 1), ("toy/b", 2, 1))
    path = tmp_path / f"{bundle.id}.json"
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))
    with pytest.raises(StoreError) as caught:
        Catalog.read(tmp_path)
    assert caught.value.where == str(path)
    assert "record of the catalog is damaged" in caught.value.what
    assert "--repair" in caught.value.fix


@pytest.mark.parametrize("text", ["{", "[]", '{"views": [1]}', '{"views": []}', '{"views": null}'])
def test_damaged_views_are_named(tmp_path, text):
    bundle = put(Catalog(tmp_path), ("toy/a", 2, 1))
    path = tmp_path / f"{bundle.id}.views.json"
    path.write_text(text)
    with pytest.raises(StoreError) as caught:
        Catalog.read(tmp_path).views(bundle)
    assert caught.value.where == str(path)
    path.unlink()
    with pytest.raises(StoreError, match="is missing"):
        Catalog.read(tmp_path).views(bundle)


def test_a_record_under_another_name_is_refused(tmp_path):
    bundle = put(Catalog(tmp_path), ("toy/a", 2, 1))
    (tmp_path / f"{bundle.id}.json").rename(tmp_path / "copy.json")
    with pytest.raises(StoreError, match="damaged"):
        Catalog.read(tmp_path)


def test_writing_again_replaces(tmp_path):
    catalog = Catalog(tmp_path)
    bundle = put(catalog, ("toy/a", 2, 1))
    assert catalog.generation("toy/a") == 1
    row = replace(bundle.scenes[0], generation=5)
    catalog.write(replace(bundle, scenes=(row,)), catalog.views(bundle))
    assert catalog.generation("toy/a") == Catalog.read(tmp_path).generation("toy/a") == 5


def test_natural_order():
    names = ["s10", "s9", "s", "S1", "s9b", "10", "9", "²", "s01x"]
    assert sorted(names, key=natural) == ["9", "10", "S1", "s", "s01x", "s9", "s9b", "s10", "²"]


def test_scenes_by_id_by_name_and_by_glob(tmp_path):
    catalog = Catalog(tmp_path)
    put(catalog, ("toy/s10", 1, 1), ("toy/s9", 1, 1), ("other/s9", 1, 1), ("toy/[x]", 1, 1))
    assert catalog.scene_ids() == ["other/s9", "toy/[x]", "toy/s9", "toy/s10"]
    assert catalog.scene_ids("toy/s9") == ["toy/s9"]
    assert catalog.scene_ids("s9") == ["other/s9", "toy/s9"]
    assert catalog.scene_ids("toy/s*") == ["toy/s9", "toy/s10"]
    assert catalog.scene_ids("s?") == ["other/s9", "toy/s9"]
    assert catalog.scene_ids("[[]x]") == ["toy/[x]"]
    assert catalog.scene_ids("toy") == catalog.scene_ids("S9") == []
    put(catalog, ("new/s9", 1, 1))
    assert catalog.scene_ids("s9") == ["new/s9", "other/s9", "toy/s9"]


def test_views_of_one_scene_are_parsed_alone(tmp_path):
    bundle = put(Catalog(tmp_path), ("toy/a", 2, 1), ("toy/b", 3, 1))
    whole, path = Catalog.read(tmp_path).views(bundle), tmp_path / f"{bundle.id}.views.json"
    document = json.loads(path.read_text())
    document["views"][4]["image_digest"] = "no digest"
    path.write_text(json.dumps(document))
    catalog, (a, b) = Catalog.read(tmp_path), bundle.scenes
    assert catalog.scene_views(bundle, a) == whole[:2]
    for read in (lambda: catalog.scene_views(bundle, b), lambda: catalog.views(bundle)):
        with pytest.raises(StoreError) as caught:
            read()
        assert caught.value.where == str(path)
