"""Sizes that a store's documents claim, against its files, before memory is asked for them.

A store may come from elsewhere: a `zarr.json` of a few bytes can claim any shape. What is read is bounded by
what lies on disk: raw chunks are as long as a view is large, compressed ones expand within reason.
"""

from __future__ import annotations

from pathlib import Path

from ..errors import StoreError
from .arrays import ArraySpec
from .open_shard import EMPTY
from .shard_io import read_index

MOST_EXPANSION = 20_000
"""zstd shrinks zeros by 13,000 at most in the blocks that blosc makes."""
MOST_UNSEEN_BYTES = 1 << 28
"""Of a view of an array that has no chunk at all: nothing on disk speaks for its size."""


def check_claims(folder: Path, spec: ArraySpec) -> None:
    """The size of a view, against the first of the array's chunks that is there.

    Raises:
        StoreError: the document claims more than the files hold, or a shard does not fit it.
    """
    for unit in range(min(spec.units, _files(folder))):
        path = folder / spec.file(unit)
        if not path.exists():
            continue
        if not spec.sharded:
            if path.stat().st_size != spec.unit * spec.row_bytes + 4:
                raise _too_large(spec, path)
            return
        there = [int(size) for offset, size in read_index(path, spec.unit) if int(offset) != EMPTY]
        if there:
            check_claim(spec, there[0], path)
            return
    if spec.row_bytes > MOST_UNSEEN_BYTES:
        raise _too_large(spec, folder)


def check_claim(spec: ArraySpec, chunk_bytes: int, where: Path) -> None:
    """The size of a view, against one chunk of that many bytes.

    Raises:
        StoreError: they do not fit.
    """
    expands = spec.blosc and spec.row_bytes <= MOST_EXPANSION * chunk_bytes
    if not expands and (spec.blosc or spec.row_bytes + 4 != chunk_bytes):
        raise _too_large(spec, where)


def _files(folder: Path) -> int:
    return sum(1 for _ in folder.glob("c.*"))


def _too_large(spec: ArraySpec, where: Path) -> StoreError:
    return StoreError(
        f"an array's document claims {spec.row_bytes:,} bytes a view, and its files hold another number.",
        where=where,
        why=f"its shape is {list(spec.shape)}, in units of {spec.unit:,} views",
        fix="`strata store verify` tells what else is wrong; copy the store again, or extract again",
    )
