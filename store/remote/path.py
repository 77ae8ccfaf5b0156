"""Where a store's bytes are: a path of this machine, or one elsewhere that can be asked the same things."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import total_ordering
from pathlib import Path
from typing import Any

from ...errors import ConfigError, StoreError
from .cache import BlockCache, cache_of
from .listing import joined
from .place import RemotePlace


@total_ordering
@dataclass(frozen=True)
class RemotePath:
    """A file or folder of a store elsewhere; what readers ask of a `pathlib.Path` it answers as that does.

    What is there was listed once, when the store was opened.

    Args:
        place: the store.
        path: in the store, with slashes; empty = the store itself.
    """

    place: RemotePlace
    path: str = ""

    def __str__(self) -> str:
        return self.place.at(self.path)

    def __lt__(self, other: RemotePath) -> bool:
        return self.path.split("/") < other.path.split("/")

    def __truediv__(self, name: str) -> RemotePath:
        return RemotePath(self.place, joined(self.path, name))

    @property
    def name(self) -> str:
        return str(self).rpartition("/")[2]

    @property
    def stem(self) -> str:
        return Path(self.name).stem

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self.place, self.path.rpartition("/")[0])

    def exists(self) -> bool:
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        return self.path in self.place.listing.files

    def is_dir(self) -> bool:
        return self.place.listing.is_folder(self.path)

    def iterdir(self) -> Iterator[RemotePath]:
        for path in self.place.listing.children(self.path):
            yield RemotePath(self.place, path)

    def glob(self, pattern: str) -> Iterator[RemotePath]:
        for path in self.place.listing.glob(self.path, pattern):
            yield RemotePath(self.place, path)

    def rglob(self, pattern: str) -> Iterator[RemotePath]:
        for file in self.place.listing.under(self.path):
            if fnmatchcase(file.path.rpartition("/")[2], pattern):
                yield RemotePath(self.place, file.path)

    def stat(self) -> os.stat_result:
        """Of a file: its size; all else is 0."""
        return os.stat_result((0, 0, 0, 0, 0, 0, self.place.listing.files[self.path].size, 0, 0, 0))

    def read_bytes(self) -> bytes:
        """A whole file.

        Raises:
            FileNotFoundError: there is none.
            RemoteError: it cannot be read.
        """
        return self.place.document(self.path)


Place = Path | RemotePath


def place_of(
    where: str | Place, options: Mapping[str, Any] | None = None, cache: BlockCache | None = None
) -> Place:
    """The path, or for a URL the place elsewhere.

    Args:
        where: a path, `file://...`, or a URL that fsspec knows: `s3://`, `https://`, `memory://` ...
        options: for fsspec.
        cache: keeps what is read from elsewhere; None = as the environment says.
    """
    if not isinstance(where, str):
        return where
    if where.startswith("file://"):
        return Path(where.removeprefix("file://"))
    if not is_elsewhere(where):
        return Path(where)
    return RemotePath(RemotePlace(where, options or {}, cache or cache_of(os.environ)))


def is_elsewhere(where: str) -> bool:
    """Whether that is a URL of something else than a file of this machine."""
    return "://" in where and not where.startswith("file://")


def local_folder(where: str, verb: str) -> str:
    """The path of a store of this machine, for the command `verb`.

    Raises:
        ConfigError: it is elsewhere.
    """
    if is_elsewhere(where):
        raise ConfigError(
            f"{verb} works on folders: pull it first.",
            where=where,
            why="only a folder of this machine can be looked through and changed file by file",
            fix=f"strata store pull {where} out=FOLDER, then strata store {verb} FOLDER",
        )
    return where.removeprefix("file://")


def written(place: str | Place) -> Path:
    """The place as a folder of this machine, for what writes.

    Raises:
        StoreError: it is elsewhere.
    """
    if isinstance(place, RemotePath) or (isinstance(place, str) and is_elsewhere(place)):
        raise StoreError(
            "a store elsewhere can be read, but not be extracted into.",
            where=place,
            why="shards are renamed into place, which only a folder of this machine can do",
            fix="extract into a folder, then `strata store push FOLDER to=URL`",
        )
    return Path(str(place).removeprefix("file://")) if isinstance(place, str) else place
