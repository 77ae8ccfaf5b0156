"""One store with everything that a store can hold: what looks after stores knows all of it."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import strata
from rich.console import Console
from strata.configs.schema import ExtractConfig, PackConfig, PullConfig, SetsConfig, SynthConfig
from strata.errors import SelectionError
from strata.extract.pack import pack
from strata.extract.run import extract
from strata.extract.scenes.synth_command import synth
from strata.extract.sets_command import make
from strata.store.feature_store import FeatureStore
from strata.store.maintain.garbage import find_garbage
from strata.store.maintain.verify import verify
from strata.store.remote.commands import pull

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Features of views and of sets, overlapping patches, 8 bits, an oracle, and derived features."""
    folder = tmp_path_factory.mktemp("every")
    scenes, sets, shards = (str(folder / name) for name in ("scenes", "sets.json", "shards"))
    synth(SynthConfig(out=scenes, scenes=1, views=4, width=64, height=48), QUIET)
    make(SetsConfig(scenes=scenes, out=sets, set_count=2, set_views=2), QUIET)
    pack(PackConfig(scenes=scenes, out=shards), QUIET)
    common = {
        "shards": shards,
        "store": str(folder / "feats.zarr"),
        "weights": "random:0",
        "grid": "aspect:4",
    }
    for words in (
        {"encoder": "vit_tiny_demo", "layers": ["norm", "block1.keys"]},
        {"encoder": "vit_tiny_demo", "layers": ["norm"], "stride": 7},
        {"encoder": "vit_tiny_demo", "layers": ["block0"], "storage": "u8"},
        {"encoder": "oracle_world"},
        {"encoder": "vggt_tiny_demo", "layers": ["frame0", "norm"], "sets": sets, "orient": "scene"},
    ):
        extract(ExtractConfig(**common, **words))  # type: ignore[arg-type]
    plain = next(key for key in keys(folder / "feats.zarr") if key.key.stride is None and "vit" in key.name)
    strata.materialise(
        strata.pca(strata.open_store(folder / "feats.zarr").select(plain.name, layers=["norm"]), 3)
    )
    return folder / "feats.zarr"


def keys(root: Path):
    return FeatureStore.open(root).keys()


def test_every_kind_is_there(root):
    found = keys(root)
    assert len(found) == 5
    assert {key.key.stride for key in found} == {None, 7}
    assert {key.key.context for key in found} == {"view", "set"}
    assert any(key.key.derived for key in found)


def test_verify_finds_nothing(root):
    assert verify(root).faults == []


def test_gc_leaves_everything(root):
    assert find_garbage(root, time.time() + 1) == []


def test_a_copy_of_all_is_whole(root, tmp_path):
    assert pull(str(root), PullConfig(out=str(tmp_path / "copy.zarr")), QUIET) == 0
    assert verify(tmp_path / "copy.zarr").faults == []
    for key in keys(root):
        for block, copy in zip(
            strata.open_store(root).select(key.name).parts,
            strata.open_store(tmp_path / "copy.zarr").select(key.name).parts,
            strict=True,
        ):
            assert copy.token_points().valid.tobytes() == block.token_points().valid.tobytes()
            assert copy.images().tobytes() == block.images().tobytes()
            for layer in block.layers:
                assert copy.tokens(layer).tobytes() == block.tokens(layer).tobytes()


def test_no_stride_is_a_choice_too(root):
    plain = strata.open_store(root).select("vit_tiny_demo", layers=["norm"], stride=None)
    strided = strata.open_store(root).select("vit_tiny_demo", layers=["norm"], stride=7)
    assert (plain.key.stride, strided.key.stride) == (None, 7)
    assert plain.parts[0].grid == strided.parts[0].grid
    with pytest.raises(SelectionError, match="other cells"):
        strata.concat(plain, strided)


def test_bytes_are_those_of_the_storage(root):
    selection = strata.open_store(root).select("vit_tiny_demo", layers=["block0", "norm"], stride=None)
    tokens = len(selection) * 3 * 4 * 64
    assert [selection.where(layers=[name]).stored_bytes for name in selection.layers] == [tokens, 2 * tokens]
    assert selection.nbytes == (4 + 2) * tokens
