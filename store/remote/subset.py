"""Which files a part of a store is made of, and in which order they may appear.

Bundles are whole: one that holds a wanted scene comes with the scenes beside it. With it come the catalog's
records of all its scenes, so that what is stale in the store is stale in the part.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ...errors import SelectionError
from ..feature_store import FeatureStore
from ..layers import resolve_layers, stored_name
from ..schema import Bundle
from ..stored_key import StoredKey
from .path import Place, RemotePath

VIEWS = ("all", "geometry", "none")


@dataclass(frozen=True, kw_only=True)
class Part:
    """What is wanted of a store; None = all of it.

    Attributes:
        encoder: names, or `name@` and first digits of keys.
        layers: of each of them.
        scene: glob over scene ids or names.
        dataset, split: only their scenes.
        views: images, depth and cameras: all | geometry | none. Token points always come.
    """

    encoder: tuple[str, ...] | None = None
    layers: tuple[str, ...] | None = None
    scene: str | None = None
    dataset: str | None = None
    split: str | None = None
    views: str = "all"


def part_files(store: FeatureStore, part: Part) -> list[str]:
    """Paths in the store of all files of its part: committed layers of current scenes.

    Raises:
        SelectionError: nothing fits.
        LayerError: a layer is not stored for some of the scenes.
    """
    keys = store.keys() if part.encoder is None else [store.stored_key(name) for name in part.encoder]
    folders: set[str] = set()
    bundles: dict[str, Bundle] = {}
    problems: list[SelectionError] = []
    for key in keys:
        try:
            for bundle, folder in _key_folders(store, key, part):
                bundles[bundle.id] = bundle
                folders.add(folder)
        except SelectionError as error:
            problems.append(error)
    if not folders:
        raise problems[0] if problems else SelectionError("the store has no features.", where=store.root)
    records = _records(store, bundles.values())
    return [path for path in all_files(store.root) if _belongs(path, folders, _above(folders), records)]


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


def _key_folders(store: FeatureStore, key: StoredKey, part: Part) -> Iterator[tuple[Bundle, str]]:
    """The groups of one key's part, with their bundles."""
    where = {"scene": part.scene, "dataset": part.dataset, "split": part.split}
    scenes = store.select(key.name, layers=part.layers, **where).scenes
    wanted = key.layers if part.layers is None else resolve_layers(part.layers, key.layers, key.depth)
    for bundle in {b.id: b for scene in scenes for b, _ in store.catalog.current(scene)}.values():
        name, stored = key.bundles.find(bundle)
        home = f"features/{key.folder}/{name}"
        for layer in (layer for layer in wanted if layer in stored):
            yield from ((bundle, f"{home}/{stored_name(layer, storage)}") for storage in stored[layer])
        if not stored.keys().isdisjoint(wanted):
            yield from ((bundle, folder) for folder in (f"{home}/view", f"{home}/scene"))
            beside = _view_folders(key, bundle, part.views)
            yield from ((bundle, folder) for folder in beside if store.group(store.root / folder).committed)


def _view_folders(key: StoredKey, bundle: Bundle, views: str) -> list[str]:
    """Where a bundle's points, images and geometry lie, whether they are there or not."""
    images, geometry = f"{key.pixels_folder}/{bundle.folder}", f"{key.pixels_folder}/{bundle.geometry_folder}"
    kept = {"none": [], "geometry": [geometry], "all": [images, geometry]}[views]
    return [f"{key.points_folder}/{bundle.geometry_folder}", *kept]


def _records(store: FeatureStore, bundles: Iterable[Bundle]) -> set[str]:
    """Ids of all bundles that hold any scene of these."""
    scenes = {row.id for bundle in bundles for row in bundle.scenes}
    return {bundle.id for scene in scenes for bundle, _ in store.catalog.rows[scene]}


def _belongs(path: str, folders: set[str], above: set[str], records: set[str]) -> bool:
    top, _, rest = path.partition("/")
    if top == "catalog":
        return rest.partition(".")[0] in records
    if top in ("sets", "splits"):
        return True
    home, _, name = path.rpartition("/")
    parts = home.split("/")
    inside = not folders.isdisjoint("/".join(parts[:depth]) for depth in range(3, len(parts) + 1))
    return inside or (name == "zarr.json" and home in above)


def _above(folders: Iterable[str]) -> set[str]:
    """Every folder that these lie in, the store included."""
    return {"/".join(parts[:n]) for parts in (f.split("/") for f in folders) for n in range(len(parts))}


def all_files(root: Place) -> list[str]:
    """Paths of all files, without what writers left half-written."""
    if isinstance(root, RemotePath):
        return sorted(root.place.listing.files)
    paths = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(path.as_posix() for path in paths if not path.name.startswith("."))
