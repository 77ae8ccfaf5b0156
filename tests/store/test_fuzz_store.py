"""Stores from elsewhere: an error of ours, or what was stored, within the memory that the files can fill."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from hypothesis import strategies as st
from strata.errors import StrataError
from strata.store.arrays import ArraySpec, encode_chunk
from strata.store.atomic import write_atomic, write_json
from strata.store.claims import check_claims
from strata.store.feature_store import FeatureStore
from strata.store.group import StoredGroup
from strata.store.maintain.verify import verify
from strata.store.shard_io import shard_parts


@pytest.fixture(scope="module")
def whole(tmp_path_factory, new_pipeline):
    """A small store: its folder, and its bytes by path."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda handle: None)
        made = new_pipeline(tmp_path_factory.mktemp("whole"))
        made.add("a", views=2)
        made.extract(layers=["norm"])
    return made.root, {path: path.read_bytes() for path in made.root.rglob("*") if path.is_file()}


def everything(root):
    """All that readers read of a store."""
    store = FeatureStore.open(root, check="always")
    found = {}
    for key in store.keys():
        selection = store.select(key.name)
        found[key.name] = [sorted(grid.views) for grid in selection.load()]
        for block in selection.blocks():
            for read in (block.images, block.geometry, block.token_points, block.token_from_source_px):
                read()
    return store.splits(), store.view_sets(), found


def tokens_and_prefix(root):
    block = next(FeatureStore.open(root).select("colour").blocks())
    return block.tokens("norm"), block.prefix("norm")


def changed(whole, path, data):
    root, files = whole
    path.write_bytes(data)
    return root, sum(map(len, files.values())) + len(data)


def test_documents_changed_in_places(fuzz, whole):
    root, files = whole
    documents = sorted(path for path in files if path.suffix == ".json" and path.parent.name != "runs")

    @fuzz
    def _(data):
        path = documents[data.draw(fuzz.index(documents), label="document")]
        try:
            text = json.dumps(fuzz.document(data, json.loads(files[path]))).encode()
            _, size = changed(whole, path, text)
            read = data.draw(st.sampled_from([everything, verify]), label="read")
            fuzz.read(lambda: read(root), root, size)
        finally:
            path.write_bytes(files[path])


def test_files_changed_in_bytes(fuzz, whole):
    root, files = whole
    paths = sorted(path for path in files if path.parent.name != "runs")

    @fuzz
    def _(data):
        path = paths[data.draw(fuzz.index(paths), label="file")]
        try:
            _, size = changed(whole, path, fuzz.bytes(data, files[path]))
            read = data.draw(st.sampled_from([everything, verify]), label="read")
            fuzz.read(lambda: read(root), root, size)
        finally:
            path.write_bytes(files[path])


@pytest.mark.parametrize("blosc", [False, True])
@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("shape", [(2, 10**5, 10**5, 10**5), (10**15, 4), (2, 2**40)])
def test_what_claims_more_than_its_files_is_not_read(tmp_path, shape, sharded, blosc):
    dims = ("view", "row", "col", "channel")[: len(shape)]
    kind = {"dtype": "float32", "sharded": sharded, "blosc": blosc and sharded}
    small = ArraySpec(shape=(2, *[4] * (len(shape) - 1)), dims=dims, unit=2, **kind)
    chunks = [encode_chunk(small, np.zeros(small.shape[1:], np.float32))] * 2
    parts = shard_parts(chunks) if sharded else [encode_chunk(small, np.zeros(small.shape, np.float32))]
    claim = ArraySpec(shape=shape, dims=dims, unit=min(shape[0], 10**14), **kind)
    write_atomic(tmp_path / "a" / claim.file(0), parts)
    write_json(tmp_path / "a" / "zarr.json", claim.document({}))
    write_json(tmp_path / "zarr.json", {"attributes": {}})
    with pytest.raises(StrataError):
        StoredGroup(tmp_path).read("a", [0])


def test_an_honest_array_passes(tmp_path):
    dims = ("view", "y", "x")
    spec = ArraySpec(
        shape=(3, 600, 800), dims=dims, dtype="float32", unit=2, sharded=True, blosc=True, fill=0.0
    )
    zeros = encode_chunk(spec, np.zeros((600, 800), np.float32))
    write_atomic(tmp_path / spec.file(0), shard_parts([None, None]))
    write_atomic(tmp_path / spec.file(1), shard_parts([zeros, None]))
    assert check_claims(tmp_path, spec) is None


def test_a_pipe_does_not_make_a_reader_wait(whole):
    root, files = whole
    for pattern in ("catalog/*.views.json", "features/*/*/norm/tokens/c.0*", "features/*/*/norm/prefix/c.0*"):
        path = next(root.glob(pattern))
        path.unlink()
        os.mkfifo(path)
        try:
            with pytest.raises(StrataError):
                tokens_and_prefix(root)
        finally:
            path.unlink()
            path.write_bytes(files[path])
