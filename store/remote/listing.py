"""Which files a store elsewhere has, as they were when it was opened."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """One file of a store.

    Attributes:
        path: in the store, with slashes.
        size: in bytes.
        version: changes when the file is replaced; empty = not known yet.
    """

    path: str
    size: int
    version: str = ""


class Listing:
    """Files by path, and the folders that they make.

    Args:
        files: all of them.
    """

    def __init__(self, files: Iterable[RemoteFile]) -> None:
        self.files = {file.path: file for file in files}
        self._names: dict[str, set[str]] = defaultdict(set)
        for path in self.files:
            while path:
                folder, _, name = path.rpartition("/")
                if name in self._names[folder]:
                    break
                self._names[folder].add(name)
                path = folder

    def is_folder(self, path: str) -> bool:
        return path in self._names

    def children(self, folder: str) -> list[str]:
        """Paths of the files and folders in a folder, in order of name."""
        return [joined(folder, name) for name in sorted(self._names.get(folder, ()))]

    def glob(self, folder: str, pattern: str) -> Iterator[str]:
        """Paths under a folder whose parts fit those of the pattern; `*` alone is a wildcard."""
        head, _, rest = pattern.partition("/")
        for path in self.children(folder) if "*" in head else [joined(folder, head)]:
            if not fnmatchcase(path.rpartition("/")[2], head):
                continue
            if rest:
                yield from self.glob(path, rest)
            elif path in self.files or self.is_folder(path):
                yield path

    def under(self, folder: str) -> Iterator[RemoteFile]:
        """All files below a folder, in order of path."""
        for path in self.children(folder):
            if path in self.files:
                yield self.files[path]
            yield from self.under(path)


def joined(folder: str, name: str) -> str:
    """`folder/name`; the store itself is the empty path."""
    return f"{folder}/{name}" if folder else name
