"""Plans: what they say before anything is written, and words they refuse."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from strata.configs.schema import ExtractConfig
from strata.errors import ConfigError, LayerError, SelectionError, StrataError
from strata.extract.pack import pack_scenes
from strata.extract.plan_command import plan as plan_command
from strata.extract.run import open_plan
from strata.extract.words import resolve_compute
from strata.store.feature_store import FeatureStore
from strata.store.split_lists import split_scenes


@pytest.fixture
def filled(pipeline):
    for name in ("a", "b"):
        pipeline.add(name)
    pack_scenes(pipeline.source, pipeline.folder / "shards", shard_bytes=1 << 30)
    return pipeline


def config(pipeline, **words) -> ExtractConfig:
    paths = {"shards": str(pipeline.folder / "shards"), "store": str(pipeline.root)}
    usual = {"layers": ["block0", "norm"], "grid": "aspect:6", "unit_views": 2}
    return ExtractConfig(encoder="colour", **paths, **{**usual, **words})


def planned(pipeline, colour, **words):
    return open_plan(config(pipeline, **words), encoder=colour())


def stored_bytes(root, names) -> int:
    return sum(path.stat().st_size for name in names for path in root.glob(f"features/*/*/*/{name}/c.*"))


def test_bytes_left_are_those_that_are_written(filled, colour):
    plan = planned(filled, colour, views="none")
    assert (plan.views, plan.views_left) == (6, 6)
    features = 2 * (6 * 24 * 3 * 2 + 6 * 3 * 2)  # layers x (tokens + prefix)
    points = 6 * 24 * (12 + 1 + 4)
    assert plan.bytes_left == features + points
    filled.extract(views="none")
    checksums = 2 * 3 * (2 * 4 + 2 * 16 + 4) + 2 * 3 * 4
    assert stored_bytes(filled.root, ["tokens", "prefix"]) == features + checksums
    assert planned(filled, colour, views="none").bytes_left == 0


def test_plain_chunks_count_in_full(filled, colour):
    filled.source.scenes.pop("toy/b")
    pack_scenes(filled.source, filled.folder / "shards", shard_bytes=1 << 30)
    plan = planned(filled, colour, layers=["norm"], views="none")
    # 3 views in units of 2: the second plain chunk of `prefix` has room for 2.
    assert plan.bytes_left == 3 * 24 * 3 * 2 + 4 * 3 * 2 + 3 * 24 * 17


def test_planning_writes_nothing(filled, colour):
    before = sorted(filled.folder.rglob("*"))
    planned(filled, colour)
    assert sorted(filled.folder.rglob("*")) == before


def test_what_is_there_is_not_left(filled, colour):
    filled.extract(layers=["block0"])
    plan = planned(filled, colour)
    assert (plan.views, plan.views_left) == (6, 6)
    assert plan.bytes_left == 6 * 24 * 3 * 2 + 6 * 3 * 2
    assert [part.new for part in plan.bundles] == [False]
    assert planned(filled, colour, layers=["block0"]).views_left == 0


@pytest.mark.parametrize(
    ("words", "where", "fix"),
    [
        ({"views": "al"}, "views", "did you mean all"),
        ({"storage": "b16"}, "storage", "bf16"),
        ({"retry": "fialed"}, "retry", "failed"),
        ({"backend": "lokal"}, "backend", "local"),
        ({"compute": "float23"}, "compute", "float32"),
        ({"fit": "corp"}, "fit", "crop"),
        ({"limit": 0}, "limit", "limit=1"),
        ({"limit": -1}, "limit", "limit=1"),
        ({"batch": 0}, "batch=0, unit_views=2", "batch=8"),
        ({"unit_views": 0}, "batch=8, unit_views=0", "unit_views"),
        ({"pixels": [15, 24]}, "pixels", "[12,24] and [16,24]"),
    ],
    ids=str,
)
def test_misspelt_words(filled, colour, words, where, fix):
    with pytest.raises(ConfigError) as caught:
        planned(filled, colour, **words)
    assert caught.value.where == where
    assert fix in caught.value.fix


def test_unknown_layers_and_scenes(filled, colour):
    with pytest.raises(LayerError, match="block9"):
        planned(filled, colour, layers=["block9"])
    with pytest.raises(SelectionError) as caught:
        planned(filled, colour, scene="toy/c*")
    assert "toy/a, toy/b" in caught.value.why
    with pytest.raises(SelectionError) as caught:
        planned(filled, colour, split="tset")
    assert "test/toy" in caught.value.fix


def test_scenes_by_glob_split_and_file(filled, colour, tmp_path):
    def scenes(**words):
        return [scene.id for scene in planned(filled, colour, **words).scenes]

    assert scenes() == ["toy/a", "toy/b"]
    assert scenes(scene="*/b") == ["toy/b"]
    assert scenes(limit=1) == ["toy/a"]
    assert scenes(split="test") == scenes(split="test/toy") == ["toy/a"]
    (tmp_path / "mine.json").write_text(json.dumps(["toy/b", "toy/z"]))
    (tmp_path / "mine.txt").write_text("toy/b\n")
    assert scenes(split=str(tmp_path / "mine.json")) == scenes(split=str(tmp_path / "mine.txt")) == ["toy/b"]
    with pytest.raises(StrataError):
        scenes(split=str(tmp_path / "none.txt"))


def test_splits_of_all_datasets():
    splits = {"test/a": ("a/1",), "test/b": ("b/1",), "testing/c": ("c/1",)}
    assert split_scenes("test", splits, "here") == {"a/1", "b/1"}
    assert split_scenes("testing/c", splits, "here") == {"c/1"}


def test_compute(colour):
    encoder, oracle = colour(), colour()
    oracle.info = replace(oracle.info, computes=("float32",))
    assert resolve_compute("auto", "cpu", encoder) == "float32"
    assert resolve_compute("auto", "cuda:1", encoder) == "bfloat16"
    assert resolve_compute("float16", "cpu", encoder) == "float16"
    assert resolve_compute("auto", "cuda:1", oracle) == "float32"


def test_the_command_says_what_a_run_would_do(filled, console, monkeypatch):
    words = config(filled)
    words.encoder, words.weights = "vit_tiny_demo", "random:0"
    words.layers, words.grid = ["last"], [2, 3]
    assert plan_command(words, console) == 0
    text = console.file.getvalue()
    for part in (
        "vit_tiny_demo",
        "new store",
        "2 scenes, 6 views in 1 bundle (1 new), token grid 2x3",
        "0 of 6 views",
    ):
        assert part in text
    assert not filled.root.exists()
    monkeypatch.setattr("strata.extract.plan_command.free_bytes", lambda path: 10)
    assert plan_command(words, console) == 1
    assert "does not fit" in console.file.getvalue()


def test_the_nearest_stored_key_is_named(filled, colour):
    from strata.extract.plan_command import _nearest

    filled.extract(grid=[2, 3])
    assert _nearest(planned(filled, colour, grid=[2, 3])) == "stored"
    nearest = _nearest(planned(filled, colour, grid=[2, 2]))
    assert nearest == "new; nearest stored key differs in: preprocess.grid: stored [2, 3], asked [2, 2]"
    assert len(FeatureStore.open(filled.root).keys()) == 1
