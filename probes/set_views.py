"""View sets meet the store: which sets can be scored, and arrays of their views by name."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from ..store.block import Block
    from ..store.schema import ViewSet
    from ..store.selection import Selection

T = TypeVar("T")

NOT_TOGETHER = "its views were not encoded together"
"""Why a set cannot be scored on an encoder that sees whole sets."""


@dataclass(frozen=True, kw_only=True)
class PlacedSet:
    """A set whose views are in the store.

    Attributes:
        view_set: as it was sampled.
        names: its frame names that have features, in order; at least two.
        dropped: those that have none.
    """

    view_set: ViewSet
    names: tuple[str, ...]
    dropped: tuple[str, ...] = ()

    @property
    def digest(self) -> str:
        """16 hex digits, as records write it."""
        return self.view_set.digest[:16]


def place_sets(selection: Selection, sets: Iterable[ViewSet]) -> tuple[list[PlacedSet], Counter[str]]:
    """The sets that can be scored on one scene's features, and how many cannot, by reason.

    A set is stale when it names an image that the store does not have, or has in another version.
    Views without features drop out of a set; a set needs two. Features of whole sets are those of their own
    set alone.
    """
    if selection.key.context == "set":
        return _place_encoded(selection, sets)
    blocks = list(selection.blocks())
    views = {view.name: view for block in blocks for view in block.views}
    missing = {name for block in blocks for name in block.missing}
    placed, skipped = [], Counter[str]()
    for view_set in sets:
        members = list(zip(view_set.members, view_set.images, strict=True))
        there = tuple(name for name, sha in members if name in views and views[name].shows(sha))
        dropped = tuple(name for name in view_set.members if name in missing)
        if len(there) + len(dropped) < len(members):
            skipped["stale: it names images that the store does not have"] += 1
        elif len(there) < 2:
            skipped["fewer than two of its views have features"] += 1
        else:
            placed.append(PlacedSet(view_set=view_set, names=there, dropped=dropped))
    return placed, skipped


def by_context(
    selection: Selection, placed: Sequence[PlacedSet]
) -> Iterator[tuple[Selection, Sequence[PlacedSet]]]:
    """The placed sets with the features to score them on: all together, or each with what belongs to it."""
    if selection.key.context != "set":
        yield selection, placed
        return
    for one in placed:
        part = selection.of_set(one.view_set)
        assert part is not None
        yield part, (one,)


def _place_encoded(selection: Selection, sets: Iterable[ViewSet]) -> tuple[list[PlacedSet], Counter[str]]:
    """`place_sets` for an encoder that sees whole sets."""
    placed, skipped = [], Counter[str]()
    for view_set in sets:
        part = selection.of_set(view_set)
        block = next(part.blocks()) if part is not None else None
        if block is None:
            skipped[NOT_TOGETHER] += 1
        elif len(block) < 2:
            skipped["fewer than two of its views have features"] += 1
        else:
            placed.append(PlacedSet(view_set=view_set, names=block.names, dropped=tuple(block.missing)))
    return placed, skipped


def read_views(
    selection: Selection, names: Iterable[str], read: Callable[[Block, list[int]], Sequence[T]]
) -> dict[str, T]:
    """What `read(block, rows)` gives for each of the views, by name; one call for each block.

    The views of a scene may lie in two blocks, landscape and portrait, that differ in shape.
    """
    wanted = set(names)
    rows: dict[int, list[int]] = defaultdict(list)
    blocks = list(selection.blocks())
    for number, block in enumerate(blocks):
        rows[number] = [row for row, name in enumerate(block.names) if name in wanted]
    return {
        blocks[number].names[row]: value
        for number, picked in rows.items()
        if picked
        for row, value in zip(picked, read(blocks[number], picked), strict=True)
    }
