"""An encoder of whole view sets, the sets, and what it stored of them."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import torch
from strata.extract.encoders.base import Encoder, EncoderInfo, FeatureMap, ViewBatch
from strata.extract.scenes.scene import Blob
from strata.store.feature_store import FeatureStore
from strata.store.schema import ViewSet
from strata.store.view_sets import write_sets


class Together(Encoder):
    """Mean colour of each cell minus that of the set; remembers what it saw, and can be made to fail."""

    info = EncoderInfo(name="together", patch_size=4, depth=1, context="set")

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []
        self.poisoned = False

    def width(self, layer: str) -> int:
        return 3

    def layers(self) -> tuple[str, ...]:
        return ("frame0", "global0", "norm")

    def prefix_names(self) -> tuple[str, ...]:
        return ("camera",)

    def forward(self, batch: ViewBatch, layers: tuple[str, ...]) -> dict[str, FeatureMap]:
        self.seen.append(tuple(batch.images.shape[:2]))
        rows, cols = batch.grid
        cells = batch.images.unflatten(-1, (cols, 4)).unflatten(-3, (rows, 4)).mean((-1, -3))
        tokens = (cells - cells.mean((1, 3, 4), keepdim=True)).permute(0, 1, 3, 4, 2)
        if self.poisoned:
            tokens = torch.where(torch.arange(tokens.shape[1])[:, None, None, None] == 1, torch.inf, tokens)
        prefix = tokens.mean((2, 3))[:, :, None]
        return {name: FeatureMap(tokens=tokens, prefix=prefix, prefix_names=("camera",)) for name in layers}

    def weights_digest(self) -> str:
        return "1" * 64

    def to(self, device: Any, dtype: torch.dtype) -> Encoder:
        return self


WORDS: dict[str, Any] = {"layers": ["global0", "norm"], "unit_views": None, "batch": 4}


def view_sets(rooms, *chosen: str) -> list[ViewSet]:
    """Sets of views by number: `a:031` is scene toy/a, frames 000, 003 and 001."""
    images = {}
    for scene in rooms.source.scenes.values():
        images |= {(scene.id, view.name): digest(view.image) for view in scene.views}
    made = []
    for one in chosen:
        name, _, numbers = one.partition(":")
        scene, members = f"toy/{name}", tuple(f"00{k}" for k in numbers)
        made.append(ViewSet(scene=scene, members=members, images=tuple(images[scene, m] for m in members)))
    return made


def digest(image: Blob) -> str:
    return hashlib.sha256(image.read()).hexdigest()


def sets_file(rooms, *chosen: str) -> str:
    path = rooms.folder / f"{'-'.join(chosen).replace(':', '')}.json"
    write_sets(path, view_sets(rooms, *chosen), sampler={"by": "hand"})
    return str(path)


def extract(rooms, *chosen: str, encoder: Encoder | None = None, **words: Any) -> tuple[Any, Together]:
    encoder = encoder or Together()
    words = {**WORDS, **({"sets": sets_file(rooms, *chosen)} if chosen else {}), **words}
    return rooms.extract(encoder, **words), encoder  # type: ignore[return-value]


def tokens_of(rooms, one: ViewSet, layer: str = "norm") -> np.ndarray:
    part = FeatureStore.open(rooms.root).select("together").of_set(one)
    (block,) = part.blocks()
    assert block.names == one.members
    return block.tokens(layer)


def expected(rooms, one: ViewSet) -> np.ndarray:
    """Straight from the stored images of these views, encoded together."""
    store = FeatureStore.open(rooms.root)
    (block,) = store.select("together").of_set(one).blocks()
    images = torch.from_numpy(block.images()).permute(0, 3, 1, 2)[None] / 255
    return Together().forward(ViewBatch(images=images, grid=block.grid), ("norm",))["norm"].tokens[0].numpy()
