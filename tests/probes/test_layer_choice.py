"""Layers that are not in the store for all encoders: what is scored, what is said, and what adds them."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest
import strata
from rich.console import Console
from strata.configs.load import load
from strata.configs.schema import CorrespondenceConfig, ExtractConfig, PackConfig, SetsConfig, SynthConfig
from strata.errors import LayerError, ProbeError
from strata.probes.correspondence import run
from strata.probes.layer_choice import select_there
from strata.store.feature_store import FeatureStore

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rooms, their sets, and a store: a transformer (one room has a second layer) and an oracle."""
    from strata.extract.pack import pack
    from strata.extract.scenes.synth_command import synth
    from strata.extract.sets_command import make

    root = tmp_path_factory.mktemp("rooms")
    synth(SynthConfig(out=str(root / "scenes"), scenes=2, views=4, width=56, height=42), QUIET)
    make(
        SetsConfig(scenes=str(root / "scenes"), out=str(root / "sets.json"), set_count=1, set_views=3), QUIET
    )
    pack(PackConfig(scenes=str(root / "scenes"), out=str(root / "shards")), QUIET)
    extract(root, encoder="vit_tiny_demo", weights="random:0", layers=["norm"])
    extract(root, encoder="vit_tiny_demo", weights="random:0", layers=["block1"], scene="*/room_0")
    extract(root, encoder="oracle_world")
    return root


def extract(root: Path, **words: object) -> None:
    from strata.extract.run import run as extract_run

    places = {"shards": str(root / "shards"), "store": str(root / "feats.zarr")}
    assert extract_run(ExtractConfig(**places, **{"grid": "aspect:8", **words}), QUIET) == 0


def probe(root: Path, out: Path, console: Console, **words: object) -> tuple[int, set[tuple[str, str]]]:
    """The exit code, and (encoder, layer) of what was scored."""
    usual = {"ranking": False, "pictures": 0, "resamples": 10, "sets": str(root / "sets.json")}
    config = CorrespondenceConfig(store=str(root / "feats.zarr"), out=str(out), **{**usual, **words})
    code = run(config, console)
    rows = map(json.loads, (out / "records.jsonl").read_text().splitlines())
    return code, {(row["encoder"], row["layer"]) for row in rows if row["encoder"]}


def said(console: Console) -> str:
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_what_is_there_is_scored_and_the_command_that_is_named_adds_the_rest(
    made: Path, tmp_path: Path, console: Console
):
    code, scored = probe(made, tmp_path / "run", console, layers=["block2", "block1", "norm"])
    assert (code, scored) == (1, {("vit_tiny_demo", "norm"), ("oracle_world", "norm")})
    first, second = (line for line in said(console).splitlines() if line.startswith("vit_tiny_demo@"))
    assert first.endswith(" is not scored at block2, block1: the store lacks it for all scenes or some")
    assert second == f"{first}; to add it:"
    commands = [line for line in said(console).splitlines() if line.startswith("strata extract run ")]
    assert [("scene=" in one, one.rpartition(" ")[2]) for one in commands] == [
        (False, "layers=block2,block1"),
        (True, "layers=block2,block1"),
    ]
    extract(made, **vars_of(commands[0]))
    console.file.truncate(0)  # type: ignore[attr-defined]
    code, scored = probe(made, tmp_path / "run", console, layers=["block2", "block1", "norm"])
    layers = {("vit_tiny_demo", layer) for layer in ("block1", "block2", "norm")}
    assert (code, scored) == (0, {*layers, ("oracle_world", "norm")})
    assert "to add it" not in said(console)


def vars_of(command: str) -> dict[str, object]:
    """The words of a command as options, without those that say where."""
    words = shlex.split(command)[3:]
    config, given = load(ExtractConfig, words), {word.partition("=")[0] for word in words}
    return {name: getattr(config, name) for name in given - {"shards", "store"}}


def test_a_layer_that_an_encoder_cannot_have_is_no_failure(made: Path, tmp_path: Path, console: Console):
    """Of what the others have: the oracle has no blocks, so that nothing could be extracted."""
    words = {"layers": ["block1"], "scene": "*/room_0"}
    assert probe(made, tmp_path, console, **words) == (0, {("vit_tiny_demo", "block1")})
    lines = [line for line in said(console).splitlines() if line.startswith("oracle_world@")]
    assert len(lines) == 1
    assert lines[0].endswith(" is not scored at block1: no layer of this encoder")


@pytest.mark.parametrize("layer", ["block9", "blok1", "block1.wrong", "global0", "5/4"])
def test_a_layer_that_no_encoder_has_is_refused(made: Path, tmp_path: Path, console: Console, layer: str):
    with pytest.raises(LayerError, match=layer):
        probe(made, tmp_path, console, layers=[layer, "norm"])
    assert not os.listdir(tmp_path)


def test_nothing_that_was_asked_for_is_stored(made: Path, tmp_path: Path, console: Console):
    with pytest.raises(ProbeError, match="no layer that was asked for is stored") as caught:
        probe(made, tmp_path, console, layers=["block3.keys", "patch_embed"])
    assert "oracle_world@" in caught.value.why
    assert caught.value.fix.endswith("layers=block3.keys,patch_embed")
    assert not os.listdir(tmp_path)


def test_what_to_do_without_records_of_the_runs(made: Path, tmp_path: Path, console: Console):
    hidden = made / "feats.zarr" / "runs"
    hidden.rename(made / "hidden")
    try:
        with pytest.raises(ProbeError) as caught:
            probe(made, tmp_path, console, layers=["block3"])
    finally:
        (made / "hidden").rename(hidden)
    assert (
        f"strata extract run shards=... store={made / 'feats.zarr'} encoder=vit_tiny_demo" in caught.value.fix
    )


def test_shares_are_those_of_each_encoder(made: Path):
    store = FeatureStore.open(made / "feats.zarr")
    for encoder, layers in (("vit_tiny_demo", ("block1", "norm")), ("oracle_world", ("norm",))):
        name = store.stored_key(encoder).name
        selection, absent = select_there(store, name, ["2/4", "last"], scene="*/room_0")
        assert selection is not None
        assert (selection.layers, absent) == (layers, [])


def test_derived_features_are_derived_again(made: Path, tmp_path: Path, console: Console):
    store = FeatureStore.open(made / "feats.zarr")
    strata.materialise(strata.l2(store.select("vit_tiny_demo", layers=["norm"])))
    words = {"encoder": "vit_tiny_demo-l2", "layers": ["block0", "norm"]}
    assert probe(made, tmp_path, console, **words) == (1, {("vit_tiny_demo-l2", "norm")})
    assert "derive block0 too" in said(console)
