"""Splits, mixes and view sets from the metadata of a dataset through pack, extract, select and probe."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from strata.configs.load import load
from strata.configs.schema import (
    CorrespondenceConfig,
    ExtractConfig,
    PackConfig,
    ReportConfig,
    SetsConfig,
    SynthConfig,
)
from strata.errors import ConfigError, ProbeError, SceneError, SelectionError, SetsError
from strata.extract.pack import pack
from strata.extract.run import run as extract
from strata.extract.scenes.synth_command import synth
from strata.extract.sets_command import make
from strata.extract.shards import ShardIndex
from strata.probes.correspondence import run as probe
from strata.probes.report import report
from strata.store.feature_store import FeatureStore
from strata.store.split_lists import write_names
from strata.store.view_sets import read_sampler, read_sets

QUIET = Console(quiet=True)
DENSE = ("blendedmvs", "eth3d", "scannetppv2")
VAL, TEST = ["room_0", "room_2"], ["room_1"]


def words(schema: type, **values: object):
    return load(schema, [f"{name}={value}" for name, value in values.items()])


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rooms with lists `val` and `test`, and the same rooms under the names of a mix."""
    root = tmp_path_factory.mktemp("data")
    synth(SynthConfig(out=str(root / "rooms"), scenes=3, views=4, width=48, height=36), QUIET)
    shutil.rmtree(root / "rooms" / "metadata")
    for split, names in (("val", VAL), ("test", TEST)):
        write_names(names, split, "synthetic", root / "rooms")
    for dataset in DENSE:
        shutil.copytree(root / "rooms" / "synthetic" / "room_0", root / "mix" / f"{dataset}_wai" / "a")
        split = "test" if dataset == "eth3d" else "val"
        # The list names scenes that this copy does not have.
        write_names([f"{i}" for i in range(19)] + ["a"], split, dataset, root / "mix")
    return root


@pytest.fixture(scope="module")
def done(data: Path) -> Path:
    """All rooms packed and extracted, with sets of all of them."""
    make(words(SetsConfig, scenes=data / "rooms", out=data / "sets.json", set_views=3, set_count=4), QUIET)
    pack(words(PackConfig, scenes=data / "rooms", out=data / "shards"), QUIET)
    run_extract(data)
    return data


def run_extract(
    data: Path, shards: str = "shards", store: str = "feats.zarr", **more: object
) -> FeatureStore:
    config = words(
        ExtractConfig,
        shards=data / shards,
        store=data / store,
        encoder="oracle_rgb",
        grid="aspect:6",
        views="geometry",
        **more,
    )
    assert extract(config, QUIET) == 0
    return FeatureStore.open(data / store)


def run_probe(data: Path, out: str, **more: object) -> set[str]:
    config = words(
        CorrespondenceConfig, store=data / "feats.zarr", out=data / out, resamples=5, pictures=0, **more
    )
    assert probe(config, QUIET) == 0
    rows = [json.loads(line) for line in (data / out / "records.jsonl").read_text().splitlines()]
    return {row["scene"] for row in rows}


def ids(names: list[str]) -> set[str]:
    return {f"synthetic/{name}" for name in names}


# Splits.


def test_a_split_goes_from_the_metadata_to_the_probe(done: Path):
    index = ShardIndex.open(done / "shards")
    assert {name: set(scenes) for name, scenes in index.splits.items()} == {
        "val/synthetic": ids(VAL),
        "test/synthetic": ids(TEST),
    }
    store = FeatureStore.open(done / "feats.zarr")
    assert set(store.select("oracle_rgb", split="val").scenes) == ids(VAL)
    assert set(store.select("oracle_rgb", split="test/synthetic").scenes) == ids(TEST)
    assert run_probe(done, "runs/val", split="val", sets=done / "sets.json") == ids(VAL)


def test_each_command_takes_a_split_alone(done: Path):
    rooms, mine = done / "rooms", done / "mine.json"
    mine.write_text('["synthetic/room_1", "synthetic/room_2"]')
    for split, kept in (("val", ids(VAL)), (mine, ids(["room_1", "room_2"]))):
        pack(words(PackConfig, scenes=rooms, out=done / "some", split=split), QUIET)
        index = ShardIndex.open(done / "some")
        assert {scene.id for scene in index} == kept
        assert {scene for scenes in index.splits.values() for scene in scenes} == kept
        store = run_extract(done, store=f"{len(str(split))}.zarr", split=split)
        assert set(store.select("oracle_rgb").scenes) == kept
        assert (
            set(FeatureStore.open(done / "feats.zarr").select("oracle_rgb", split=str(split)).scenes) == kept
        )
        assert run_probe(done, "runs/some", split=split, sets=done / "sets.json") == kept
    for ask in (
        lambda: run_extract(done, split="vla"),
        lambda: FeatureStore.open(done / "feats.zarr").select("oracle_rgb", split="vla"),
        lambda: pack(words(PackConfig, scenes=rooms, out=done / "none", split="vla"), QUIET),
    ):
        with pytest.raises(SelectionError, match="no split 'vla'") as caught:
            ask()
        assert "val" in caught.value.fix


# Sets.


def test_a_file_of_sets_is_taken_by_each_command(done: Path):
    sets = done / "two.json"
    make(
        words(SetsConfig, scenes=done / "rooms", out=sets, set_views=2, set_count=3, split="val", set_seed=5),
        QUIET,
    )
    # Smaller packed images are still those that the sets name.
    pack(words(PackConfig, scenes=done / "rooms", out=done / "pairs", sets=sets, max_side=40), QUIET)
    assert {scene.id for scene in ShardIndex.open(done / "pairs")} == ids(VAL)
    store = run_extract(done, shards="pairs", store="pairs.zarr", sets=sets)
    (name,) = store.set_names()
    assert store.view_sets(name) == read_sets(sets)
    asked = read_sets(sets)[:1]
    assert {v["frame"] for v in store.select("oracle_rgb", sets=asked).table()} == set(asked[0].members)
    assert set(store.select("oracle_rgb", sets=sets).scenes) == ids(VAL)
    assert set(run_extract(done, store="kept.zarr", sets=sets).select("oracle_rgb").scenes) == ids(VAL)
    assert run_probe(done, "runs/pairs", sets=sets) == ids(VAL)


def test_sets_of_other_images_and_scenes_are_refused(done: Path):
    text = (done / "sets.json").read_text()
    strange = done / "strange.json"
    strange.write_text(text.replace("synthetic/room_0", "synthetic/room_7"))
    document = json.loads(text)
    for view_set in document["sets"]:
        view_set["images"][0] = "0" * 64
        del view_set["digest"]
    (done / "others.json").write_text(json.dumps(document))
    with pytest.raises(SetsError, match="images that the shards do not have: synthetic/room_0/"):
        run_extract(done, store="never.zarr", sets=done / "others.json")
    strange.write_text((done / "others.json").read_text().replace("room_0", "room_7"))
    with pytest.raises(SetsError, match="1 scene not there: synthetic/room_7") as caught:
        pack(words(PackConfig, scenes=done / "rooms", out=done / "never", sets=strange), QUIET)
    assert "synthetic/room_" in caught.value.fix


def test_runs_on_other_sets_are_not_compared(done: Path):
    other = done / "other.json"
    make(words(SetsConfig, scenes=done / "rooms", out=other, set_views=2, set_count=4), QUIET)
    for name, sets in (("one", done / "sets.json"), ("two", other)):
        run_probe(done, f"runs/{name}", sets=sets)
    folders = [str(done / "runs" / name) for name in ("one", "two")]
    with pytest.raises(ProbeError, match="were scored on other view sets"):
        report(folders, words(ReportConfig, out=done / "report"), QUIET)
    report(folders, words(ReportConfig, out=done / "report", allow_mixed_sets="true"), QUIET)


# Mixes.


def test_a_mix_takes_of_each_dataset_its_own_split_threshold_and_number_of_sets(data: Path):
    out, console = data / "dense.json", Console(file=io.StringIO(), width=200)
    assert make(words(SetsConfig, scenes=data / "mix", out=out, mix="dense"), console) == 0
    walks = read_sampler(out)["datasets"]
    assert {name: walk["threshold"] for name, walk in walks.items()} == {
        "blendedmvs_wai": 0.25,
        "eth3d_wai": 0.025,
        "scannetppv2_wai": 0.25,
    }
    # Of the 20 scenes that each list names, one is here: it draws its share, 860, 260 or 600 sets of 20.
    assert {name: walk["count"] for name, walk in walks.items()} == {
        "blendedmvs_wai": 43,
        "eth3d_wai": 13,
        "scannetppv2_wai": 30,
    }
    pack(words(PackConfig, scenes=data / "mix", out=data / "dense", mix="dense"), QUIET)
    everything = {f"{dataset}_wai/a" for dataset in DENSE}
    assert {scene.id for scene in ShardIndex.open(data / "dense")} == everything
    store = run_extract(data, shards="dense", store="dense.zarr", mix="dense", sets=out)
    assert set(store.select("oracle_rgb").scenes) == everything
    assert store.set_names()[0].startswith("mix-dense@")
    with pytest.raises(ConfigError, match="mix dense has its own set_count=3"):
        make(words(SetsConfig, scenes=data / "mix", out=out, mix="dense", set_count=3), QUIET)


def test_all_that_a_mix_lacks_is_named(data: Path, tmp_path: Path):
    for dataset in DENSE[:2]:
        shutil.copytree(data / "mix" / f"{dataset}_wai", tmp_path / f"{dataset}_wai")
    write_names(["b"], "test", "eth3d", tmp_path)
    with pytest.raises(SceneError, match="mix dense is not complete") as caught:
        pack(words(PackConfig, scenes=tmp_path, out=tmp_path / "out", mix="dense"), QUIET)
    assert caught.value.why.splitlines() == [
        "blendedmvs: its split val is not there (metadata/val/blendedmvs_scene_list_val.npy, .json or .txt)",
        "eth3d: none of the 1 scenes of its split test is here",
        "scannetppv2: there is no dataset scannetppv2 or scannetppv2_wai",
    ]
    with pytest.raises(ConfigError, match="no mix 'dens'") as unknown:
        pack(words(PackConfig, scenes=tmp_path, out=tmp_path / "out", mix="dens"), QUIET)
    assert "dense" in unknown.value.fix
