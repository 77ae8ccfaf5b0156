"""Reading a committed group: its document, its arrays by name, rows of them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import StoreError
from .array_reader import ArrayReader
from .arrays import ArraySpec
from .atomic import read_json
from .claims import check_claims
from .documents import unstamped
from .remote.array import RemoteArrayReader
from .remote.path import Place, RemotePath
from .shard_io import OpenShards


class StoredGroup:
    """A group that readers may see.

    Args:
        folder: the group's folder.
        check: verify checksums `always`, at the `first` touch, or `never`.
        shards: where open shards are kept; None = of this group alone.
    """

    def __init__(self, folder: Place, check: str = "first", shards: OpenShards | None = None) -> None:
        self.folder, self.check = folder, check
        self._shards = shards or OpenShards()
        self._arrays: dict[str, ArrayReader | RemoteArrayReader] = {}

    @property
    def committed(self) -> bool:
        return (self.folder / "zarr.json").exists()

    @cached_property
    def attributes(self) -> dict[str, Any]:
        return _attributes(self.folder / "zarr.json")

    def has(self, name: str) -> bool:
        return self.committed and (self.folder / name / "zarr.json").exists()

    def array_attributes(self, name: str) -> dict[str, Any]:
        return _attributes(self.folder / name / "zarr.json")

    def array(self, name: str) -> ArrayReader | RemoteArrayReader:
        """The reader of one array.

        Raises:
            StoreError: the group is not committed or has no such array, or one that claims to be what its
                files do not hold.
        """
        if name not in self._arrays:
            if not self.committed:
                raise StoreError(
                    "this part of the store is not there.",
                    where=self.folder,
                    why="it was never extracted, or its extraction was interrupted",
                    fix="run `strata extract run` with the same words again",
                )
            path = self.folder / name / "zarr.json"
            spec = ArraySpec.from_document(read_json(path), path)
            self._arrays[name] = self._reader(path.parent, spec)
        return self._arrays[name]

    def _reader(self, folder: Place, spec: ArraySpec) -> ArrayReader | RemoteArrayReader:
        if isinstance(folder, RemotePath):
            return RemoteArrayReader(folder, spec)
        check_claims(folder, spec)
        return ArrayReader(folder, spec, self.check, self._shards)

    def read(self, name: str, rows: Sequence[int] | np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """[len(rows), ...] of one array in its stored dtype."""
        return self.array(name).read(rows, out)


def _attributes(path: Place) -> dict[str, Any]:
    document = read_json(path)
    attributes = unstamped(document).get("attributes", {}) if isinstance(document, dict) else None
    if not isinstance(attributes, dict):
        raise StoreError("a document of the store has no attributes.", where=path, fix="restore the file")
    return attributes
