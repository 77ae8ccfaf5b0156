"""Which bundles hold the features of whole view sets: reuse and grouping, as pure functions.

A set that is complete in some bundle is left alone; a bundle of only wanted sets is finished; sets that
remain are grouped into new bundles in order of scene id. All sets of a bundle have as many views, so that
no unit ends inside a set.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from ..errors import SetsError, first_few
from ..store.catalog import Catalog
from ..store.key import Size
from ..store.schema import MAX_BUNDLE_VIEWS, Bundle, ViewRow, ViewSet
from .bundling import Assigned, Want, group_wants

Id = tuple[str, str]
"""Scene id and set digest."""


def set_wants(scenes: Mapping[str, Sequence[Want]], sets: Sequence[ViewSet]) -> list[Want]:
    """What is wanted of view sets: by scene, grid and number of views, the rows of whole sets.

    Args:
        scenes: by scene id, every view of the packed scene.
        sets: of these scenes.

    Raises:
        SetsError: there are none, or one has views of several token grids.
    """
    views = {scene: _views(wants) for scene, wants in scenes.items()}
    rows: dict[tuple[str, Size, int], dict[str, tuple[ViewRow, ...]]] = defaultdict(dict)
    mixed = []
    for one in sets:
        members = [views[one.scene][name] for name in one.members]
        grids, found = {grid for grid, _ in members}, tuple(row for _, row in members)
        if len(grids) > 1:
            mixed.append(one)
            continue
        # Named by the images as they are packed now: sets made before and after packing are one.
        packed = replace(one, images=tuple(row.image_digest for row in found))
        rows[one.scene, grids.pop(), len(found)].setdefault(packed.digest, found)
    _check(sets, mixed)
    return [
        _want(scenes[scene][0], grid, dict(some))
        for (scene, grid, size), every in rows.items()
        for some in _pieces(list(every.items()), MAX_BUNDLE_VIEWS // size)
    ]


def assign_set_bundles(
    wants: Sequence[Want],
    catalog: Catalog,
    *,
    generations: Mapping[str, int],
    available: Mapping[str, str],
    complete: Callable[[Bundle], bool],
    started: Callable[[Bundle], bool],
) -> list[Assigned]:
    """The bundles that together hold every wanted set.

    Args:
        wants, catalog, generations, available, complete, started: as of `bundling.assign_bundles`.
    """
    left = {(want.scene, name): want for want in wants for name in want.sets}
    taken: list[Bundle] = []

    def gain(bundle: Bundle) -> int:
        return sum(name in left for name in _ids(bundle))

    def take(bundle: Bundle) -> None:
        taken.append(bundle)
        for name in _ids(bundle):
            left.pop(name, None)

    candidates = _candidates(wants, catalog, available)
    for bundle in sorted(filter(complete, candidates), key=lambda b: (-gain(b), b.id)):
        if gain(bundle):
            take(bundle)
    for bundle in sorted(candidates, key=lambda b: (not started(b), -len(b), b.id)):
        if bundle.sets and gain(bundle) == len(bundle.sets):
            take(bundle)
    reused = [Assigned(bundle=bundle, views=catalog.views(bundle), new=False) for bundle in taken]
    return [*reused, *group_wants(_remaining(wants, left), generations)]


def _views(wants: Sequence[Want]) -> dict[str, tuple[Size, ViewRow]]:
    return {row.name: (want.grid, row) for want in wants for row in want.rows}


def _check(sets: Sequence[ViewSet], mixed: Sequence[ViewSet]) -> None:
    if mixed:
        raise SetsError(
            f"{len(mixed):,} of {len(sets):,} view sets have views of several token grids.",
            where=first_few(dict.fromkeys(one.scene for one in mixed)),
            why="an encoder that sees whole sets needs one grid for all views of a set",
            fix="extract with orient=scene, which gives landscape and portrait views one grid",
        )
    if not sets:
        raise SetsError(
            "there are no view sets to encode.",
            where="sets",
            why="the encoder sees whole sets, and none of the scenes has covisibility to sample them by",
            fix="give sets=FILE; `strata scenes check ... covisibility=make fix=OUT` computes covisibility",
        )


def _want(scene: Want, grid: Size, sets: Mapping[str, tuple[ViewRow, ...]]) -> Want:
    rows = tuple(row for views in sets.values() for row in views)
    return replace(scene, grid=grid, rows=rows, sets=tuple(sets))


def _pieces(every: list, most: int) -> list[list]:
    return [every[start : start + most] for start in range(0, len(every), most)]


def _ids(bundle: Bundle) -> list[Id]:
    """Of the bundle's sets."""
    return [
        (row.id, one.digest)
        for row in bundle.scenes
        for one in bundle.sets
        if row.start <= one.start < row.stop
    ]


def _candidates(wants: Sequence[Want], catalog: Catalog, available: Mapping[str, str]) -> list[Bundle]:
    """Bundles of sets that have a grid which is wanted, and hold nothing but scenes as they are packed."""
    grids = {(want.scene, want.grid) for want in wants}
    found = {
        bundle.id: bundle
        for want in wants
        for bundle, _ in catalog.rows.get(want.scene, ())
        if bundle.sets
        and all(available.get(row.id) == row.digest for row in bundle.scenes)
        and (want.scene, bundle.grid) in grids
    }
    return list(found.values())


def _remaining(wants: Sequence[Want], left: Mapping[Id, Want]) -> list[Want]:
    """The wants with those of their sets that no bundle holds."""
    remaining = []
    for want in wants:
        size = want.together
        runs = {name: want.rows[k * size : (k + 1) * size] for k, name in enumerate(want.sets)}
        missing = {name: rows for name, rows in runs.items() if (want.scene, name) in left}
        if missing:
            remaining.append(_want(want, want.grid, missing))
    return remaining
