"""Tokens as tensors, as they are stored; and where their bytes lie, for readers that go past us."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from strata.store.feature_store import FeatureStore


def block_of(pipeline, check="first", **options):
    pipeline.add("a")
    pipeline.extract(layers=["norm"], **options)
    return FeatureStore.open(pipeline.root, check).select("colour").parts[0]


@pytest.mark.parametrize(
    ("storage", "dtype"), [("f16", torch.float16), ("bf16", torch.bfloat16), ("f32", torch.float32)]
)
def test_tensors_are_what_is_stored(pipeline, storage, dtype):
    block = block_of(pipeline, storage=storage)
    tensor = block.tensor("norm", [2, 0])
    assert isinstance(tensor, torch.Tensor)
    assert tensor.dtype == dtype
    np.testing.assert_array_equal(tensor.float().numpy(), block.tokens("norm", [2, 0]).astype(np.float32))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("storage", ["f16", "bf16", "f32", "u8"])
def test_tensors_on_a_gpu_are_those_of_the_cpu(pipeline, storage):
    block = block_of(pipeline, storage=storage)
    for _ in range(2):  # verified, then settled: straight from the disk where kvikio is there
        here, there = block.tensor("norm"), block.tensor("norm", device="cuda")
        here, there = (
            read if isinstance(read, torch.Tensor) else read.dequantize() for read in (here, there)
        )
        assert there.cpu().equal(here)


def test_places_are_given_once_nothing_is_to_be_verified(pipeline):
    block = block_of(pipeline)
    reader = block._tokens("norm").reader
    assert reader.settled([2, 0]) is None
    values = block.tokens("norm")
    places = reader.settled([2, 0])
    assert places is not None
    for (path, offset), expected in zip(places, values[[2, 0]], strict=True):
        with open(path, "rb") as file:
            file.seek(offset)
            assert file.read(expected.nbytes) == expected.tobytes()
    always = FeatureStore.open(pipeline.root, "always").select("colour").parts[0]
    always.tokens("norm")
    assert always._tokens("norm").reader.settled([0]) is None
    assert (
        FeatureStore.open(pipeline.root, "never")
        .select("colour")
        .parts[0]
        ._tokens("norm")
        .reader.settled([0])
    )


def test_a_file_that_took_the_place_of_another_has_no_places(pipeline):
    block = block_of(pipeline)
    block.tokens("norm")
    reader = block._tokens("norm").reader
    path = Path(str(reader.folder), reader.spec.file(0))
    shutil.copy(path, path.with_name("new"))
    os.replace(path.with_name("new"), path)
    assert reader.settled([0]) is None
    path.unlink()
    assert reader.settled([0]) is None


@pytest.mark.skipif(not find_spec("tensorstore"), reason="needs tensorstore")
@pytest.mark.parametrize("storage", ["f16", "f32", "u8"])
def test_tensorstore_reads_the_same_tokens(pipeline, storage):
    import tensorstore

    block = block_of(pipeline, storage=storage)
    folder = block._tokens("norm").group.folder / "tokens"
    spec = {"driver": "zarr3", "kvstore": {"driver": "file", "path": str(folder)}}
    theirs = tensorstore.open(spec).result().read().result()
    np.testing.assert_array_equal(theirs[list(block.rows)], block._tokens("norm").stored(block.rows))
