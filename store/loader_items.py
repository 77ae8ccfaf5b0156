"""What a loader's batches are made of: views, or view sets that lie wholly in its selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..errors import SelectionError, first_few
from .schema import ViewSet
from .set_runs import is_set

if TYPE_CHECKING:
    from .selection import Selection


def loader_items(
    selection: Selection, sets: Sequence[ViewSet] | None
) -> tuple[list[np.ndarray], list[ViewSet], int]:
    """Per item its views' numbers; the sets that are items; how many are none."""
    if sets is None:
        return list(np.arange(len(selection))[:, None]), [], 0
    numbers_of = _in_own_sets(selection) if selection.key.context == "set" else _by_image(selection)
    members, kept = [], []
    for one in sets:
        there = numbers_of(one)
        blocks, _ = selection.index.split(np.array(there, np.int64))
        grids = {selection.parts[b].grid for b in blocks.tolist()}
        if len(there) == len(one.members) and len(grids) == 1:
            members.append(np.array(there, np.int64))
            kept.append(one)
    if not kept:
        raise SelectionError(
            f"none of the {len(sets):,} view sets lies in the selection.",
            where=selection.stored_key.name,
            why=f"it has {first_few(selection.scenes)}; a set needs all its views there, in one token grid",
            fix="give sets of these scenes, or select their views: store.select(..., sets=...)",
        )
    return members, kept, len(sets) - len(kept)


def _by_image(selection: Selection) -> Callable[[ViewSet], list[int]]:
    """Gives the numbers of those members of a set that are in the selection."""
    image = {
        (block.scene, view.name): (number, view)
        for number, (block, view) in enumerate((b, v) for b in selection.parts for v in b.views)
    }

    def numbers(one: ViewSet) -> list[int]:
        found = [image.get((one.scene, name)) for name in one.members]
        return [at[0] for at, sha in zip(found, one.images, strict=True) if at and at[1].shows(sha)]

    return numbers


def _in_own_sets(selection: Selection) -> Callable[[ViewSet], list[int]]:
    """As `_by_image`, of features that belong to whole sets: those of this very set."""
    starts = np.cumsum([0, *map(len, selection.parts)]).tolist()

    def numbers(one: ViewSet) -> list[int]:
        for start, block in zip(starts, selection.parts, strict=False):
            if is_set(one, block.scene, block.members):
                return list(range(start, start + len(block)))
        return []

    return numbers


def items_by_kind(selection: Selection, members: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The items that fit into one batch: of one grid, as many views each, stored alike."""
    alike = [(block.grid, tuple(block.layers.values())) for block in selection.parts]
    firsts, _ = selection.index.split(np.array([views[0] for views in members]))
    kinds: dict[object, list[int]] = {}
    for item, (block, views) in enumerate(zip(firsts.tolist(), members, strict=True)):
        kinds.setdefault((alike[block], len(views)), []).append(item)
    return [np.array(items) for items in kinds.values()]
