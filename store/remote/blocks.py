"""Byte ranges of files from elsewhere, through the cache, in as few requests as they need."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .cache import BlockCache
from .listing import RemoteFile

BLOCK = 1 << 20
RUN_BLOCKS = 16
"""Blocks that follow each other come in one request of at most 16 MiB."""


@dataclass(frozen=True, kw_only=True)
class Span:
    """The bytes start:stop of a file."""

    file: RemoteFile
    start: int
    stop: int


def whole(file: RemoteFile) -> Span:
    """All of a file."""
    return Span(file=file, start=0, stop=file.size)


Fetch = Callable[[Sequence[Span]], Sequence[bytes]]
Key = tuple[RemoteFile, int]


class Blocks:
    """Reads spans by blocks of 1 MiB that the cache keeps; without a cache exactly what is asked for.

    Args:
        place: the address of the store; blocks of one store are not those of another.
        fetch: gets spans from there, all at once.
        cache: keeps the blocks.
    """

    def __init__(self, place: str, fetch: Fetch, cache: BlockCache) -> None:
        self._place, self._fetch, self._cache = place, fetch, cache

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """The bytes of each span."""
        return [b"".join(pieces) for pieces in self.pieces(spans)]

    def pieces(self, spans: Sequence[Span]) -> list[list[memoryview]]:
        """Of each span the pieces that it is made of, in order, as they came: nothing is copied."""
        if not self._cache.limit:
            return [[memoryview(data)] for data in self._fetch(spans)]
        keys = dict.fromkeys((span.file, number) for span in spans for number in _numbers(span))
        found = {key: self._cache.get(self._name(*key)) for key in keys}
        there = {key: memoryview(data) for key, data in found.items() if data is not None}
        runs = block_runs([key for key in keys if key not in there])
        for run, data in zip(runs, self._fetch([_extent(run) for run in runs]), strict=True):
            for i, key in enumerate(run):
                there[key] = memoryview(data)[i * BLOCK : (i + 1) * BLOCK]
                self._cache.put(self._name(*key), there[key])
        return [_cut(span, there) for span in spans]

    def forget(self, file: RemoteFile) -> None:
        """Drop every block of a file from the cache."""
        for number in range(-(-file.size // BLOCK)):
            self._cache.drop(self._name(file, number))

    def _name(self, file: RemoteFile, number: int) -> str:
        identity = "\n".join((self._place, file.path, file.version, str(file.size)))
        return f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.{number}"


def block_runs(keys: Sequence[Key]) -> list[list[Key]]:
    """Blocks that follow each other in a file, put together, at most 16."""
    runs: list[list[Key]] = []
    for file, number in sorted(keys, key=lambda key: (key[0].path, key[1])):
        if runs and runs[-1][-1] == (file, number - 1) and len(runs[-1]) < RUN_BLOCKS:
            runs[-1].append((file, number))
        else:
            runs.append([(file, number)])
    return runs


def _numbers(span: Span) -> range:
    return range(span.start // BLOCK, -(-span.stop // BLOCK))


def _extent(run: Sequence[Key]) -> Span:
    file = run[0][0]
    return Span(file=file, start=run[0][1] * BLOCK, stop=min((run[-1][1] + 1) * BLOCK, file.size))


def _cut(span: Span, blocks: dict[Key, memoryview]) -> list[memoryview]:
    """The span out of the blocks that cover it."""
    starts = ((number, number * BLOCK) for number in _numbers(span))
    return [
        blocks[span.file, number][max(0, span.start - base) : span.stop - base] for number, base in starts
    ]
