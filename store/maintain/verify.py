"""`strata store verify`: every file of a store is as it was written, or is named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from ...errors import StrataError
from ...progress import Progress
from ..arrays import group_document
from ..atomic import is_partial, read_file
from ..documents import NO_SUM, document_fault
from ..feature_store import FeatureStore
from ..inside import PARTS
from ..key import FeatureKey, Preprocess, Size, pixels_of_grid
from ..layers import split_stored
from ..layout import bundle_identity, pixels_folder, points_folder
from ..schema import Bundle
from ..stored_key import read_key
from ..writer import row_labels
from .group_files import Expected, GroupFiles
from .heartbeats import live_runs
from .record_files import RecordFiles
from .report import Report

_IMAGES, _GEOMETRY = ("token_from_source_px",), ("depth_m", "valid", "K_px", "cam_from_world")
_POINTS = ("token_point_world", "token_valid", "token_spread_m")

PixelsOf = Callable[[Size], Size]
"""(height, width) of the images of a grid."""


def verify(root: Path, progress: Progress | None = None) -> Report:
    """Read every byte of a store and compare it with what it has to be.

    Args:
        root: the store.
        progress: told of each bundle's groups; its total is `bundle_folders(root)`.

    Raises:
        StoreError: this is no store, or one of another version.
    """
    _check_is_store(root)
    report = Report(root=root, live=tuple(run.name for run in live_runs(root)))
    files = dict(_walk(root))
    report.files, report.bytes = len(files), sum(files.values())
    seen: set[Path] = set()
    records = RecordFiles(root, report, seen)
    records.check_root()
    records.check_catalog()
    records.check_lists()
    records.check_contents()
    parts = _Parts(root, report, seen, records, progress)
    parts.check()
    parts.check_points()
    _name_the_rest(report, files, seen)
    report.faults.sort(key=lambda fault: fault.path)
    return report


def bundle_folders(root: Path) -> int:
    """Folders of bundles in all parts of a store."""
    return sum(1 for part in PARTS for _ in root.glob(f"{part}/*/*@*"))


class _Parts:
    """The folders `features`, `pixels` and `points`."""

    def __init__(
        self, root: Path, report: Report, seen: set[Path], records: RecordFiles, progress: Progress | None
    ) -> None:
        self.root, self.report, self.seen, self.records = root, report, seen, records
        self.progress = progress
        self.groups = GroupFiles(report, seen)
        self.needs_points: set[tuple[str, str]] = set()
        """(folder of points, bundle id) of all features."""

    def check(self) -> None:
        for part in PARTS:
            if not (self.root / part).is_dir():
                continue
            if self._only_begun(self.root / part):
                continue
            document = self.groups.document(self.root / part / "zarr.json")
            if document not in (None, group_document({})):
                self.report.fault(self.root / part / "zarr.json", "metadata", "it says more than it should.")
            for folder in _folders(self.root / part):
                self._check_kind(part, folder)

    def check_points(self) -> None:
        """Every layer was committed after the token points of its bundle."""
        for folder, bundle_id in sorted(self.needs_points):
            bundle = self.records.bundles[bundle_id]
            now = self.root / folder / bundle.geometry_folder
            if not any((self.root / folder).glob(f"*@{bundle_id}-*")):
                self.report.fault(now, "missing", "the token points of stored features are missing.")
            elif not now.exists():
                what = "the token points of the geometry of now are still to be written"
                self.report.unfinished[self.report.relative(now)] = what

    def _check_kind(self, part: str, folder: Path) -> None:
        """A key's folder, or a preprocessing's."""
        path = folder / "zarr.json"
        if self._only_begun(folder):
            return
        document = self.groups.document(path)
        pixels_of = points = None
        if document is not None:
            try:
                name, pixels_of = _named(part, document["attributes"])
                if name != folder.name:
                    raise ValueError(f"its fields belong to {name}")
                points = read_key(folder).points_folder if part == "features" else None
            except (StrataError, KeyError, TypeError, ValueError, AttributeError) as error:
                why = error.what if isinstance(error, StrataError) else str(error)
                self.report.fault(path, "metadata", f"it is not what it should be: {why}.", [path])
        for bundle_folder in _folders(folder):
            committed = self._check_bundle(part, bundle_folder, pixels_of)
            if points and committed:
                self.needs_points.add((points, bundle_identity(bundle_folder.name)[0]))
            if self.progress is not None:
                self.progress.advance()

    def _check_bundle(self, part: str, folder: Path, pixels_of: PixelsOf | None) -> bool:
        """Whether it is a bundle of the catalog with something that readers see."""
        bundle_id, geometry = bundle_identity(folder.name)
        bundle = self.records.bundles.get(bundle_id)
        if bundle is None:
            if bundle_id:
                self._without_record(folder, bundle_id)
            return False
        if folder.name not in (bundle.folder, f"{bundle.folder}-{geometry}"):
            self.report.fault(folder, "foreign", f"the folder of this bundle is called {bundle.folder}.")
        expected = self._expected(bundle, geometry, pixels_of)
        if part != "features":
            images = _IMAGES if geometry is None else _GEOMETRY
            committed = self._committed(folder)
            if committed:
                self.groups.check(folder, images if part == "pixels" else _POINTS, expected)
                self.groups.labels(folder, expected)
            return committed
        layers = [path for path in _folders(folder) if path.name not in ("view", "scene")]
        committed = [path for path in layers if self._committed(path) and self._check_layer(path, expected)]
        if committed:
            self.groups.document(folder / "zarr.json")
            self.groups.labels(folder, expected)
        else:
            self._unfinished(folder)
        return bool(committed)

    def _check_layer(self, folder: Path, expected: Expected) -> bool:
        try:
            storage = split_stored(folder.name)[1]
        except StrataError as error:
            self.report.fault(folder, "foreign", error.what)
            return False
        self.groups.check(folder, ("tokens",), expected, storage)
        return True

    def _expected(self, bundle: Bundle, geometry: str | None, pixels_of: PixelsOf | None) -> Expected:
        rows, cols = bundle.grid
        sizes = {"view": len(bundle), "row": rows, "col": cols}
        if pixels_of:
            sizes["y"], sizes["x"] = pixels_of(bundle.grid)
        attributes: dict[str, Any] = {}
        if geometry == bundle.geometry:
            attributes["scene_geometry"] = {row.id: row.geometry for row in bundle.scenes}
        labels = row_labels(bundle, self.records.views[bundle.id])
        return Expected(sizes=sizes, labels=labels, attributes=attributes)

    def _only_begun(self, folder: Path) -> bool:
        """Whether a folder has neither its document nor anything else yet."""
        if (folder / "zarr.json").exists() or _folders(folder):
            return False
        self._unfinished(folder)
        return True

    def _committed(self, folder: Path) -> bool:
        if (folder / "zarr.json").exists():
            return True
        self._unfinished(folder)
        return False

    def _unfinished(self, folder: Path) -> None:
        self.seen.update(path for path in folder.rglob("*") if path.is_file())
        self.report.unfinished[self.report.relative(folder)] = "not finished, and invisible to readers"

    def _without_record(self, folder: Path, bundle_id: str) -> None:
        self.seen.update(path for path in folder.rglob("*") if path.is_file())
        record = self.root / "catalog" / f"{bundle_id}.json"
        if not record.exists():
            what = f"the record of {self.report.relative(folder)} is missing."
            self.report.fault(record, "missing", what)


def _name_the_rest(report: Report, files: dict[Path, int], seen: set[Path]) -> None:
    """Files that belong to nothing: left behind by writers, or strange to the store; and links."""
    for path in sorted(files):
        parts = path.relative_to(report.root).parts
        if path.is_symlink() or not path.is_file():
            report.fault(path, "foreign", "it is a link or no file, and a store has none.")
        elif path in seen or (parts[0] == "runs" and len(parts) == 2):
            continue
        elif any(map(is_partial, parts)):
            report.unfinished[report.relative(path)] = "a temporary file"
        else:
            report.fault(path, "foreign", "it does not belong to the store.")


def _walk(root: Path) -> Iterator[tuple[Path, int]]:
    """Every file and link below a folder, with its bytes; links are not followed."""
    for entry in os.scandir(root):
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
        else:
            yield Path(entry.path), entry.stat(follow_symlinks=False).st_size


def _folders(folder: Path) -> list[Path]:
    return sorted(
        Path(entry.path)
        for entry in os.scandir(folder)
        if entry.is_dir(follow_symlinks=False) and not entry.name.startswith(".")
    )


def _named(part: str, attributes: dict[str, Any]) -> tuple[str, PixelsOf | None]:
    """(name of the folder, size of its images) that the document of a key or a preprocessing means."""
    if part == "features":
        key = FeatureKey.from_dict(json.loads(attributes["feature_key"]))
        return key.folder, None
    preprocess = Preprocess.from_dict(json.loads(attributes["preprocess"]))
    stride = int(attributes["stride"]) if "stride" in attributes else None
    patch = int(attributes["patch_size"]) if part == "pixels" or stride else 0
    folder = (pixels_folder if part == "pixels" else points_folder)(preprocess, patch, stride)
    return folder.rpartition("/")[2], partial(pixels_of_grid, patch=patch, stride=stride) if patch else None


def _check_is_store(root: Path) -> None:
    """A damaged `zarr.json` is a fault of a store; a sound one of another version is another format."""
    path = root / "zarr.json"
    if all((root / name).is_dir() for name in ("catalog", *PARTS)):
        why = document_fault(read_file(path)) if path.is_file() else "it is missing"
        if why not in ("", NO_SUM):
            return
    FeatureStore.open(root)
