"""What a store keeps beside features so that probes need nothing else: splits and view sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..configs.schema import SetsOptions
from ..store.catalog import natural
from ..store.feature_store import read_split
from ..store.schema import Split
from ..store.view_sets import read_sets, sets_name, write_sets
from ..store.writer import write_if_changed
from .packed_scene import PackedScene
from .sets import sample_sets


def keep_splits(root: Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Put the shards' splits in the store; a split of the same name takes the scenes of both.

    Raises:
        StoreError: a split of that name is there and damaged.
    """
    for name, scenes in splits.items():
        path = root / "splits" / f"{name.replace('/', '.')}.json"
        before = read_split(path).scenes if path.exists() else ()
        both = sorted({*before, *scenes}, key=natural)
        write_if_changed(path, Split(name=name, scenes=tuple(both)).to_dict())


def keep_sets(root: Path, scenes: Sequence[PackedScene], options: SetsOptions) -> Path:
    """Put the view sets of these scenes in the store, beside those of the scenes it had before.

    One file per choice of options, `walk-4x20@1f2e3d.json`. A scene without covisibility has none.
    """
    sampler = options.as_sampler()
    path = root / "sets" / f"{sets_name(sampler)}.json"
    now = {scene.id for scene in scenes}
    sets = [view_set for view_set in (read_sets(path) if path.exists() else []) if view_set.scene not in now]
    skipped, dropped, of_dataset = [], 0, Counter[str]()
    for scene in scenes:
        dataset = scene.id.partition("/")[0]
        covisibility = scene.covisibility()
        if covisibility is None:
            skipped.append((scene.id, "it has no covisibility"))
            continue
        drawn, equal = sample_sets(
            scene.id,
            [view.name for view in scene.views],
            [view.image_digest for view in scene.views],
            covisibility,
            scene_idx=of_dataset[dataset],
            **sampler,
        )
        of_dataset[dataset] += 1
        dropped += equal
        sets += drawn
        if not drawn:
            skipped.append((scene.id, f"no two views share more than {options.set_threshold:g}"))
    sets.sort(key=lambda view_set: natural(view_set.scene))
    write_sets(path, sets, sampler=sampler, skipped=skipped, dropped_equal=dropped)
    return path
