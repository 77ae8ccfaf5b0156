"""Writing a group: whole shards by one owner, the documents at the end, the group's own one last.

A unit is a run of views; its shards are written when all its rows are there, each whole, under a
temporary name, fsynced and renamed. A shard that exists is done. The group becomes visible when its
`zarr.json` is renamed into place, after every shard has been listed once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import StoreError
from .arrays import (
    ArraySpec,
    Parts,
    chunk_parts,
    encode_chunk,
    encode_strings,
    group_document,
    strings_document,
)
from .atomic import json_text, whole_file, write_atomic
from .documents import stamped, write_document
from .inside import check_inside
from .layout import GroupSpec
from .schema import Bundle, ViewRow
from .shard_io import present_chunks, shard_parts
from .write_parts import write_parts

Row = Mapping[str, np.ndarray]
COMMITS = 8


@dataclass
class UnitBuffer:
    """The encoded chunks of one unit, until all its rows are there. A row of None has failed."""

    spec: GroupSpec
    unit: int
    rows: dict[int, dict[str, Parts | np.ndarray] | None] = field(default_factory=dict)

    def add(self, row: int, values: Row | None) -> None:
        """Take one view's arrays.

        Those to be compressed are, at once. Others that are sharded are kept as they are and not copied:
        nobody may write to them any more.
        """
        self.rows[row] = (
            None
            if values is None
            else {
                name: _kept(spec, values[name]) for name, spec in self.spec.by_unit.items() if name in values
            }
        )

    @property
    def complete(self) -> bool:
        return all(row in self.rows for row in any_spec(self.spec).rows(self.unit))

    def parts(self, name: str, spec: ArraySpec) -> Iterable[bytes | memoryview]:
        """The file of one array for this unit, part by part."""
        rows = spec.rows(self.unit)
        values = [(self.rows[row] or {}).get(name) for row in rows]
        if spec.sharded:
            # Checksums are made between the writes: so a chunk comes out of memory once.
            chunks = (chunk_parts(spec, v) if isinstance(v, np.ndarray) else v for v in values)
            return shard_parts(chain(chunks, [None] * (spec.unit - len(rows))))
        plain = spec.fill_array(spec.unit)
        for i, value in enumerate(values):
            if value is not None:
                plain[i] = value
        return chunk_parts(spec, plain)


def _kept(spec: ArraySpec, values: np.ndarray) -> Parts | np.ndarray:
    if not spec.sharded:
        return np.array(values)
    return chunk_parts(spec, values) if spec.blosc else values


class GroupWriter:
    """Writes one group of a store; safe to run beside another writer of the same group.

    Args:
        root: the store.
        spec: the group.
    """

    def __init__(self, root: Path, spec: GroupSpec) -> None:
        self.spec, self.root, self.folder = spec, root, root / spec.folder

    @property
    def committed(self) -> bool:
        """Whether readers see the group, with all its arrays."""
        documents = [
            self.folder / "zarr.json",
            *(self.folder / name / "zarr.json" for name in self.spec.arrays),
        ]
        return all(path.exists() for path in documents)

    @property
    def started(self) -> bool:
        """Whether any shard of the group is there."""
        return any(len(self.done_units(name)) > 0 for name in self.spec.by_unit)

    def done_units(self, name: str) -> set[int]:
        """Units of one array whose file is there and whole."""
        spec = self.spec.arrays[name]
        return {unit for unit in range(spec.units) if self._whole(name, spec, unit)}

    def has_unit(self, unit: int) -> bool:
        """Whether all files of a unit are there and whole."""
        return all(self._whole(name, spec, unit) for name, spec in self.spec.by_unit.items())

    def missing_units(self) -> list[int]:
        """Units that are still to be written, in order."""
        specs = self.spec.by_unit
        if not specs or self.committed:
            return []
        done = set.intersection(*(self.done_units(name) for name in specs))
        return [unit for unit in range(any_spec(self.spec).units) if unit not in done]

    def prepare(self) -> None:
        """Look where it would be written.

        Raises:
            StoreError: the group leads out of the store.
        """
        for name in self.spec.arrays:
            check_inside(self.root, self.folder / name)

    def write(self, buffer: UnitBuffer) -> int:
        """Put a complete unit on disk; returns the bytes written.

        Raises:
            DiskFullError, StoreError: it could not be written; nothing half-written is visible.
        """
        written = 0
        for name, spec in self.spec.by_unit.items():
            with whole_file(self.folder / name / spec.file(buffer.unit)) as partial:
                written += write_parts(partial, buffer.parts(name, spec))
        return written

    def empty_rows(self, name: str) -> list[int]:
        """Rows of a sharded array that have no chunk, over all units.

        Raises:
            StoreError: a unit is missing.
        """
        spec = self.spec.arrays[name]
        empty: list[int] = []
        for unit in range(spec.units):
            present = present_chunks(self.folder / name / spec.file(unit), spec.unit)
            if present is None:
                raise StoreError(
                    "a group cannot be committed before all its shards are there.",
                    where=self.folder / name / spec.file(unit),
                    fix="run the extraction again; it continues with what is missing",
                )
            empty += [row for i, row in enumerate(spec.rows(unit)) if not present[i]]
        return empty

    def commit(
        self,
        labels: tuple[list[str], list[str]],
        *,
        whole: Mapping[str, np.ndarray] | None = None,
        attributes: Mapping[str, dict[str, Any]] | None = None,
    ) -> None:
        """Make the group visible.

        Args:
            labels: of each row, the view's `<dataset>/<scene>/<frame>` and the scene id.
            whole: values of the arrays with one chunk for the bundle.
            attributes: by array name.
        """
        for name, spec in self.spec.by_unit.items():
            if spec.sharded:
                self.empty_rows(name)
        for name, values in (whole or {}).items():
            spec = self.spec.arrays[name]
            write_atomic(self.folder / name / spec.file(0), encode_chunk(spec, values))
        self.label(labels)
        # `tokens` is the last of the arrays: whoever looks at it alone sees the whole layer.
        for name in sorted(self.spec.arrays, key=lambda name: name == "tokens"):
            document = self.spec.arrays[name].document((attributes or {}).get(name, {}))
            write_if_changed(self.folder / name / "zarr.json", document)
        own = {**({"coordinates": "scene"} if self.spec.labels else {}), **self.spec.attributes}
        write_document(self.folder / "zarr.json", group_document(own))

    def label(self, labels: tuple[list[str], list[str]]) -> None:
        """Write the arrays `view` and `scene` beside the rows, unless they are there as they should be."""
        folder = self.folder if self.spec.labels else self.folder.parent
        check_inside(self.root, folder / "view")
        check_inside(self.root, folder / "scene")
        _write_labels(folder, labels)
        if not self.spec.labels:
            write_if_changed(folder / "zarr.json", group_document({"coordinates": "scene"}))

    def _whole(self, name: str, spec: ArraySpec, unit: int) -> bool:
        path = self.folder / name / spec.file(unit)
        if not path.exists():
            return False
        if spec.sharded:
            # Also finds a shard that was cut for another number of views: its index does not fit.
            return present_chunks(path, spec.unit) is not None
        return path.stat().st_size == spec.unit * spec.row_bytes + 4


Layer = tuple[GroupWriter, Mapping[str, dict[str, Any]]]
"""Of a bundle, with the attributes of its arrays."""


def commit_layers(layers: Sequence[Layer], labels: tuple[list[str], list[str]]) -> None:
    """Commit layers of one bundle side by side.

    A commit is a few small files, and the time it takes is that of waiting for the disk each time. File
    systems serve those who wait at the same moment together.
    """
    if not layers:
        return
    layers[0][0].label(labels)  # what they share, before all of them find it missing
    with ThreadPoolExecutor(COMMITS, "commit") as pool:
        tasks = [pool.submit(writer.commit, labels, attributes=given) for writer, given in layers]
        for task in tasks:
            task.result()


def any_spec(spec: GroupSpec) -> ArraySpec:
    """One of the arrays that are written by unit; they share the unit."""
    return next(iter(spec.by_unit.values()))


def row_labels(bundle: Bundle, views: Sequence[ViewRow]) -> tuple[list[str], list[str]]:
    """`view` and `scene` labels of a bundle's rows."""
    scenes = [row.id for row in bundle.scenes for _ in range(row.start, row.stop)]
    names = [f"{scene}/{view.name}" for scene, view in zip(scenes, views, strict=True)]
    for one in bundle.sets:  # a view may be in many of them
        for row in range(one.start, one.stop):
            names[row] += f"@{one.digest[:16]}"
    return names, scenes


def write_if_changed(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON document unless it is there already, whole; a damaged one is written anew."""
    if not path.exists() or path.read_bytes() != json_text(stamped(document)).encode():
        write_document(path, document)


def _write_labels(folder: Path, labels: tuple[list[str], list[str]]) -> None:
    for name, values in zip(("view", "scene"), labels, strict=True):
        chunk, encoded = folder / name / "c.0", encode_strings(values)
        # Frames that were renamed keep their images and so their bundle.
        if not chunk.exists() or chunk.read_bytes() != encoded:
            write_atomic(chunk, encoded)
        write_if_changed(folder / name / "zarr.json", strings_document(len(values), "view"))
