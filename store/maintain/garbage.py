"""What a store holds that nobody needs: a pure look at it, nothing is removed here.

- `partial`: temporary files and folders of writers that are gone;
- `unfinished`: groups that were begun and never committed;
- `stale`: features of older images or geometry, where the same key has them for the newer;
- `unused`: records and keys without features, pixels and points that no features belong to.

What a live run names is left alone, and so is everything younger than asked. Features of an older version are
kept as long as their key has none of the newer, and a record as long as an older version would come back
without it.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..atomic import abandoned, in_use, is_partial
from ..catalog import Catalog
from ..feature_store import FeatureStore
from ..layout import bundle_identity
from ..schema import Bundle
from ..stored_key import StoredKey, read_key
from .heartbeats import LiveRun, live_runs


@dataclass(frozen=True, kw_only=True)
class Garbage:
    """A file or folder that may go.

    Attributes:
        path: where it is.
        kind: partial | unfinished | stale | unused.
        why: one clause.
        bundle: id of the bundle that it belongs to, or an empty string.
        bytes: of all its files.
        newest_s: the latest time at which something in it changed, in seconds since 1970.
    """

    path: Path
    kind: str
    why: str
    bundle: str
    bytes: int
    newest_s: float


def find_garbage(root: Path, before_s: float) -> list[Garbage]:
    """Everything that may go and has not changed since `before_s` (seconds since 1970), in order of removal.

    Raises:
        StoreError: this is no store, or a record or key of it is damaged.
    """
    return _searched(root, before_s).found


def find_resumable(root: Path, before_s: float) -> list[Garbage]:
    """Unfinished work that has changed since `before_s`: it stays, since the same extraction continues it."""
    return _searched(root, before_s).resumable


def _searched(root: Path, before_s: float) -> _Search:
    search = _Search(root, before_s)
    search.features()
    search.views("pixels")
    search.views("points")
    search.records()
    search.partials()
    return search


def _is_named(garbage: Garbage, root: Path, live: Iterable[LiveRun]) -> bool:
    """Whether a live run names what it belongs to."""
    runs = list(live)
    if garbage.bundle:
        return any(garbage.bundle in run.bundles for run in runs)
    parts = garbage.path.relative_to(root).parts
    if parts[0] == "features" and len(parts) == 2:
        return any(parts[1] == run.key for run in runs)
    # What belongs to no bundle may be a live run's next step; only the temporary files of the dead are not.
    return bool(runs) and not abandoned(garbage.path.name)


class _Search:
    """Collects garbage part by part; what is kept of the features decides about the rest."""

    def __init__(self, root: Path, before_s: float) -> None:
        self.root, self.before_s = root, before_s
        self.catalog: Catalog = FeatureStore.open(root).catalog
        self.live = live_runs(root)
        self.found: list[Garbage] = []
        self.resumable: list[Garbage] = []
        self.kept: dict[str, set[str]] = defaultdict(set)
        """By folder below the store, ids of the bundles whose features need it."""

    def features(self) -> None:
        for folder in _folders(self.root / "features"):
            if not (folder / "zarr.json").exists():
                self._add(folder, "unfinished", "a key without its document")
                continue
            key = read_key(folder)
            kept = [path for path in _folders(folder) if not self._features_go(key, path)]
            if not kept:
                self._goes_whole(folder, "no features are stored under this key")
            for path in kept:
                bundle_id = bundle_identity(path.name)[0]
                for needed in _views_of(key):
                    self.kept[needed].add(bundle_id)
                self.kept["catalog"].add(bundle_id)

    def views(self, part: str) -> None:
        """Pixels or points that the features that are kept do not need."""
        for folder in _folders(self.root / part):
            needed = self.kept[f"{part}/{folder.name}"]
            kept = [path for path in _folders(folder) if not self._views_go(path, needed)]
            if not kept and not needed:
                self._goes_whole(folder, "no features have this preprocessing")

    def records(self) -> None:
        """Records that no features are kept of; the record goes before its views."""
        kept = [bundle for bundle in self.catalog.bundles.values() if bundle.id in self.kept["catalog"]]
        for path in sorted((self.root / "catalog").glob("*.json")):
            bundle = self.catalog.bundles.get(path.name.partition(".")[0])
            if bundle is None:
                self._add(path, "unfinished", "views without a record")
            elif bundle.id not in self.kept["catalog"] and not _supersedes(bundle, kept):
                self._add(path, "unused", "no features of this bundle are stored", bundle.id)

    def partials(self) -> None:
        for path in _partials(self.root):
            # A run that begins writes before its record is there to name it.
            if not in_use(path.name) and not any(garbage.path in path.parents for garbage in self.found):
                self._add(path, "partial", "its writer is gone")

    def _features_go(self, key: StoredKey, folder: Path) -> bool:
        """Whether nothing is left of a bundle's features; notes what goes."""
        bundle_id, geometry = bundle_identity(folder.name)
        bundle = self.catalog.bundles.get(bundle_id)
        if bundle is None:
            return self._add(folder, "unused", "its record is not in the catalog", bundle_id)
        why = self._outdated(key, bundle, geometry)
        if why:
            return self._add(folder, "stale", why, bundle_id)
        layers = [path for path in _folders(folder) if path.name not in ("view", "scene")]
        begun = [path for path in layers if not (path / "zarr.json").exists()]
        if len(begun) == len(layers):
            return self._add(folder, "unfinished", "none of its layers was committed", bundle_id)
        for path in begun:
            self._add(path, "unfinished", "the layer was never committed", bundle_id)
        return False

    def _outdated(self, key: StoredKey, bundle: Bundle, geometry: str | None) -> str:
        have = key.bundles.get((bundle.id, geometry), {})
        if geometry is not None and geometry != bundle.geometry:
            newer = key.bundles.get((bundle.id, bundle.geometry), {})
            return (
                "its geometry was mended, and these layers are there anew"
                if have.keys() <= newer.keys()
                else ""
            )
        newest = {row.id: self.catalog.generation(row.id) for row in bundle.scenes}
        if any(row.generation == newest[row.id] for row in bundle.scenes):
            return ""
        current = {row.id: [other for other, _ in self.catalog.current(row.id)] for row in bundle.scenes}
        anew = all(any(key.bundles.find(other)[1] for other in others) for others in current.values())
        return "its images were packed anew, and the features are there anew" if anew else ""

    def _views_go(self, folder: Path, needed: set[str]) -> bool:
        bundle_id, geometry = bundle_identity(folder.name)
        bundle = self.catalog.bundles.get(bundle_id)
        if bundle is None or bundle_id not in needed:
            return self._add(folder, "unused", "no features need them", bundle_id)
        newer = folder.parent / bundle.geometry_folder / "zarr.json"
        if geometry not in (None, bundle.geometry) and newer.exists():
            return self._add(folder, "stale", "the geometry was mended, and they are there anew", bundle_id)
        if not (folder / "zarr.json").exists():
            return self._add(folder, "unfinished", "the group was never committed", bundle_id)
        return False

    def _goes_whole(self, folder: Path, why: str) -> None:
        """A folder of bundles instead of those that were found in it, if nothing keeps it."""
        inside = [garbage for garbage in self.found if folder in garbage.path.parents]
        if self._add(folder, "unused", why):
            self.found = [garbage for garbage in self.found if garbage not in inside]

    def _add(self, path: Path, kind: str, why: str, bundle: str = "") -> bool:
        """Note garbage, unless it is too young or a live run names it; whether it goes."""
        try:
            size, newest_s = weight(path)
        except FileNotFoundError:
            return False  # a writer or another gc was quicker
        garbage = Garbage(path=path, kind=kind, why=why, bundle=bundle, bytes=size, newest_s=newest_s)
        if _is_named(garbage, self.root, self.live):
            return False
        goes = newest_s <= self.before_s
        if goes:
            self.found.append(garbage)
        elif kind == "unfinished":
            self.resumable.append(garbage)
        return goes


def weight(path: Path) -> tuple[int, float]:
    """(bytes, seconds since 1970 of the last change) of a file, or of a folder with all that is in it."""
    own = path.lstat()
    if not path.is_dir() or path.is_symlink():
        return own.st_size, own.st_mtime
    inside = [weight(Path(entry.path)) for entry in os.scandir(path)]
    return sum(size for size, _ in inside), max([own.st_mtime, *(newest_s for _, newest_s in inside)])


def _supersedes(bundle: Bundle, kept: Iterable[Bundle]) -> bool:
    """Whether an older version of a scene would be the current one without this record."""
    newest = {row.id: row.generation for row in bundle.scenes}
    return any(row.generation < newest.get(row.id, 0) for other in kept for row in other.scenes)


def _views_of(key: StoredKey) -> tuple[str, str]:
    return key.pixels_folder, key.points_folder


def _folders(folder: Path) -> list[Path]:
    """Folders in a folder that are no links and no temporary ones."""
    return [
        Path(entry.path)
        for entry in _entries(folder)
        if entry.is_dir(follow_symlinks=False) and not is_partial(entry.name)
    ]


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """In order of name; none where the folder is not there, or not any more."""
    try:
        return sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return []


def _partials(folder: Path) -> Iterator[Path]:
    for entry in _entries(folder):
        if is_partial(entry.name):
            yield Path(entry.path)
        elif entry.is_dir(follow_symlinks=False):
            yield from _partials(Path(entry.path))
