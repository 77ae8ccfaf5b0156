"""Which files a part of a store is made of, and in which order they may appear.

Bundles are whole: one that holds a wanted scene comes with the scenes beside it. With it come the catalog's
records of all its scenes, so that what is stale in the store is stale in the part.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from ..catalog import natural
from ..feature_store import FeatureStore
from ..schema import Bundle
from .path import Place, RemotePath
from .subset import LeftOut, Part, key_parts


@dataclass(frozen=True, kw_only=True)
class PartFiles:
    """What a part of a store is made of.

    Attributes:
        paths: of all files, in the store.
        bytes: of all of them.
        keys: how many feature keys are in it.
        scenes: ids of the scenes that were asked for, as far as they come.
        beside: ids of others that lie in the same bundles.
        beside_bytes: what the others weigh, by their share of the rows.
        left_out: what was asked for and does not come.
    """

    paths: tuple[str, ...]
    bytes: int
    keys: int
    scenes: tuple[str, ...]
    beside: tuple[str, ...]
    beside_bytes: int
    left_out: tuple[LeftOut, ...]


def part_files(store: FeatureStore, part: Part) -> PartFiles:
    """The files of a part: committed layers of current scenes.

    Raises:
        SelectionError: nothing fits.
        LayerError: no key has the layers for the scenes.
    """
    parts, left_out = key_parts(store, part)
    folders = {folder: bundle for one in parts for folder, bundle in one.folders.items()}
    bundles = {bundle.id: bundle for bundle in folders.values()}
    above, records = _above(folders), _records(store, bundles.values())
    sizes = {
        path: (store.root / path).stat().st_size
        for path in all_files(store.root)
        if _belongs(path, folders.keys(), above, records)
    }
    scenes = dict.fromkeys(scene for one in parts for scene in one.scenes)
    others = {row.id for bundle in bundles.values() for row in bundle.scenes} - scenes.keys()
    return PartFiles(
        paths=tuple(sizes),
        bytes=sum(sizes.values()),
        keys=len(parts),
        scenes=tuple(scenes),
        beside=tuple(sorted(others, key=natural)),
        beside_bytes=_share(sizes, folders, others),
        left_out=tuple(left_out),
    )


def _share(sizes: Mapping[str, int], folders: Mapping[str, Bundle], scenes: Collection[str]) -> int:
    """What some scenes weigh of these groups, by their share of the rows."""
    of_folder: dict[str, int] = defaultdict(int)
    for path, size in sizes.items():
        if home := next((folder for folder in _ancestors(path) if folder in folders), None):
            of_folder[home] += size
    rows = {
        bundle.id: sum(row.stop - row.start for row in bundle.scenes if row.id in scenes)
        for bundle in folders.values()
    }
    return sum(size * rows[folders[folder].id] // len(folders[folder]) for folder, size in of_folder.items())


def commit_order(paths: Iterable[str]) -> list[list[str]]:
    """Files in groups that may be copied one group after the other: what makes others visible comes last.

    Chunks, then records of the catalog behind their views, then documents from the deepest on, `tokens`
    behind the other arrays; the store's own document is the very last.
    """
    groups: dict[tuple[int, int], list[str]] = {}
    for path in sorted(paths):
        groups.setdefault(_rank(path), []).append(path)
    return [groups[rank] for rank in sorted(groups)]


def _rank(path: str) -> tuple[int, int]:
    folder, _, name = path.rpartition("/")
    if name != "zarr.json":
        return 0, int(path.startswith("catalog/") and not name.endswith(".views.json"))
    return 1, -2 * path.count("/") + folder.endswith("/tokens")


def _records(store: FeatureStore, bundles: Iterable[Bundle]) -> set[str]:
    """Ids of all bundles that hold any scene of these."""
    scenes = {row.id for bundle in bundles for row in bundle.scenes}
    return {bundle.id for scene in scenes for bundle, _ in store.catalog.rows[scene]}


def _belongs(path: str, folders: Collection[str], above: set[str], records: set[str]) -> bool:
    top, _, rest = path.partition("/")
    if top == "catalog":
        return rest.partition(".")[0] in records
    if top in ("sets", "splits"):
        return True
    home, _, name = path.rpartition("/")
    inside = any(folder in folders for folder in _ancestors(path))
    return inside or (name == "zarr.json" and home in above)


def _ancestors(path: str) -> Iterator[str]:
    """The folders below a key or a preprocessing that a file lies in, the outermost first."""
    parts = path.split("/")[:-1]
    return ("/".join(parts[:depth]) for depth in range(3, len(parts) + 1))


def _above(folders: Iterable[str]) -> set[str]:
    """Every folder that these lie in, the store included."""
    return {"/".join(parts[:n]) for parts in (f.split("/") for f in folders) for n in range(len(parts))}


def all_files(root: Place) -> list[str]:
    """Paths of all files, without what writers left half-written."""
    if isinstance(root, RemotePath):
        return sorted(root.place.listing.files)
    paths = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not path.name.startswith("."))
