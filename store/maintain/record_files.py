"""The documents beside the arrays: the store's own, the catalog, splits and sets."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ...errors import StoreError, StrataError, first_few
from ..atomic import json_text, read_file, read_json
from ..catalog import Catalog
from ..documents import document_fault
from ..feature_store import read_split
from ..kept_lists import named_lists
from ..remote import contents
from ..schema import VERSION, Bundle, SceneViews, ViewRow, make_bundle
from ..view_sets import read_sampler, read_sets, sets_name, sets_text
from .report import Report

_RECORD = re.compile(r"([0-9a-f]{16})(\.views)?\.json")


class RecordFiles:
    """Looks at records; `bundles` and `views` are those that are sound.

    Args:
        root: the store.
        report: where faults go.
        seen: gets the path of every file that belongs to the store.
    """

    def __init__(self, root: Path, report: Report, seen: set[Path]) -> None:
        self.root, self.report, self.seen = root, report, seen
        self.bundles: dict[str, Bundle] = {}
        self.views: dict[str, tuple[ViewRow, ...]] = {}

    def check_root(self) -> None:
        """The store's own document."""
        path = self.root / "zarr.json"
        if self._sound(path) and read_json(path)["attributes"].get("version") != VERSION:
            self.report.fault(path, "metadata", f"it is not of version {VERSION}.")

    def check_catalog(self) -> None:
        """Every record with its views, and that its id is the digest of what they hold."""
        names = [path.name for path in sorted((self.root / "catalog").glob("*.json"))]
        matches = [match for match in map(_RECORD.fullmatch, names) if match]
        records = {match[1] for match in matches if not match[2]}
        for match in matches:
            if match[2] and match[1] not in records:
                path = self.root / "catalog" / match[0]
                self.seen.add(path)
                self.report.unfinished[self.report.relative(path)] = "views of a record that is not there"
        for bundle_id in sorted(records):
            self._record(bundle_id)

    def check_lists(self) -> None:
        """Splits and view sets, and that those which the store's own document names are there."""
        for path in self._lost_lists():
            what = "the store names it, and it is not there: extracting again writes it, --repair forgets it."
            self.report.fault(path, "missing", what)
        for path in sorted((self.root / "splits").glob("*.json")):
            if self._sound(path, [path]):
                self._try(path, lambda p=path: _expect(read_split(p).name.replace("/", "."), p.stem))
        for path in sorted((self.root / "sets").glob("*.json")):
            if self._sound(path, [path], sets_text):
                self._try(path, lambda p=path: (read_sets(p), _expect(sets_name(read_sampler(p)), p.stem)))

    def _lost_lists(self) -> list[Path]:
        try:
            named = named_lists(self.root)
        except StoreError:
            return []  # that document is a fault by itself
        paths = [self.root / kind / f"{name}.json" for kind, names in named.items() for name in names]
        return [path for path in paths if path.parent.parent == self.root and not path.exists()]

    def check_contents(self) -> None:
        """What a web server would show: every file that it names is there, as it says."""
        path = self.root / contents.NAME
        if not path.exists():
            return
        self.seen.add(path)
        try:
            data = read_file(path)
            listing, documents = contents.parse_contents(data, path)
        except (StoreError, OSError) as error:
            self.report.fault(
                path, "damaged", error.why if isinstance(error, StoreError) else str(error), [path]
            )
            return
        wrong = [name for name, file in listing.files.items() if not _has(self.root / name, file.size)]
        wrong += [name for name, text in documents.items() if not _says(self.root / name, text)]
        sizes = {name: file.size for name, file in listing.files.items()}
        if wrong:
            what = f"it names {first_few(wrong)}, of which the store has no such file: write it again."
            self.report.fault(path, "metadata", what, [path])
        elif contents.contents_bytes(sizes, documents) != data:
            self.report.fault(path, "damaged", "its bytes are not those that were written.", [path])

    def _record(self, bundle_id: str) -> None:
        record = self.root / "catalog" / f"{bundle_id}.json"
        side = self.root / "catalog" / f"{bundle_id}.views.json"
        # Both are written anew from the shards: a record alone cannot tell which of the two is right.
        drop = [record, side]
        if not side.exists():
            self.seen.add(record)
            self.report.fault(side, "missing", "the views of a record are missing.", drop)
        elif all([self._sound(record, drop), self._sound(side, drop)]):
            self._try(record, lambda: self._parse(bundle_id, record), drop)

    def _parse(self, bundle_id: str, record: Path) -> None:
        bundle = Bundle.from_dict(bundle_id, read_json(record))
        views = Catalog(record.parent).views(bundle)
        scenes = [
            SceneViews(
                id=row.id,
                digest=row.digest,
                geometry=row.geometry,
                generation=row.generation,
                views=views[row.start : row.stop],
            )
            for row in bundle.scenes
        ]
        _expect(make_bundle(bundle.grid, scenes, bundle.sets).id, bundle_id)
        self.bundles[bundle_id], self.views[bundle_id] = bundle, views

    def _sound(self, path: Path, drop: list[Path] | None = None, text: Any = json_text) -> bool:
        self.seen.add(path)
        try:
            why = document_fault(read_file(path), text)
        except OSError as error:
            why = str(error.strerror)
        if why:
            self.report.fault(path, "metadata", f"a document is damaged: {why}.", drop or [])
        return not why

    def _try(self, path: Path, read: Any, drop: list[Path] | None = None) -> None:
        try:
            read()
        except (StrataError, KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            why = error.what if isinstance(error, StrataError) else str(error)
            self.report.fault(path, "metadata", f"it is not what it should be: {why}", drop or [path])


def _expect(found: str, name: str) -> None:
    if found != name:
        raise ValueError(f"it would be called {found}, not {name}.")


def _has(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _says(path: Path, text: bytes) -> bool:
    return path.is_file() and read_file(path) == text
