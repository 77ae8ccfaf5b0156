"""Writing a group: whole shards by one owner, the documents at the end, the group's own one last.

A unit is a run of views; its shards are written when all its rows are there, each whole, under a
temporary name, fsynced and renamed. A shard that exists is done. The group becomes visible when its
`zarr.json` is renamed into place, after every shard has been listed once more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
from .atomic import json_text, whole_file
from .documents import stamped
from .inside import check_inside
from .layout import GroupSpec
from .schema import Bundle, ViewRow
from .shard_io import present_chunks, shard_parts
from .together import Together, together
from .write_parts import write_parts

Row = Mapping[str, np.ndarray]
Attributes = Mapping[str, dict[str, Any]]
"""Of arrays, by their names."""


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

        The names of its files survive a power cut once the group is committed.

        Raises:
            DiskFullError, StoreError: it could not be written; nothing half-written is visible.
        """
        written = 0
        for name, spec in self.spec.by_unit.items():
            with whole_file(self.folder / name / spec.file(buffer.unit), settle=False) as partial:
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
        _commit([(self, attributes or {})], labels, whole or {})

    def label(self, labels: tuple[list[str], list[str]]) -> None:
        """Write the arrays `view` and `scene` beside the rows, unless they are there as they should be."""
        with together() as files:
            self._label(files, labels)

    def _label(self, files: Together, labels: tuple[list[str], list[str]]) -> None:
        folder = self.folder if self.spec.labels else self.folder.parent
        for name, values in zip(("view", "scene"), labels, strict=True):
            check_inside(self.root, folder / name)
            # Frames that were renamed keep their images and so their bundle.
            _unless_there(files, folder / name / "c.0", encode_strings(values))
            _document(files, folder / name / "zarr.json", strings_document(len(values), "view"))
        if not self.spec.labels:
            _document(files, folder / "zarr.json", group_document({"coordinates": "scene"}))

    def _arrays(self, files: Together, whole: Mapping[str, np.ndarray], attributes: Attributes) -> None:
        """What readers of the arrays need; the shards are listed once more."""
        for name, spec in self.spec.by_unit.items():
            if spec.sharded:
                self.empty_rows(name)
        for name, values in whole.items():
            spec = self.spec.arrays[name]
            files.write(self.folder / name / spec.file(0), encode_chunk(spec, values))
        # `tokens` is the last of the arrays: whoever looks at it alone sees the whole layer.
        for name in sorted(self.spec.arrays, key=lambda name: name == "tokens"):
            document = self.spec.arrays[name].document(attributes.get(name, {}))
            _document(files, self.folder / name / "zarr.json", document)
            files.settle(_up_to(self.root, self.folder / name))

    def _group(self, files: Together) -> None:
        own = {**({"coordinates": "scene"} if self.spec.labels else {}), **self.spec.attributes}
        files.write(self.folder / "zarr.json", _text(group_document(own)))

    def _whole(self, name: str, spec: ArraySpec, unit: int) -> bool:
        path = self.folder / name / spec.file(unit)
        if not path.exists():
            return False
        if spec.sharded:
            # Also finds a shard that was cut for another number of views: its index does not fit.
            return present_chunks(path, spec.unit) is not None
        return path.stat().st_size == spec.unit * spec.row_bytes + 4


Layer = tuple[GroupWriter, Attributes]
"""Of a bundle, with the attributes of its arrays."""


def commit_layers(layers: Sequence[Layer], labels: tuple[list[str], list[str]]) -> None:
    """Commit layers of one bundle; they wait for the disk together."""
    if layers:
        _commit(layers, labels, {})


def _commit(
    layers: Sequence[Layer], labels: tuple[list[str], list[str]], whole: Mapping[str, np.ndarray]
) -> None:
    with together() as files:
        layers[0][0]._label(files, labels)  # what they share
        for writer, attributes in layers:
            writer._arrays(files, whole, attributes)
    # Not before all of that is on the disk, whatever a power cut leaves of either.
    with together() as files:
        for writer, _ in layers:
            writer._group(files)


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
    with together() as files:
        _document(files, path, document)


def _document(files: Together, path: Path, document: dict[str, Any]) -> None:
    _unless_there(files, path, _text(document))


def _text(document: dict[str, Any]) -> bytes:
    return json_text(stamped(document)).encode()


def _unless_there(files: Together, path: Path, data: bytes) -> None:
    if not path.exists() or path.read_bytes() != data:
        files.write(path, data)


def _up_to(root: Path, folder: Path) -> list[Path]:
    """The folder and those above it, up to the store."""
    above = [folder, *folder.parents]
    return above[: above.index(root) + 1]
