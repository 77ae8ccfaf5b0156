"""`store verify`: the command, and views that are extracted again."""

from __future__ import annotations

import io
import json
import re
import shutil

import numpy as np
import pytest
import strata
from rich.console import Console
from strata.configs.schema import VerifyConfig
from strata.errors import ConfigError, SelectionError, ShardError, StoreMismatchError
from strata.extract.encoders.base import Encoder, EncoderInfo, FeatureMap
from strata.extract.pack import pack_scenes
from strata.extract.verify_command import run
from strata.store.arrays import encode_chunk
from strata.store.atomic import read_json, write_atomic
from strata.store.documents import write_document
from strata.store.group import StoredGroup
from strata.store.shard_io import shard_parts


@pytest.fixture
def filled(pipeline):
    pipeline.add("a", views=4)
    pipeline.extract(layers=["norm"])
    return pipeline


def verified(pipeline, encoder=None, shards=True, encoder_word=None, **words):
    said = io.StringIO()
    console = Console(file=said, width=300)
    folder = str(pipeline.folder / "shards") if shards else None
    config = VerifyConfig(shards=folder, encoder=encoder_word, device="cpu")
    code = run(str(pipeline.root), config, console, encoder=encoder, **words)
    return code, said.getvalue()


def test_what_is_extracted_again_is_what_is_stored(filled, colour):
    code, said = verified(filled, colour(), recompute=3, as_json=True)
    found = json.loads(said)
    assert (code, found["faults"]) == (0, [])
    (again,) = found["recomputed"].values()
    assert (again["views"], again["skipped"], again["not_compared"]) == (3, 0, [])
    assert 0 <= again["largest_deviation"]["norm"] < 2**-10


def test_numbers_that_are_whole_but_wrong_are_found_and_repaired(filled, colour, tree):
    before = tree(filled.root)
    group = StoredGroup(next(filled.root.glob("features/*/*/norm")))
    spec = group.array("tokens").spec
    wrong = group.read("tokens", [2, 3]) * np.float16(1.5)
    path = group.folder / "tokens" / spec.file(1)
    write_atomic(path, shard_parts([encode_chunk(spec, row) for row in wrong]))
    assert verified(filled)[0] == 0
    code, said = verified(filled, colour(), recompute=4)
    assert code == 1
    assert "numbers" in said
    assert "row 2 deviates by 0.5 " in said
    assert "row 1" not in said
    assert verified(filled, colour(), recompute=4, repair=True)[0] == 0
    filled.extract(layers=["norm"])
    assert tree(filled.root) == before


def test_what_it_needs_is_asked_for(filled, colour):
    with pytest.raises(ConfigError, match="packed images"):
        verified(filled, colour(), shards=False, recompute=1)
    other = colour()
    other.weights_digest = lambda: "1" * 64
    with pytest.raises(StoreMismatchError, match="weights"):
        verified(filled, other, recompute=1)


def test_wrong_words_are_told_before_the_store_is_read(filled, colour, monkeypatch):
    monkeypatch.setattr("strata.extract.verify_command.verify", lambda *_: pytest.fail("the store is read"))
    with pytest.raises(ConfigError, match="packed images"):
        verified(filled, colour(), shards=False, recompute=1)
    (filled.folder / "shards").rename(filled.folder / "away")
    with pytest.raises(ShardError):
        verified(filled, colour(), recompute=1)


def test_faults_are_told_with_what_mends_them(filled):
    path = next(filled.root.glob("features/*/*/norm/tokens/c.0*"))
    path.write_bytes(path.read_bytes()[:-1])
    code, said = verified(filled)
    assert code == 1
    assert "damaged" in said
    assert path.relative_to(filled.root).as_posix() in said
    assert "--repair" in said
    code, said = verified(filled, repair=True)
    assert code == 0
    assert "extract run" in said


def scaled(group, rows, by):
    """The shard of these rows, whole and with wrong numbers."""
    spec = group.array("tokens").spec
    wrong = group.read("tokens", rows) * np.float16(by)
    path = group.folder / "tokens" / spec.file(rows[0] // spec.unit)
    write_atomic(path, shard_parts([encode_chunk(spec, row) for row in wrong]))


class Together(Encoder):
    """Mean colour of each cell minus that of the set."""

    info = EncoderInfo(name="together", patch_size=4, depth=1, context="set")

    def width(self, layer):
        return 3

    def layers(self):
        return ("frame0", "norm")

    def prefix_names(self):
        return ("camera",)

    def forward(self, batch, layers):
        rows, cols = batch.grid
        cells = batch.images.unflatten(-1, (cols, 4)).unflatten(-3, (rows, 4)).mean((-1, -3))
        tokens = (cells - cells.mean((1, 3, 4), keepdim=True)).permute(0, 1, 3, 4, 2)
        maps = FeatureMap(tokens=tokens, prefix=tokens.mean((2, 3))[:, :, None], prefix_names=("camera",))
        return dict.fromkeys(layers, maps)

    def weights_digest(self):
        return "1" * 64

    def to(self, device, dtype):
        return self


@pytest.fixture
def in_sets(pipeline):
    """Three sets of two views."""
    pipeline.add("a", views=6)
    pipeline.extract(Together(), layers=["frame0", "norm"], unit_views=2, set_views=2, set_count=3)
    assert len(strata.open_store(pipeline.root).select("together")) == 6
    return pipeline


def test_whole_sets_are_encoded_again(in_sets):
    code, said = verified(in_sets, Together(), recompute=3, as_json=True)
    found = json.loads(said)
    assert (code, found["faults"]) == (0, [])
    (again,) = found["recomputed"].values()
    assert (again["views"], again["skipped"], again["not_compared"]) == (4, 0, [])
    assert all(0 <= value < 2**-9 for value in again["largest_deviation"].values())
    scaled(StoredGroup(next(in_sets.root.glob("features/*/*/frame0"))), [2, 3], 1.5)
    code, said = verified(in_sets, Together(), recompute=6)
    assert code == 1
    assert [f"row {row} deviates by 0.5" in said for row in range(6)] == [row in (2, 3) for row in range(6)]


def test_a_view_of_a_set_that_has_no_features_is_not_asked_for(in_sets):
    group = StoredGroup(next(in_sets.root.glob("features/*/*/norm")))
    path = group.folder / "tokens" / "zarr.json"
    document = read_json(path)
    document["attributes"]["missing"] = {"1": "it was left out"}
    write_document(path, document)
    _, said = verified(in_sets, Together(), recompute=6, as_json=True)
    (again,) = json.loads(said)["recomputed"].values()
    assert (again["views"], again["skipped"]) == (5, 0)
    assert all(value < 2**-9 for value in again["largest_deviation"].values())


@pytest.fixture
def derived(filled):
    filled.extract(layers=["block0", "norm"])
    features = strata.open_store(filled.root).select("colour")
    for made in (strata.l2(features), strata.concat(features, features), strata.pca(features, 2)):
        strata.materialise(made, console=Console(quiet=True))
    return filled


@pytest.mark.parametrize("kind", ["colour-l2", "colour+colour", "colour-pca2"])
def test_derived_features_are_computed_again_from_their_sources(derived, kind):
    def again():
        code, said = verified(derived, shards=False, recompute=4, as_json=True, encoder_word=kind)
        found = json.loads(said)
        (one,) = found["recomputed"].values()
        return code, one, [fault for fault in found["faults"] if fault["kind"] == "numbers"]

    code, one, faults = again()
    assert (code, one["views"], one["skipped"], faults) == (0, 4, 0, [])
    assert all(0 <= value < 2**-9 for value in one["largest_deviation"].values())
    kept = ["the components themselves: which views they were fitted on is not kept"] if "pca" in kind else []
    assert one["not_compared"] == kept
    group = StoredGroup(next(derived.root.glob(f"features/{kind}@*/*/norm*")))
    scaled(group, [0, 1, 2, 3], 1.25)
    code, _, faults = again()
    assert code == 1
    assert [fault["path"].startswith("features/" + kind) for fault in faults] == [True] * 4


def test_features_of_sets_are_joined_set_by_set(in_sets, colour):
    in_sets.extract(colour(), layers=["block0", "norm"], unit_views=2)
    store = strata.open_store(in_sets.root)
    alone, together = store.select("colour"), store.select("together")
    for joined in (strata.concat(together, together), strata.concat(together, alone)):
        assert len(joined) == len(together)
        strata.materialise(joined, console=Console(quiet=True))
        _, said = verified(in_sets, shards=False, recompute=6, as_json=True, encoder_word=joined.key.encoder)
        (again,) = json.loads(said)["recomputed"].values()
        assert (again["views"], again["skipped"]) == (6, 0)
        assert all(0 <= value < 2**-9 for value in again["largest_deviation"].values())
    with pytest.raises(SelectionError, match="side by side") as caught:
        strata.concat(alone, together)
    assert "first" in caught.value.fix


def test_what_is_not_compared_is_said(derived, colour):
    shutil.rmtree(next(derived.root.glob("features/colour@*")))
    code, said = verified(derived, shards=False, recompute=1, encoder_word="colour-l2")
    assert code == 0
    assert re.search(r"colour-l2@\w+: not compared: key \w{12} is not in the store", said)


def test_images_and_geometry_that_the_shards_have_otherwise_are_left_out_and_said(filled, colour, new_view):
    from dataclasses import replace

    points = colour(frozenset({"token_point_world"}))
    filled.extract(points, layers=["norm"], storage="f32")
    filled.change("a", lambda views: [replace(view, depth=None) for view in views])
    pack_scenes(filled.source, filled.folder / "shards", shard_bytes=1 << 30)
    code, said = verified(
        filled, colour(frozenset({"token_point_world"})), recompute=2, encoder_word="points"
    )
    assert code == 0
    assert "not compared: 2 views: the shards have another geometry of the scene." in said
    filled.change("a", lambda views: [*views, new_view("9", np.random.default_rng(9), 24, 16)])
    pack_scenes(filled.source, filled.folder / "shards", shard_bytes=1 << 30)
    code, said = verified(filled, colour(), recompute=2, encoder_word="colour")
    assert code == 0
    assert "not compared: 2 views: the shards have other images of the scene." in said
