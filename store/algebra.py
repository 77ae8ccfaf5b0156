"""Parts of selections, and set algebra on the views of selections of one key.

Two views are the same when scene, version of the scene and position are; of encoders that see whole sets,
when the set is, too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import SelectionError, did_you_mean, first_few
from .block import Block
from .catalog import natural
from .filters import ViewFilter, scene_ids
from .layers import resolve_layers
from .schema import ViewRow

if TYPE_CHECKING:
    from .selection import Selection

View = tuple[str, str, tuple[int, ...], int]
"""Scene id, scene digest, the set's positions where features are of whole sets, position."""


def union(a: Selection, b: Selection) -> Selection:
    """The views of either, those of `a` where both have them.

    Raises:
        SelectionError: the selections do not go together, or have a scene in two versions.
    """
    _check_alike(a, b)
    parts = _joined([*a.parts, *minus(b, a).parts])
    versions: dict[str, set[str]] = defaultdict(set)
    for block in parts:
        versions[block.scene].add(block.scene_row.digest)
    several = [scene for scene, digests in versions.items() if len(digests) > 1]
    if several:
        raise SelectionError(
            f"{first_few(several)} would be selected in two versions.",
            where=a.stored_key.name,
            why="one selection is of another version of the images",
            fix="load the two selections apart",
        )
    return replace(a, parts=parts, stale=tuple(dict.fromkeys([*a.stale, *b.stale])))


def common(a: Selection, b: Selection) -> Selection:
    """The views of both.

    Raises:
        SelectionError: the selections do not go together.
    """
    _check_alike(a, b)
    return _kept(a, _views(b), inside=True)


def minus(a: Selection, b: Selection) -> Selection:
    """The views of `a` that are not in `b`.

    Raises:
        SelectionError: the selections do not go together.
    """
    _check_alike(a, b)
    return _kept(a, _views(b), inside=False)


def restricted(
    selection: Selection,
    keep: ViewFilter,
    scenes: Mapping[str, str | None],
    layers: Sequence[str] | None,
) -> Selection:
    """The part that fits; see `Selection.where`.

    Args:
        selection: the whole.
        keep: decides about views.
        scenes: the words `scene`, `dataset` and `split`.
        layers: that stay; None = all.

    Raises:
        SelectionError: nothing fits, or there is no such split.
        LayerError: a layer is not in the selection.
    """
    parts, names = selection.parts, selection.layers
    if any(word is not None for word in scenes.values()):
        wanted = set(scene_ids(selection.store, **scenes))
        parts = [block for block in parts if block.scene in wanted]
    if selection.key.context == "set":
        parts = [block for block in parts if keep.whole(block.scene, block.members)]
    if keep.restricts:
        parts = filtered(parts, lambda block, view: keep.view(block.scene, view))
    if layers is not None:
        names = resolve_layers(layers, names, selection.stored_key.depth, "the selection")
        parts = [replace(b, places={name: b.places[name] for name in names}) for b in parts]
    if not any(map(len, parts)):
        raise SelectionError(
            "no view of the selection fits.",
            where=selection.stored_key.name,
            why=", ".join(f"{word}={value}" for word, value in scenes.items() if value is not None),
            fix=did_you_mean(scenes["scene"] or scenes["dataset"] or "", selection.scenes),
        )
    return replace(selection, parts=tuple(parts), layers=names)


def filtered(parts: Iterable[Block], keep: Callable[[Block, ViewRow], bool]) -> tuple[Block, ...]:
    """Blocks of the views that are kept, without those that are left empty."""
    made = (block.part([i for i, view in enumerate(block.views) if keep(block, view)]) for block in parts)
    return tuple(block for block in made if len(block))


def _check_alike(a: Selection, b: Selection) -> None:
    for what, mine, theirs in (
        ("stores", str(a.store.root), str(b.store.root)),
        ("keys", a.stored_key.name, b.stored_key.name),
        ("layers", ", ".join(a.layers), ", ".join(b.layers)),
    ):
        if mine != theirs:
            raise SelectionError(
                f"the selections are of different {what}.",
                where=a.stored_key.name,
                why=f"one has {mine}, the other {theirs}",
                fix="select with the same encoder and layers; `concat` puts channels side by side",
            )


def _views(selection: Selection) -> set[View]:
    return {(*_seen(b), position) for b in selection.parts for position in b.positions}


def _seen(block: Block) -> tuple[str, str, tuple[int, ...]]:
    """What the views of a block were seen in."""
    of_set = block.members if block.stored_key.key.context == "set" else ()
    return block.scene, block.scene_row.digest, tuple(view.position for view in of_set)


def _kept(selection: Selection, views: Collection[View], *, inside: bool) -> Selection:
    def keep(block: Block, view: ViewRow) -> bool:
        return ((*_seen(block), view.position) in views) == inside

    return replace(selection, parts=filtered(selection.parts, keep))


def _joined(parts: Iterable[Block]) -> tuple[Block, ...]:
    """One block for what lies together, in order of scene and position."""
    together: dict[tuple, list[Block]] = defaultdict(list)
    for block in parts:
        places = tuple(place.origin for place in block.places.values())
        together[*_seen(block), block.bundle.id, places].append(block)
    blocks = [_merged(group) for group in together.values()]
    return tuple(sorted(blocks, key=lambda b: (natural(b.scene), b.positions)))


def _merged(group: list[Block]) -> Block:
    first = group[0]
    if len(group) == 1:
        return first
    order = sorted((view.position, n, i) for n, b in enumerate(group) for i, view in enumerate(b.views))

    def gathered(values: Callable[[Block], tuple]) -> tuple:
        return tuple(values(group[n])[i] for _, n, i in order)

    places = {
        layer: replace(place, rows=gathered(lambda block, layer=layer: block.places[layer].rows))
        for layer, place in first.places.items()
    }
    missing = {name: why for block in group for name, why in block.missing.items()}
    rows, views = gathered(lambda block: block.rows), gathered(lambda block: block.views)
    return replace(first, rows=rows, views=views, places=places, missing=missing)
