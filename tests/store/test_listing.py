"""`strata store ls` and `info`: what is said, also of stores in a sorry state."""

from __future__ import annotations

import json

import pytest
from strata.configs.schema import ListConfig
from strata.store.feature_store import FeatureStore
from strata.store.listing import info, ls


def said(command, pipeline, console) -> str:
    assert command(str(pipeline.root), console) == 0
    return console.file.getvalue()


def test_ls_is_one_row_a_key(filled, console):
    text = said(ls, filled, console)
    row = next(line for line in text.splitlines() if line.startswith("colour@"))
    assert "block0, norm" in row
    assert row.split()[-5:] == ["2", "6", "4x6", "0.0", "MB"]
    assert "2 scenes in 1 bundle" in text


def test_info_says_everything(filled, console):
    filled.change("b", lambda views: views[:2])
    filled.extract()
    text = said(info, filled, console)
    assert '"encoder":"colour"' in text
    assert "patch 4, 2 blocks" in text
    assert "block0 3 f16" in text
    assert "5 of 2 scenes" in text
    assert "toy/b: generation 2 is current" in text
    assert "test/toy" in text
    assert "walk-4x20@" in text
    assert "device cpu" in text
    size = sum(path.stat().st_size for path in filled.root.rglob("*") if path.is_file())
    assert f"{size:,} bytes" in text


@pytest.mark.parametrize("command", [ls, info])
def test_a_key_without_current_views_does_not_hide_the_others(filled, colour, console, command):
    filled.change("a", lambda views: views[:2])
    filled.change("b", lambda views: views[:2])
    filled.extract(colour(frozenset({"token_point_world"})), storage="f16")
    text = said(command, filled, console)
    assert "colour@" in text
    assert "points@" in text
    assert "changed since" in text


def test_an_empty_store(tmp_path, console):
    from strata.store.feature_store import FeatureStore

    FeatureStore.create(tmp_path / "s")
    assert ls(str(tmp_path / "s"), console) == 0
    assert "no features yet" in console.file.getvalue()


@pytest.mark.parametrize(
    ("words", "views"),
    [
        ({}, {"colour": 9, "points": 3}),
        ({"encoder": "col*"}, {"colour": 9}),
        ({"encoder": "points@*"}, {"points": 3}),
        ({"scene": "toy/b"}, {"colour": 3}),
        ({"dataset": "toys"}, {}),
        ({"layer": "norm"}, {"colour": 9}),
        ({"layer": "block1", "dataset": "toy"}, {"points": 3}),
    ],
    ids=str,
)
def test_ls_of_some_as_json(filled, colour, console, capsys, words, views):
    filled.add("c")
    filled.extract()
    filled.extract(colour(frozenset({"token_point_world"})), layers=["block1"], scene="toy/c", storage="f16")
    assert ls(str(filled.root), console, ListConfig(**words), as_json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["encoder"]: one["views"] for one in found} == views
    for one in found:
        assert one["grids"] == ["4x6"]
        assert one["bytes"] == one["views"] * 24 * 3 * 2 * len(one["layers"])
    if words.get("dataset") == "toys":
        ls(str(filled.root), console, ListConfig(**words))
        assert "nothing fits" in console.file.getvalue()


def test_another_storage_than_f16_is_seen_everywhere(pipeline, console):
    pipeline.add("a")
    pipeline.extract(layers=["norm"], storage="u8")
    pipeline.extract(layers=["block0"])
    pipeline.extract(layers=["block0"], storage="f32")
    assert "block0 f16+f32, norm u8 " in said(ls, pipeline, console)
    store = FeatureStore.open(pipeline.root)
    features = store.select("colour")
    assert features.storages == {"block0": ("f32",), "norm": ("u8",)}
    assert "layers block0 f32, norm u8, 1 scene, 3 views" in repr(features)
    assert "norm u8" in features._repr_html_()
    assert features.table()[0]["storage"] == {"block0": "f32", "norm": "u8"}
    assert "norm u8" not in repr(store.select("colour", layers=["block0"], storage="f16"))


def test_reading_8_bits_for_want_of_more_is_logged_once(pipeline, console, caplog):
    pipeline.add("a")
    pipeline.extract(layers=["norm"], storage="u8")
    pipeline.extract(layers=["block0"], storage="u8")
    pipeline.extract(layers=["block0"], storage="f16")
    said(ls, pipeline, console)
    store = FeatureStore.open(pipeline.root)
    store.select("colour", layers=["block0"])
    store.select("colour", layers=["norm"], storage="u8")
    assert not caplog.messages
    for _ in range(2):
        store.select("colour").load()
    (line,) = caplog.messages
    assert line.startswith(f"{store.keys()[0].name}: stored in 8 bits alone, so read as u8: norm (")
