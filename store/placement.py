"""Where the views of a scene lie: rows of bundles, each view once, and for each layer the bundle that has it.

Extracting another layer for a few scenes makes another bundle of the same views. Their layers are joined
here, view by view, by the position in the scene; bundles of other versions of the images never are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .catalog import Catalog
from .schema import Bundle, ViewRow
from .set_runs import Run, set_runs
from .stored_key import StoredKey


@dataclass(frozen=True, kw_only=True)
class Placement:
    """Views of one scene.

    Attributes:
        home: the rows that name the views; images, geometry and points are read there.
        views: of those rows.
        layers: by layer, the rows that have it: those of `home`, else of a bundle with the same views.
    """

    home: Run
    views: tuple[ViewRow, ...]
    layers: dict[str, Run]


def stored_layers(stored: StoredKey, bundle: Bundle) -> dict[str, tuple[str, ...]]:
    """By layer that a bundle has of a key, its storages."""
    return stored.bundles.find(bundle)[1]


def place_scene(
    catalog: Catalog,
    stored: StoredKey,
    scene_id: str,
    *,
    version: str | None = None,
    asked: Sequence[str] | None = None,
    storage: str | None = None,
) -> list[Placement]:
    """The views of a scene that have features, in order of position; the fullest bundles first.

    Args:
        catalog: of the store.
        stored: whose features.
        scene_id: of the scene.
        version: first digits of a scene digest; None = the current version.
        asked: layers that are wanted; None = as many as possible.
        storage: that is preferred where bundles differ.
    """
    runs = catalog.current(scene_id) if version is None else catalog.rows[scene_id]
    runs = [run for run in runs if version is None or run[1].digest.startswith(version)]
    have = {bundle.id: stored_layers(stored, bundle) for bundle, _ in runs}
    runs = [run for run in runs if have[run[0].id]]
    runs.sort(key=lambda run: _fullness(run, have, asked))
    if stored.key.context == "set":
        return [_place_set(catalog, of_set, have, storage) for of_set in set_runs(catalog, runs)]
    views = {bundle.id: catalog.scene_views(bundle, row) for bundle, row in runs}
    positions = {one: frozenset(view.position for view in of_run) for one, of_run in views.items()}
    placed = []
    for home in _homes(runs, positions):
        same = [run for run in runs if _same_views(home, run, positions)]
        layers = _sources([home, *same], have, storage)
        placed.append(Placement(home=home, views=views[home[0].id], layers=layers))
    return sorted(placed, key=lambda one: min(positions[one.home[0].id]))


def _place_set(
    catalog: Catalog, runs: list[Run], have: Mapping[str, Mapping[str, tuple[str, ...]]], storage: str | None
) -> Placement:
    """The views of one set, whose features belong to it alone."""
    (bundle, row), *others = runs
    same = [one for one in others if one[1].digest == row.digest and one[0].grid == bundle.grid]
    views = catalog.scene_views(bundle, row)
    return Placement(home=runs[0], views=views, layers=_sources([runs[0], *same], have, storage))


def _fullness(
    run: Run, have: Mapping[str, Mapping[str, tuple[str, ...]]], asked: Sequence[str] | None
) -> tuple[int, int, int, str]:
    bundle, row = run
    layers = set(have[bundle.id])
    return -len(layers & set(asked or layers)), -len(layers), row.start - row.stop, bundle.id


def _homes(runs: Sequence[Run], positions: Mapping[str, frozenset[int]]) -> list[Run]:
    taken: set[int] = set()
    homes = []
    for run in runs:
        if not positions[run[0].id] & taken:
            taken |= positions[run[0].id]
            homes.append(run)
    return homes


def _same_views(home: Run, other: Run, positions: Mapping[str, frozenset[int]]) -> bool:
    """Whether another bundle has all views of `home`, of the same images and in the same grid."""
    same_images = home[1].digest == other[1].digest and home[0].grid == other[0].grid
    return same_images and home[0].id != other[0].id and positions[home[0].id] <= positions[other[0].id]


def _sources(
    runs: Sequence[Run], have: Mapping[str, Mapping[str, tuple[str, ...]]], storage: str | None
) -> dict[str, Run]:
    sources: dict[str, Run] = {}
    for run in runs:
        for layer, storages in have[run[0].id].items():
            found = sources.get(layer)
            better = found is not None and storage in storages and storage not in have[found[0].id][layer]
            if found is None or better:
                sources[layer] = run
    return sources
