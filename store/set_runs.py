"""Features of whole sets: where in the store each view set's own rows are.

A view looks different to an encoder in every set that it is seen in, so its features belong to that set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from .catalog import Catalog
from .schema import Bundle, SceneRow, ViewRow, ViewSet

Run = tuple[Bundle, SceneRow]
"""Rows of one set: a bundle, and the run of rows of its scene that are the set's."""


def set_runs(catalog: Catalog, rows: Iterable[Run]) -> list[Run]:
    """Each set once, in order of its views' positions in the scene.

    Args:
        rows: bundles of whole sets with a scene's run of rows in each; of those that hold a set, the first
            is taken.
    """
    found: dict[str, tuple[list[int], Bundle, SceneRow]] = {}
    for bundle, row in rows:
        for one in bundle.sets:
            if row.start <= one.start < row.stop and one.digest not in found:
                run = replace(row, start=one.start, stop=one.stop)
                positions = [view.position for view in catalog.views(bundle)[one.start : one.stop]]
                found[one.digest] = (positions, bundle, run)
    ordered = sorted(found.values(), key=lambda item: item[0])
    return [(bundle, run) for _, bundle, run in ordered]


def is_set(view_set: ViewSet, scene: str, views: Iterable[ViewRow]) -> bool:
    """Whether these views of a scene, in this order, are the set's, be it as they were before packing."""
    views = tuple(views)
    return (
        view_set.scene == scene
        and view_set.members == tuple(view.name for view in views)
        and all(view.shows(image) for view, image in zip(views, view_set.images, strict=True))
    )
