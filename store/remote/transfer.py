"""Copying files of a store between here and elsewhere, each verified, each whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ...errors import StoreError
from ...progress import Progress
from ..arrays import ArraySpec, check_crc
from ..atomic import read_json, whole_file, write_atomic
from ..shard_io import EMPTY, read_index
from .blocks import Span
from .path import Place, RemotePath

THREADS = 8
SMALL = 64 * 1024
TAIL = 4096
"""Larger files are the same when their sizes and these last bytes are: there lie the checksums of plain
chunks and of the indices of shards."""


def copy_groups(source: Place, target: Place, groups: Sequence[Sequence[str]], progress: Progress) -> int:
    """Copy files, one group after the other, those that are there already not; the bytes copied.

    Raises:
        StoreError: a file is damaged or cannot be copied; what was copied before stays, for the next try.
    """
    done = 0
    for group in groups:
        with ThreadPoolExecutor(THREADS) as pool:
            try:
                for size in pool.map(lambda path: _copied(source, target, path), group):
                    done += size
                    progress.advance(1, MB=round(size / 1e6, 3))
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    return done


def same(source: Place, target: Place, path: str) -> bool:
    """Whether a file is at both places; small ones are compared whole, others by size and last bytes.

    A place without byte ranges would send a large file whole to compare its end: there it counts as another.
    """
    mine, theirs = source / path, target / path
    if not theirs.is_file() or mine.stat().st_size != theirs.stat().st_size:
        return False
    if mine.stat().st_size < SMALL:
        return _tail(mine, mine.stat().st_size) == _tail(theirs, mine.stat().st_size)
    return _has_ranges(source) and _tail(mine, TAIL) == _tail(theirs, TAIL)


def _has_ranges(place: Place) -> bool:
    return not isinstance(place, RemotePath) or place.place.ranges


def check_file(file: Path, array: Place) -> None:
    """Verify the checksums of a chunk file that belongs to an array.

    Args:
        file: the bytes, under whatever name.
        array: the array's folder, whose `zarr.json` says what the bytes are.

    Raises:
        StoreError: they are not what was written.
    """
    document = read_json(array / "zarr.json")
    if document.get("data_type") == "string":
        return
    spec = ArraySpec.from_document(document, array)
    if not spec.sharded:
        check_crc(file.read_bytes(), file)
        return
    with file.open("rb") as handle:
        for number, (offset, size) in enumerate(read_index(file, spec.unit).tolist()):
            if offset != EMPTY:
                check_crc(os.pread(handle.fileno(), size, offset), f"{file}, chunk {number}")


def _copied(source: Place, target: Place, path: str) -> int:
    if same(source, target, path):
        return 0
    copy: Callable[..., None] = _push if isinstance(target, RemotePath) else _pull
    copy(source / path, target / path)
    return (source / path).stat().st_size


def _pull(source: Place, target: Path) -> None:
    if not _is_chunk(source):
        write_atomic(target, source.read_bytes())
        return
    with whole_file(target) as partial:
        _download(source, partial)
        try:
            check_file(partial, source.parent)
        except StoreError:
            _download(source, partial)
            _check_copy(partial, source)


def _push(source: Path, target: RemotePath) -> None:
    if _is_chunk(source):
        check_file(source, source.parent)
    target.place.upload(source, target.path)


def _download(source: Place, partial: Path) -> None:
    if isinstance(source, RemotePath):
        source.place.download(source.path, partial)
    else:
        shutil.copyfile(source, partial)


def _check_copy(partial: Path, source: Place) -> None:
    try:
        check_file(partial, source.parent)
    except StoreError as error:
        raise StoreError(
            "a file arrived damaged twice.",
            where=source,
            why=error.what,
            fix="the file is damaged where it lies: push or extract it again there",
        ) from None


def _is_chunk(path: Place) -> bool:
    return path.name.startswith("c.")


def _tail(path: Place, count: int) -> bytes:
    if isinstance(path, RemotePath):
        file = path.place.file(path.path)
        return path.place.read([Span(file=file, start=file.size - count, stop=file.size)])[0]
    with path.open("rb") as handle:
        return os.pread(handle.fileno(), count, max(0, path.stat().st_size - count))
