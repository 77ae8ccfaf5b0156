"""Which bundles hold what is wanted: reuse, completion and grouping, as pure functions.

Nothing is computed twice: a scene whose features are complete in some bundle is left alone, a bundle
that was begun is finished, a bundle of only wanted and current scenes is reused whole, and the rest
is grouped in order of scene id into new bundles.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from ..store.catalog import Catalog, natural
from ..store.key import Preprocess, Size
from ..store.schema import (
    MAX_BUNDLE_VIEWS,
    OWN_BUNDLE_VIEWS,
    Bundle,
    SceneRow,
    SceneViews,
    SetRow,
    ViewRow,
    make_bundle,
)

Place = tuple[str, Size, int]


@dataclass(frozen=True, kw_only=True)
class Want:
    """Views of one scene that share a grid.

    Attributes:
        scene: scene id.
        digest, geometry: of the whole scene as it is packed now.
        grid: (rows, cols) tokens.
        rows: the views, in order of position, at most `MAX_BUNDLE_VIEWS`; of sets, theirs one after the
            other.
        sets: digests of the sets that the rows are, all of as many views; empty where views are seen alone.
    """

    scene: str
    digest: str
    geometry: str
    grid: Size
    rows: tuple[ViewRow, ...]
    sets: tuple[str, ...] = ()

    @property
    def together(self) -> int:
        """How many rows are encoded together."""
        return len(self.rows) // len(self.sets) if self.sets else 1

    @property
    def place(self) -> Place:
        return self.scene, self.grid, self.rows[0].position


@dataclass(frozen=True, kw_only=True)
class Assigned:
    """A bundle to work on, its views, and whether the catalog does not have it yet."""

    bundle: Bundle
    views: tuple[ViewRow, ...]
    new: bool


@dataclass(frozen=True, kw_only=True)
class Versions:
    """What planning changes in the catalog's existing records.

    Attributes:
        generations: by scene id, the generation that its packed version has from now on.
        updated: records that change, with all their views.
        before: these records as they were when it was planned.
    """

    generations: dict[str, int]
    updated: tuple[tuple[Bundle, tuple[ViewRow, ...]], ...]
    before: tuple[Bundle, ...]


def scene_grids(
    sizes: Sequence[tuple[int, int]], preprocess: Preprocess, patch: int, stride: int | None = None
) -> list[Size]:
    """The token grid of each view of a scene, from the views' (width, height)."""
    if preprocess.orient == "scene" and sizes:
        # The most common size speaks for the scene; of several, the first.
        (width, height), _ = Counter(sizes).most_common(1)[0]
        return [preprocess.resolve_grid(width, height, patch, stride)] * len(sizes)
    return [preprocess.resolve_grid(width, height, patch, stride) for width, height in sizes]


def version_scenes(wants: Sequence[Want], catalog: Catalog) -> Versions:
    """Generations of the wanted scenes, and the records that take a mended geometry or come back.

    A scene whose images changed is of a new generation; its old rows stay and are stale. A scene whose
    geometry alone changed keeps its rows: they take the new digests.
    """
    generations = {want.scene: _generation(want, catalog) for want in wants}
    versions = {(w.scene, w.digest): (w.geometry, generations[w.scene]) for w in wants}
    by_scene: dict[tuple[str, str], dict[int, ViewRow]] = defaultdict(dict)
    for want in wants:
        by_scene[want.scene, want.digest].update({row.position: row for row in want.rows})
    updated, before = [], []
    for bundle in catalog.bundles.values():
        changed = bundle.with_versions(versions)
        if changed != bundle:
            views = list(catalog.views(bundle))
            for row in bundle.scenes:
                now = by_scene.get((row.id, row.digest), {})
                views[row.start : row.stop] = [
                    now.get(view.position, view) for view in views[row.start : row.stop]
                ]
            updated.append((changed, tuple(views)))
            before.append(bundle)
    return Versions(generations=generations, updated=tuple(updated), before=tuple(before))


def assign_bundles(
    wants: Sequence[Want],
    catalog: Catalog,
    *,
    generations: Mapping[str, int],
    available: Mapping[str, str],
    complete: Callable[[Bundle], bool],
    started: Callable[[Bundle], bool],
) -> list[Assigned]:
    """The bundles that together hold every wanted row.

    Args:
        wants: what is wanted.
        catalog: with the versions of `version_scenes` already applied.
        generations: of the wanted scenes.
        available: by scene id, the digest of every packed scene, wanted or not.
        complete: whether a bundle has all wanted features.
        started: whether a bundle has some of them.
    """
    choice = _Choice(wants, catalog, generations, available, complete)
    candidates = sorted(choice.candidates, key=lambda bundle: (-len(bundle), bundle.id))
    for bundle in sorted(filter(choice.complete, candidates), key=lambda b: (-choice.gain(b), b.id)):
        choice.take(bundle)
    for bundle in candidates:
        if choice.can_be_finished(bundle) and started(bundle) and choice.apart(bundle):
            choice.take(bundle)
    for bundle in candidates:
        if choice.whole(bundle) and 2 * choice.gain(bundle) >= len(bundle) and choice.apart(bundle):
            choice.take(bundle)
    reused = [Assigned(bundle=bundle, views=catalog.views(bundle), new=False) for bundle in choice.taken]
    return [*reused, *group_wants(list(choice.left.values()), generations)]


class _Choice:
    """Bundles that were taken so far, and what is left to hold; a bundle without gain is not taken."""

    def __init__(
        self,
        wants: Sequence[Want],
        catalog: Catalog,
        generations: Mapping[str, int],
        available: Mapping[str, str],
        complete: Callable[[Bundle], bool],
    ) -> None:
        self.catalog, self.generations, self.available = catalog, generations, available
        self.complete = cache(complete)
        self.left = {want.place: want for want in wants}
        self.candidates = _candidates(wants, catalog)
        self.taken: list[Bundle] = []
        self._held = {bundle.id: _held(bundle, catalog, self.left) for bundle in self.candidates}

    def gain(self, bundle: Bundle) -> int:
        """Wanted rows that no taken bundle holds."""
        return sum(len(self.left[place].rows) for place in self._held[bundle.id] if place in self.left)

    def take(self, bundle: Bundle) -> None:
        if self.gain(bundle):
            self.taken.append(bundle)
        for place in self._held[bundle.id]:
            self.left.pop(place, None)

    def whole(self, bundle: Bundle) -> bool:
        """All its scenes are packed as the bundle has them."""
        return all(self._packed(row) for row in bundle.scenes)

    def can_be_finished(self, bundle: Bundle) -> bool:
        # Rows of a scene that changed meanwhile are given up; rows that others still have are not.
        return all(
            self._packed(row)
            or row.generation < self.generations.get(row.id, self.catalog.generation(row.id))
            for row in bundle.scenes
        )

    def apart(self, bundle: Bundle) -> bool:
        """None of its scenes is computed elsewhere: else it would be computed twice."""
        current = filter(self._packed, bundle.scenes)
        twins = {other.id: other for row in current for other in _twins(bundle, row, self.catalog)}
        return all(place in self.left for place in self._held[bundle.id]) and not any(
            map(self.complete, twins.values())
        )

    def _packed(self, row: SceneRow) -> bool:
        return self.available.get(row.id) == row.digest


def _generation(want: Want, catalog: Catalog) -> int:
    newest = catalog.generation(want.scene)
    current = {row.digest for _, row in catalog.current(want.scene)}
    return newest if want.digest in current else newest + 1


def _candidates(wants: Sequence[Want], catalog: Catalog) -> list[Bundle]:
    found = {
        bundle.id: bundle
        for want in wants
        for bundle, row in catalog.rows.get(want.scene, ())
        if _same_rows(bundle, row, want, catalog)
    }
    return list(found.values())


def _same_rows(bundle: Bundle, row: SceneRow, want: Want, catalog: Catalog) -> bool:
    if bundle.sets or (bundle.grid, row.digest) != (want.grid, want.digest):
        return False
    if row.stop - row.start != len(want.rows):
        return False
    views = catalog.views(bundle)[row.start : row.stop]
    return [view.position for view in views] == [view.position for view in want.rows]


def _held(bundle: Bundle, catalog: Catalog, wants: Mapping[Place, Want]) -> list[Place]:
    """The wants whose rows the bundle holds."""
    places = []
    for row in bundle.scenes:
        want = wants.get((row.id, bundle.grid, catalog.views(bundle)[row.start].position))
        if want and _same_rows(bundle, row, want, catalog):
            places.append(want.place)
    return places


def _twins(bundle: Bundle, row: SceneRow, catalog: Catalog) -> list[Bundle]:
    """Other bundles that hold the same rows of a scene."""

    def positions(holder: Bundle, run: SceneRow) -> list[int]:
        return [view.position for view in catalog.views(holder)[run.start : run.stop]]

    return [
        other
        for other, theirs in catalog.rows[row.id]
        if other.id != bundle.id
        and not other.sets
        and (other.grid, theirs.digest) == (bundle.grid, row.digest)
        and positions(other, theirs) == positions(bundle, row)
    ]


def group_wants(wants: list[Want], generations: Mapping[str, int]) -> list[Assigned]:
    """New bundles of what is left, by grid (and size of sets) and in order of scene id."""
    made: list[Assigned] = []
    for kind in sorted({(want.grid, want.together) for want in wants}):
        together: list[Want] = []
        held = 0
        alike = [want for want in wants if (want.grid, want.together) == kind]
        for want in sorted(alike, key=lambda w: natural(w.scene)):
            if len(want.rows) >= OWN_BUNDLE_VIEWS:
                made.append(_made([want], generations))
                continue
            if held + len(want.rows) > MAX_BUNDLE_VIEWS:
                made.append(_made(together, generations))
                together, held = [], 0
            together.append(want)
            held += len(want.rows)
        if together:
            made.append(_made(together, generations))
    return made


def _made(wants: Sequence[Want], generations: Mapping[str, int]) -> Assigned:
    scenes = [
        SceneViews(
            id=want.scene,
            digest=want.digest,
            geometry=want.geometry,
            generation=generations[want.scene],
            views=want.rows,
        )
        for want in wants
    ]
    views = tuple(row for want in wants for row in want.rows)
    size, names = wants[0].together, [name for want in wants for name in want.sets]
    sets = tuple(SetRow(digest=name, start=k * size, stop=(k + 1) * size) for k, name in enumerate(names))
    return Assigned(bundle=make_bundle(wants[0].grid, scenes, sets), views=views, new=True)
