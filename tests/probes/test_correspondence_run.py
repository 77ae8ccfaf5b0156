"""The command on a small store: right numbers, resuming, reasons for what is left out."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from strata.configs.schema import CorrespondenceConfig, ExtractConfig, PackConfig, SetsConfig, SynthConfig
from strata.errors import ConfigError, ProbeError, SelectionError
from strata.probes.base import Record
from strata.probes.correspondence import Correspondence, protocols_of, run
from strata.store.feature_store import FeatureStore
from strata.store.schema import ViewSet
from strata.store.view_sets import read_sets, write_sets


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two synthetic rooms (one mixes landscape and portrait), shards, sets, and a store of two oracles."""
    from strata.extract.pack import pack
    from strata.extract.scenes.synth_command import synth
    from strata.extract.sets_command import make

    root, quiet = tmp_path_factory.mktemp("rooms"), Console(quiet=True)
    scenes = str(root / "scenes")
    synth(SynthConfig(out=scenes, scenes=2, views=5, width=64, height=48), quiet)
    make(SetsConfig(scenes=scenes, out=str(root / "sets.json"), set_count=3, set_views=3), quiet)
    pack(PackConfig(scenes=scenes, out=str(root / "shards")), quiet)
    for encoder in ("oracle_constant", "oracle_world"):
        extract(root, encoder)
    return root


def extract(root: Path, encoder: str) -> None:
    from strata.extract.run import run as extract_run

    config = ExtractConfig(
        shards=str(root / "shards"), store=str(root / "feats.zarr"), encoder=encoder, grid="aspect:12"
    )
    assert extract_run(config, Console(quiet=True)) == 0


def config_of(root: Path, out: Path, **options: object) -> CorrespondenceConfig:
    config = CorrespondenceConfig(
        store=str(root / "feats.zarr"),
        sets=str(root / "sets.json"),
        protocol=["visible", "voxel", "reference"],
        out=str(out),
        resamples=20,
        pictures=1,
    )
    return replace(config, **options)  # type: ignore[arg-type]


def records_in(out: Path) -> list[Record]:
    return [Record.from_json(line) for line in (out / "records.jsonl").read_text().splitlines()]


def said(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def first(made: Path) -> Path:
    """A finished run."""
    assert run(config_of(made, made / "run"), Console(quiet=True)) == 0
    return made / "run"


def test_ceiling_and_floor(first: Path):
    corr = {"oracle_constant": [], "oracle_world": []}
    noncorr: dict[str, list[float]] = {name: [] for name in corr}
    for record in records_in(first):
        if record.protocol == "voxel" and record.metric in ("corr", "noncorr"):
            assert record.value is not None
            (corr if record.metric == "corr" else noncorr)[record.encoder].append(record.value)
    assert corr["oracle_constant"] == pytest.approx([1] * len(corr["oracle_constant"]), abs=1e-3)
    assert noncorr["oracle_constant"] == pytest.approx([1] * len(corr["oracle_constant"]), abs=1e-3)
    assert min(corr["oracle_world"]) > 0.9
    assert max(noncorr["oracle_world"]) < 0.2


def test_the_oracle_finds_what_is_visible_and_a_constant_guesses(first: Path):
    values: dict[tuple[str, str, str], list[float]] = {}
    for record in records_in(first):
        if record.unit == "set" and record.value is not None:
            values.setdefault((record.protocol, record.encoder, record.metric), []).append(record.value)
    for metric in ("recall_1", "recall_5", "mutual_precision", "auc"):
        assert min(values["visible", "oracle_world", metric]) > 0.97, metric
    for protocol in ("visible", "voxel", "reference"):
        assert values[protocol, "oracle_constant", "auc"] == pytest.approx([0.5] * 6)
        assert max(values[protocol, "oracle_constant", "recall_5"]) < 0.2
    assert min(values["visible", "oracle_world", "corr"]) > 0.6
    assert max(values["visible", "oracle_world", "noncorr"]) < 0.2


def test_ranking_can_be_left_out(made: Path, tmp_path: Path, console: Console):
    config = config_of(made, tmp_path, protocol=["visible"], ranking=False, pictures=0)
    assert run(config, console) == 0
    metrics = {record.metric.partition("@")[0] for record in records_in(tmp_path)}
    assert metrics == {"corr", "corr_count", "noncorr", "noncorr_count", "depth_agreement"}
    assert "recall" not in said(console)
    assert run(config_of(made, tmp_path, protocol=["visible"], pictures=0), console) == 0
    assert "2 of 6 parts were there already" in said(console), "parts without ranks are computed again"
    assert "recall@1" in said(console)


def test_a_score_equals_all_pairs_read_from_the_store(made: Path, first: Path):
    """Every pair of tokens of one set, with its cells computed here, over both grids of the scene."""
    features = FeatureStore.open(made / "feats.zarr").select("oracle_world")
    scores = {
        (r.set, r.metric): r
        for r in records_in(first)
        if r.encoder == "oracle_world" and r.protocol == "voxel"
    }
    mixed = 0
    for view_set in read_sets(made / "sets.json"):
        part = features.scene(view_set.scene)
        cells, unit, owner = [], [], []
        for block in part.blocks():
            points, tokens = block.token_points(), block.tokens("norm").astype(np.float64)
            edge_m = 0.05 * (block.scene_scale_m or 0)
            for row, name in enumerate(block.names):
                if name in view_set.members:
                    valid = points.valid[row]
                    cells.append(np.floor(points.world[row][valid].astype(np.float64) / edge_m))
                    rows = tokens[row][valid]
                    unit.append(rows / np.linalg.norm(rows, axis=-1, keepdims=True))
                    owner += [name] * len(rows)
        cell, token, view = np.concatenate(cells), np.concatenate(unit), np.array(owner)
        same = (cell[:, None] == cell).all(-1) & (view[:, None] < view)
        record = scores[view_set.digest[:16], "corr"]
        assert record.value == pytest.approx((token @ token.T)[same].mean(), abs=1e-6)
        assert scores[view_set.digest[:16], "corr_count"].value == same.sum()
        mixed += len(np.shape(record.covariates["grid"])) == 2
    assert mixed, "one scene should mix two token grids"


def test_all_encoders_answer_the_same_questions(first: Path):
    asked: dict[str, set[str]] = {}
    for record in records_in(first):
        if record.protocol == "voxel":
            asked.setdefault(record.set, set()).add(record.pairs)
    assert asked
    assert all(len(pairs) == 1 and "" not in pairs for pairs in asked.values())


def test_depth_and_cameras_agree(first: Path):
    found = [record for record in records_in(first) if record.metric == "depth_agreement"]
    assert [record.scene for record in found] == sorted({record.scene for record in records_in(first)})
    for record in found:
        assert record.unit == "scene"
        assert record.encoder == ""
        assert record.value is not None
        assert 0.3 < record.value <= 1


def test_everything_for_the_report_is_there(made: Path, first: Path):
    described = json.loads((first / "config.json").read_text())
    assert described["command"].startswith("strata probe correspondence store=")
    assert described["config"]["voxel"] == 0.05
    assert {s.digest for s in read_sets(first / "sets.json")} == {
        s.digest for s in read_sets(made / "sets.json")
    }
    pictures = json.loads((first / "pictures" / "index.json").read_text())
    assert [entry["encoder"] for entry in pictures] == ["oracle_constant", "oracle_world"]
    assert all((first / "pictures" / entry["file"]).is_file() for entry in pictures)


def test_a_second_run_computes_nothing(made: Path, first: Path, console: Console):
    before = (first / "records.jsonl").read_bytes()
    assert run(config_of(made, first), console) == 0
    assert "6 of 6 parts were there already" in said(console)
    assert "correspondence: nothing was left to do" in said(console)
    assert (first / "records.jsonl").read_bytes() == before


def test_an_interrupted_run_goes_on(made: Path, first: Path, console: Console):
    before = (first / "records.jsonl").read_bytes()
    (first / "records.jsonl").unlink()
    next((first / "parts").glob("oracle_world*/*room_1.jsonl")).unlink()
    assert run(config_of(made, first), console) == 0
    assert "5 of 6 parts were there already" in said(console)
    assert (first / "records.jsonl").read_bytes() == before


def test_other_options_are_computed_again(made: Path, tmp_path: Path, console: Console):
    assert run(config_of(made, tmp_path, protocol=["voxel"], pictures=0), Console(quiet=True)) == 0
    assert run(config_of(made, tmp_path, protocol=["voxel"], voxel="0.2m", pictures=0), console) == 0
    assert "2 of 6 parts were there already" in said(console), "depth does not depend on the voxel"


def test_a_new_encoder_costs_only_itself(made: Path, tmp_path: Path, console: Console):
    names = "oracle_constant,oracle_world"
    assert run(config_of(made, tmp_path, encoder=names, pictures=0), Console(quiet=True)) == 0
    extract(made, "oracle_position")
    assert run(config_of(made, tmp_path, encoder=f"{names},oracle_position", pictures=0), console) == 0
    assert "6 of 8 parts were there already" in said(console)


def test_results_of_another_run_are_not_replaced(made: Path, tmp_path: Path, console: Console):
    options = {"protocol": ["voxel"], "ranking": False, "pictures": 0}
    assert run(config_of(made, tmp_path, encoder="oracle_world", **options), console) == 0
    before = (tmp_path / "records.jsonl").read_bytes(), (tmp_path / "config.json").read_bytes()
    with pytest.raises(ProbeError, match="another run") as caught:
        run(config_of(made, tmp_path, encoder="oracle_constant", **options), console)
    assert "oracle_world@" in caught.value.why
    assert "oracle_constant@" in caught.value.why
    assert "out=" in caught.value.fix
    every = read_sets(made / "sets.json")
    for name, some in (("a", every[:1]), ("b", every[1:2])):
        write_sets(tmp_path / f"{name}.json", some, sampler={})
    sets = {**options, "encoder": "oracle_world"}
    assert run(config_of(made, tmp_path / "o", sets=str(tmp_path / "a.json"), **sets), console) == 0
    with pytest.raises(ProbeError, match="another run"):
        run(config_of(made, tmp_path / "o", sets=str(tmp_path / "b.json"), **sets), console)
    assert run(config_of(made, tmp_path / "o", **sets), console) == 0, "more sets are the same run"
    assert before == ((tmp_path / "records.jsonl").read_bytes(), (tmp_path / "config.json").read_bytes())


def test_stale_sets_and_scenes_without_sets_are_counted(made: Path, tmp_path: Path, console: Console):
    room = [view_set for view_set in read_sets(made / "sets.json") if view_set.scene.endswith("room_0")]
    stale = ViewSet(scene=room[0].scene, members=room[0].members, images=("0" * 64, *room[0].images[1:]))
    write_sets(tmp_path / "sets.json", [*room, stale], sampler={})
    config = config_of(made, tmp_path, sets=str(tmp_path / "sets.json"), encoder="oracle_world", pictures=0)
    assert run(config, console) == 0
    assert "skipped 1: stale: it names images that the store does not have" in said(console)
    assert "room_1 has no view sets" in said(console)
    assert {record.scene for record in records_in(tmp_path)} == {room[0].scene}


def test_nothing_to_score_is_an_error(made: Path, tmp_path: Path, console: Console):
    one = read_sets(made / "sets.json")[0]
    stale = ViewSet(scene=one.scene, members=one.members, images=("0" * 64,) * len(one.images))
    write_sets(tmp_path / "sets.json", [stale], sampler={})
    with pytest.raises(ProbeError, match="no view set could be scored") as caught:
        run(config_of(made, tmp_path, sets=str(tmp_path / "sets.json")), console)
    assert "stale" in caught.value.why


def test_wrong_words(made: Path, tmp_path: Path, console: Console):
    with pytest.raises(SelectionError, match="oracle_wrld"):
        run(config_of(made, tmp_path, encoder="oracle_wrld"), console)
    with pytest.raises(SelectionError):
        run(config_of(made, tmp_path, scene="nowhere/*"), console)
    with pytest.raises(ConfigError, match="voxel=5cm"):
        run(config_of(made, tmp_path, voxel="5cm"), console)


def test_the_probe_is_usable_alone(made: Path):
    store = FeatureStore.open(made / "feats.zarr")
    sets = {view_set.scene: [view_set] for view_set in read_sets(made / "sets.json")}
    probe = Correspondence(sets, protocols_of(CorrespondenceConfig(store="", protocol=["voxel"])))
    assert probe.needs().unit == "set"
    selection = store.select("oracle_world")
    records = list(probe.evaluate(selection.scene(selection.scenes[0])))
    assert {record.metric for record in records} >= {"corr", "noncorr", "corr@30-60", "corr_count@120-180"}


def test_features_in_8_bits_score_the_same(made, first, tmp_path):
    """Mean cosines to the error of the storage; counts of pairs exactly."""
    from strata.extract.run import run as extract_run

    small = {"store": str(tmp_path / "small.zarr"), "storage": "u8"}
    words = {"shards": str(made / "shards"), "encoder": "oracle_world", "grid": "aspect:12"}
    assert extract_run(ExtractConfig(**words, **small), Console(quiet=True)) == 0
    changes = {"store": small["store"], "protocol": ["voxel"], "ranking": False, "pictures": 0}
    assert run(config_of(made, tmp_path / "run", **changes), Console(quiet=True)) == 0

    def values(out: Path) -> dict[tuple[str, ...], float | None]:
        rows = [r for r in records_in(out) if r.encoder == "oracle_world" and r.protocol == "voxel"]
        return {(r.scene, r.set, r.metric): r.value for r in rows if "corr" in r.metric}

    exact, taken = values(first), values(tmp_path / "run")
    assert exact.keys() == taken.keys()
    assert {"corr", "noncorr", "corr_count"} <= {metric for *_, metric in exact}
    for name, value in exact.items():
        assert taken[name] == (value if value is None else pytest.approx(value, abs=5e-4)), name
    assert exact != taken


def test_an_image_that_cannot_be_read_costs_the_pictures_alone(made, tmp_path, console):
    shutil.copytree(made / "feats.zarr", tmp_path / "feats.zarr")
    for shard in (tmp_path / "feats.zarr").glob("pixels/*/*/image/c.*"):
        shard.unlink()
    options = {"sets": str(made / "sets.json"), "protocol": ["voxel"], "ranking": False}
    config = config_of(tmp_path, tmp_path / "run", **options)
    assert run(config, console) == 0
    assert "no picture of synthetic/room_0: a shard cannot be read" in said(console)
    assert records_in(tmp_path / "run")
