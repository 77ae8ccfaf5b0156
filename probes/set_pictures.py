"""PCA pictures of the first view sets, for the report."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from ..errors import StoreError
from ..store.atomic import write_atomic
from .set_views import PlacedSet, by_context, place_sets, read_views
from .visualize import pca_picture

if TYPE_CHECKING:
    from ..store.schema import ViewSet
    from ..store.selection import Selection


def paint_sets(
    out: Path,
    selections: Sequence[Selection],
    sets: Mapping[str, Sequence[ViewSet]],
    count: int,
    say: Callable[[str], None],
) -> None:
    """Paint the first `count` sets of each dataset for each encoder into `out/pictures`.

    A picture's name holds the fingerprint of what it shows, so one that is there is not painted again.
    `index.json` beside them lists the pictures of this run with their captions.
    """
    index, folder = [], out / "pictures"
    for selection in selections:
        for part, one in _first_sets(selection, sets, count):
            scene, name = part.scenes[0], part.stored_key.name
            file = f"{quote(f'{name}.{scene}', safe='@')}.{one.digest[:8]}-{part.fingerprint[:8]}.png"
            caption = f"{scene}, set {one.digest[:8]}, {name}"
            try:
                if not (folder / file).is_file():
                    _paint(part, one, folder / file, caption)
            except StoreError as error:
                say(f"no picture of {scene}: {error.what}")
                break
            entry = {"file": file, "caption": caption, "scene": scene, "encoder": part.key.encoder}
            index.append(entry)
    if index:
        write_atomic(folder / "index.json", json.dumps(index, indent=2, ensure_ascii=False).encode() + b"\n")


def _first_sets(
    selection: Selection, sets: Mapping[str, Sequence[ViewSet]], count: int
) -> Iterator[tuple[Selection, PlacedSet]]:
    painted: Counter[str] = Counter()
    for scene in selection.scenes:
        dataset, part = scene.partition("/")[0], selection.scene(scene)
        placed, _ = place_sets(part, sets.get(scene, ()))
        for of_sets, some in by_context(part, placed):
            for one in some:
                if painted[dataset] < count:
                    painted[dataset] += 1
                    yield of_sets, one


def _paint(part: Selection, one: PlacedSet, path: Path, title: str) -> None:
    images = read_views(part, one.names, lambda block, rows: list(block.images(rows)))
    tokens_by_layer = {}
    for layer in part.layers:
        tokens = read_views(part, one.names, lambda block, rows, name=layer: list(block.tokens(name, rows)))
        tokens_by_layer[layer] = [tokens[name] for name in one.names]
    pca_picture([images[name] for name in one.names], tokens_by_layer, path, title)
