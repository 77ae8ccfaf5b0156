"""What of a store is meant by a part of it: for each key its groups, and what does not come along."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from ...errors import LayerError, SelectionError, StaleError, first_few
from ..feature_store import FeatureStore
from ..filters import scene_ids
from ..layers import resolve_layers, stored_name
from ..schema import Bundle
from ..select import select
from ..stored_key import StoredKey

VIEWS = ("all", "geometry", "none")
_AGAIN = "extract them again, then run this command again"


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


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """Something of a key that was asked for and does not come along."""

    key: str
    why: str
    fix: str

    def __str__(self) -> str:
        return f"left out of {self.key}: {self.why.removesuffix('.')}; {self.fix}"


@dataclass(frozen=True, kw_only=True)
class KeyPart:
    """One key's part: its groups by folder with their bundles, and the scenes that were asked for."""

    folders: dict[str, Bundle]
    scenes: tuple[str, ...]
    stale: tuple[str, ...]


def key_parts(store: FeatureStore, part: Part) -> tuple[list[KeyPart], list[LeftOut]]:
    """By key what comes along, and what does not although it was asked for.

    Raises:
        SelectionError: nothing fits.
        LayerError: no key has the layers for the scenes.
    """
    parts, left_out, problems = [], [], []
    for key in _asked_keys(store, part):
        try:
            parts.append(_of_key(store, key, part))
            left_out += _stale(key.name, parts[-1].stale)
        except (SelectionError, LayerError) as error:
            problems.append(error)
            left_out.append(LeftOut(key=key.name, why=error.what, fix=_way_back(error)))
    if not parts:
        raise problems[0] if problems else SelectionError("the store has no features.", where=store.root)
    return parts, left_out


def _asked_keys(store: FeatureStore, part: Part) -> list[StoredKey]:
    """Those that are named; else all that have something of the scenes, be it out of date."""
    if part.encoder is not None:
        return [store.stored_key(name) for name in part.encoder]
    scenes = scene_ids(store, part.scene, part.dataset, part.split)
    bundles = {bundle.id for scene in scenes for bundle, _ in store.catalog.rows[scene]}
    # Where no scene fits, the keys themselves say so.
    return [key for key in store.keys() if not bundles or not key.bundle_ids.isdisjoint(bundles)]


def _stale(key: str, scenes: Sequence[str]) -> list[LeftOut]:
    why = f"{first_few(scenes)} changed since these features were extracted"
    return [LeftOut(key=key, why=why, fix=_AGAIN)] if scenes else []


def _way_back(error: SelectionError | LayerError) -> str:
    return _AGAIN if isinstance(error, StaleError) else error.fix


def _of_key(store: FeatureStore, key: StoredKey, part: Part) -> KeyPart:
    """One key's part.

    Raises:
        SelectionError, LayerError: nothing fits.
    """
    where = {"scene": part.scene, "dataset": part.dataset, "split": part.split}
    selection = select(store, key.name, layers=part.layers, **where)
    groups = _key_folders(store, key, part, selection.scenes)
    return KeyPart(
        folders={folder: bundle for bundle, folder in groups},
        scenes=selection.scenes,
        stale=selection.stale,
    )


def _key_folders(
    store: FeatureStore, key: StoredKey, part: Part, scenes: Iterable[str]
) -> Iterator[tuple[Bundle, str]]:
    """The groups of one key's part, with their bundles."""
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
