"""One store elsewhere: its listing, its documents, its bytes."""

from __future__ import annotations

import bisect
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from ...errors import RemoteError, StoreError
from . import contents
from .blocks import Blocks, Span, whole
from .cache import BlockCache
from .failures import explained, no_such_place, refused
from .listing import Listing, RemoteFile

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

Got = TypeVar("Got")

# A web server has no listing that could be trusted: what it shows for a folder is a page for people.
_UNLISTED = ("http://", "https://")
_VERSIONS = ("ETag", "etag", "Content-MD5", "md5Hash", "LastModified", "Last-Modified", "mtime", "created")
_WITH = 256
_WITH_BYTES = 1 << 20
_PAUSES_S = (0.2, 1.0)


class RemotePlace:
    """The files of a store at a URL, as they were when it was first asked for one.

    Args:
        url: of any protocol that fsspec knows.
        options: for fsspec, such as `endpoint_url`, `key` and `secret` of S3.
        cache: keeps what was read.
    """

    def __init__(self, url: str, options: Mapping[str, Any], cache: BlockCache) -> None:
        self.url = url.rstrip("/")
        self._options, self._opened = dict(options), None
        self._blocks = Blocks(self.url, self._fetch, cache)
        self._documents: dict[str, bytes] = {}

    def __repr__(self) -> str:
        return f"RemotePlace({self.url!r})"

    @property
    def filesystem(self) -> tuple[AbstractFileSystem, str]:
        """fsspec's file system and the path of the store in it; a forked process opens its own.

        Raises:
            ConfigError: no installed library knows the URL.
            RemoteError: it cannot be reached.
        """
        if self._opened is None or self._opened[0] != os.getpid():
            try:
                from fsspec.core import url_to_fs

                self._opened = os.getpid(), url_to_fs(self.url, **self._options)
            except (ImportError, ValueError) as error:
                raise no_such_place(error, self.url) from None
            except Exception:
                # Some file systems, such as FTP, connect when they are made.
                with explained(self.url):
                    raise
        return self._opened[1]

    @cached_property
    def listing(self) -> Listing:
        """Every file of the store.

        Raises:
            RemoteError: it cannot be reached, or not be listed and has no `contents.json`.
        """
        if self._unlisted:
            return self._from_contents()
        system, root = self.filesystem
        try:
            with explained(self.url):
                system.invalidate_cache(root)
                found: dict[str, dict[str, Any]] = system.find(root, detail=True)  # type: ignore[assignment]
        except FileNotFoundError:
            return Listing(())
        except RemoteError as error:
            if refused(error.__cause__):
                return self._from_contents(error)
            raise
        return Listing(_file(path[len(root) :].strip("/"), info) for path, info in found.items())

    def file(self, path: str) -> RemoteFile:
        """A file with its version.

        Raises:
            FileNotFoundError: there is none.
        """
        file = self.listing.files.get(path)
        if file is None:
            raise FileNotFoundError(2, "there is no such file", self.at(path))
        return file if file.version else self._looked_up(path)

    def read(self, spans: Sequence[Span]) -> list[bytes]:
        """Bytes of files, those that are not in the cache all at once.

        Raises:
            RemoteError: they cannot be read.
            FileNotFoundError: a file is gone.
        """
        return self._blocks.read(spans)

    def pieces(self, spans: Sequence[Span]) -> list[list[memoryview]]:
        """`read` without putting the pieces of a span together."""
        return self._blocks.pieces(spans)

    def document(self, path: str) -> bytes:
        """A whole file; with it come, for later, the documents next to it, which alone would each take long.

        Raises:
            FileNotFoundError: there is none.
        """
        if path not in self._documents:
            files = [self.file(path), *map(self.file, self._next_documents(path))]
            for file, data in zip(files, self.read([whole(file) for file in files]), strict=True):
                self._documents[file.path] = data
        return self._documents[path]

    @cached_property
    def ranges(self) -> bool:
        """Whether a part of a file can be had; a web server may send the whole file instead.

        Raises:
            RemoteError: it cannot be reached.
        """
        file = self.listing.files.get("zarr.json")
        if not self._unlisted or file is None or file.size < 2:
            return True
        system, root = self.filesystem
        first = self._tried(
            lambda: system.cat_file(f"{root}/{file.path}", start=0, end=1), self.at(file.path)
        )
        return len(first) == 1

    def check_ranges(self) -> None:
        """Refuse a place that sends whole files where a part is asked for.

        Raises:
            StoreError: it does.
            RemoteError: it cannot be reached.
        """
        if not self.ranges:
            raise StoreError(
                "the web server sends whole files where a part is asked for.",
                where=self.url,
                why="shards are read by byte ranges, which this server ignores (python -m http.server does)",
                fix="serve the folder with nginx, Apache, Caddy or an object store; or copy it here, which "
                f"needs no ranges: strata store pull {self.url} out=FOLDER.zarr",
            )

    def forget(self, path: str) -> None:
        """Drop what is kept of a file, which may have been replaced or spoilt."""
        self._blocks.forget(self.file(path))
        self._documents.pop(path, None)
        self._looked_up(path)

    def download(self, path: str, target: Path) -> None:
        """Put a whole file, however large, into a local one."""
        system, root = self.filesystem
        self._tried(lambda: system.get_file(f"{root}/{path}", str(target)), self.at(path))

    def upload(self, source: Path, path: str) -> None:
        """Put a local file there as one object, which appears whole.

        Raises:
            RemoteError: the place cannot be written.
        """
        self._written(path, lambda system, full: system.put_file(str(source), full))

    def upload_bytes(self, data: bytes, path: str) -> None:
        """`upload` of bytes."""
        self._written(path, lambda system, full: system.pipe_file(full, data))

    def _written(self, path: str, write: Callable[[AbstractFileSystem, str], object]) -> None:
        system, root = self.filesystem
        try:
            with explained(self.at(path)):
                write(system, f"{root}/{path}")
        except FileNotFoundError as error:
            fix = "create the bucket, or correct its name"
            raise RemoteError("there is no such bucket.", where=self.url, why=str(error), fix=fix) from None

    def at(self, path: str) -> str:
        """The URL of a file."""
        return f"{self.url}/{path}" if path else self.url

    def _next_documents(self, path: str) -> list[str]:
        """Up to 256 documents, or 1 MB, that follow one in its part of the store and are not known yet."""
        if not contents.is_document(path):
            return []
        top, found, size = path.partition("/")[0], [], 0
        for other in islice(self._order, bisect.bisect_right(self._order, path), None):
            size += self.listing.files[other].size
            if other.partition("/")[0] != top or len(found) == _WITH or size > _WITH_BYTES:
                break
            if other not in self._documents:
                found.append(other)
        return found

    @property
    def _unlisted(self) -> bool:
        return self.url.startswith(_UNLISTED)

    @cached_property
    def _order(self) -> list[str]:
        return sorted(filter(contents.is_document, self.listing.files))

    def _from_contents(self, refused: RemoteError | None = None) -> Listing:
        try:
            data = self._whole(contents.NAME)
        except FileNotFoundError:
            if refused is not None:
                raise refused from None
            return self._without_contents()
        listing, self._documents = contents.parse_contents(data, self.at(contents.NAME))
        return listing

    def _without_contents(self) -> Listing:
        try:
            self._whole("zarr.json")
        except FileNotFoundError:
            return Listing(())
        raise StoreError(
            f"this place cannot be listed, and the store has no {contents.NAME}.",
            where=self.url,
            why="a web server does not say which files it has",
            fix="run `strata store contents PATH` where the store lies, or bring it there with `store push`",
        )

    def _whole(self, path: str) -> bytes:
        """A file that is not in the listing."""
        system, root = self.filesystem
        return cast(bytes, self._tried(lambda: system.cat_file(f"{root}/{path}"), self.at(path)))

    def _fetch(self, spans: Sequence[Span]) -> list[bytes]:
        if not spans:
            return []
        system, root = self.filesystem
        paths = [f"{root}/{span.file.path}" for span in spans]
        starts, stops = [span.start for span in spans], [span.stop for span in spans]
        where = self.at(spans[0].file.path)
        got = self._tried(lambda: system.cat_ranges(paths, starts, stops, on_error="raise"), where)
        for span, data in zip(spans, got, strict=True):
            _check_length(span, data, self.at(span.file.path))
        return got

    def _looked_up(self, path: str) -> RemoteFile:
        system, root = self.filesystem

        def look() -> dict[str, Any]:
            system.invalidate_cache(f"{root}/{path}".rpartition("/")[0])
            return system.info(f"{root}/{path}")

        found = _file(path, self._tried(look, self.at(path)))
        # A place without versions has the file's size for one.
        self.listing.files[path] = replace(found, version=found.version or "unknown")
        return self.listing.files[path]

    def _tried(self, ask: Callable[[], Got], where: str) -> Got:
        # Libraries of object stores try again by themselves.
        for pause_s in _PAUSES_S if self._unlisted else ():
            try:
                with explained(where):
                    return ask()
            except RemoteError as error:
                if refused(error.__cause__):
                    raise
                time.sleep(pause_s)
        with explained(where):
            return ask()


def _file(path: str, info: Mapping[str, Any]) -> RemoteFile:
    version = next((str(info[name]) for name in _VERSIONS if info.get(name)), "")
    return RemoteFile(path=path, size=int(info["size"] or 0), version=version)


def _check_length(span: Span, data: bytes, where: str) -> None:
    if len(data) == span.stop - span.start:
        return
    raise StoreError(
        f"{span.stop - span.start:,} bytes were asked for, {len(data):,} came.",
        where=where,
        why="the file was replaced while it was read",
        fix="open the store again",
    )
