"""One committed group: its document, its arrays with every shard, its labels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...errors import StoreError, first_few
from ..arrays import ArraySpec, encode_strings, strings_document
from ..atomic import read_file, read_json
from ..documents import document_fault, unstamped
from ..layout import STORED_DTYPE
from .chunk_files import absent_rows, file_faults
from .report import Report

_LABELS = ("view", "scene")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the catalog says of the groups of a bundle.

    Attributes:
        sizes: by name of a dimension, its size.
        labels: `view` and `scene` of each row.
        attributes: that a group at this geometry has to have.
    """

    sizes: dict[str, int]
    labels: tuple[list[str], list[str]]
    attributes: dict[str, Any]


class GroupFiles:
    """Looks at the files of groups, and keeps count of those it looked at.

    Args:
        report: where faults go.
        seen: gets the path of every file that belongs to the store.
    """

    def __init__(self, report: Report, seen: set[Path]) -> None:
        self.report, self.seen = report, seen

    def document(self, path: Path, commit: Path | None = None) -> dict[str, Any] | None:
        """A sound `zarr.json`, or None with a fault; `commit` makes what it belongs to visible."""
        self.seen.add(path)
        drop = [*([commit] if commit else []), path]
        try:
            why = document_fault(read_file(path))
        except FileNotFoundError:
            self.report.fault(path, "missing", "a document is missing.", drop[:-1])
            return None
        except OSError as error:
            why = str(error.strerror)
        if why:
            self.report.fault(path, "metadata", f"a document is damaged: {why}.", drop)
            return None
        return unstamped(read_json(path))

    def check(self, folder: Path, required: tuple[str, ...], expected: Expected, storage: str = "") -> None:
        """A committed group with at least these arrays; `storage` of a layer's tokens."""
        commit = folder / "zarr.json"
        document = self.document(commit)
        if document is not None:
            have = document.get("attributes", {})
            wrong = [n for n, value in expected.attributes.items() if have.get(n) != value]
            if wrong:
                what = f"{', '.join(wrong)} of the group differ from the catalog."
                self.report.fault(commit, "metadata", what, [commit])
        names = {path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith(".")}
        for name in sorted({*required, *names} - {*_LABELS}):
            self._array(folder / name, commit, expected, storage if name == "tokens" else "")

    def labels(self, folder: Path, expected: Expected) -> None:
        """The arrays `view` and `scene` of a folder."""
        for name, values in zip(_LABELS, expected.labels, strict=True):
            document, chunk = folder / name / "zarr.json", folder / name / "c.0"
            found = self.document(document)
            if found is not None and found != strings_document(len(values), "view"):
                self.report.fault(document, "metadata", "it is not that of these labels.", [document])
            self.seen.add(chunk)
            try:
                if read_file(chunk) != encode_strings(values):
                    self.report.fault(chunk, "damaged", "the labels are not those of the catalog.", [chunk])
            except OSError as error:
                self.report.fault(chunk, "missing", f"the labels cannot be read: {error.strerror}.")

    def _array(self, folder: Path, commit: Path, expected: Expected, storage: str) -> None:
        path = folder / "zarr.json"
        document = self.document(path, commit)
        if document is None:
            # Its files cannot be judged without it; they are its own all the same.
            self.seen.update(folder.glob("c.*"))
            return
        try:
            spec = ArraySpec.from_document(read_json(path), path)
        except StoreError as error:
            self.report.fault(path, "metadata", f"{error.what} {error.why}", [commit, path])
            return
        why = _misfit(spec, expected.sizes, storage)
        if why:
            self.report.fault(path, "metadata", why, [commit, path])
            return
        faulty = set(self._units(folder, spec, commit))
        if spec.sharded and "missing" in document["attributes"]:
            self._missing(folder, spec, commit, document["attributes"]["missing"], faulty)

    def _units(self, folder: Path, spec: ArraySpec, commit: Path) -> Iterator[int]:
        """Units whose file is not as it should be."""
        for unit in range(spec.units):
            path = folder / spec.file(unit)
            self.seen.add(path)
            if not path.exists():
                self.report.fault(path, "missing", "a shard is missing.", [commit])
                yield unit
                continue
            for what in file_faults(path, spec, unit):
                self.report.fault(path, "damaged", what, [commit, path])
                yield unit

    def _missing(self, folder: Path, spec: ArraySpec, commit: Path, missing: Any, faulty: set[int]) -> None:
        rows = [
            row
            for unit in range(spec.units)
            if unit not in faulty
            for row in absent_rows(folder / spec.file(unit), spec, unit)
        ]
        said = {int(row) for row in missing if row.isdecimal()} if isinstance(missing, dict) else set()
        wrong = {row for row in said if row // spec.unit not in faulty} ^ set(rows)
        if wrong:
            path = folder / "zarr.json"
            what = f"it names other missing views than there are: rows {first_few(sorted(wrong))}."
            self.report.fault(path, "metadata", what, [commit, path])


def _misfit(spec: ArraySpec, sizes: dict[str, int], storage: str) -> str:
    if spec.dims[0] != "view":
        return f"its first axis is {spec.dims[0]!r} instead of 'view'."
    for dim, size in zip(spec.dims, spec.shape, strict=True):
        if sizes.get(dim, size) != size:
            return f"its axis {dim} has {size:,} places, the catalog says {sizes[dim]:,}."
    if storage and spec.dtype != STORED_DTYPE[storage]:
        return f"it holds {spec.dtype}, but {storage} is stored as {STORED_DTYPE[storage]}."
    return ""
