"""Features of whole sets: where in the store each view set's own rows are.

A view looks different to an encoder in every set that it is seen in, so its features belong to that set.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..errors import SelectionError
from .catalog import Catalog
from .schema import Bundle, SceneRow, ViewRow, ViewSet

Run = tuple[Bundle, SceneRow]
"""Rows of one set: a bundle, and the run of rows of its scene that are the set's."""


def set_runs(catalog: Catalog, rows: Iterable[Run]) -> list[list[Run]]:
    """The runs of each set, in the order given; the sets in order of their views' positions in the scene.

    Args:
        rows: bundles of whole sets with a scene's run of rows in each.
    """
    found: dict[str, list[Run]] = {}
    for bundle, row in rows:
        for one in bundle.sets:
            if row.start <= one.start < row.stop:
                run = replace(row, start=one.start, stop=one.stop)
                found.setdefault(one.digest, []).append((bundle, run))

    def positions(runs: list[Run]) -> list[int]:
        return [view.position for view in catalog.scene_views(*runs[0])]

    return sorted(found.values(), key=positions)


def set_digest(bundle: Bundle, row: SceneRow) -> str:
    """Of the set that a run of rows is; empty where views are seen alone."""
    return next((one.digest for one in bundle.sets if one.start <= row.start < one.stop), "")


def is_set(view_set: ViewSet, scene: str, views: Iterable[ViewRow]) -> bool:
    """Whether these views of a scene, in this order, are the set's, be it as they were before packing."""
    views = tuple(views)
    return (
        view_set.scene == scene
        and view_set.members == tuple(view.name for view in views)
        and all(view.shows(image) for view, image in zip(views, view_set.images, strict=True))
    )


def seen_in_several(view: str, sets: int, encoder: str) -> SelectionError:
    """A view is asked for by its name alone, but has other features in each set that it is seen in."""
    return SelectionError(
        f"view {view!r} is in {sets} of the selected sets, and has other features in each.",
        where=encoder,
        why=f"{encoder} sees whole sets",
        fix="select one of them with sets=[view_set]",
    )
