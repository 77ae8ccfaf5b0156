"""What a store keeps beside features so that probes need nothing else: splits and view sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..configs.schema import SetsOptions
from ..errors import SetsError, StoreError, first_few
from ..store.catalog import natural
from ..store.feature_store import read_split
from ..store.schema import ViewSet
from ..store.split_lists import Split
from ..store.view_sets import read_sampler, read_sets, sets_name, write_sets
from ..store.writer import write_if_changed
from .packed_scene import PackedScene
from .sets import sample_sets


def keep_splits(root: Path, splits: Mapping[str, Sequence[str]]) -> None:
    """Put the shards' splits in the store; a split of the same name takes the scenes of both.

    Raises:
        StoreError: a split of that name is there and damaged, or another one has its file's name.
    """
    for name, scenes in splits.items():
        path = root / "splits" / f"{name.replace('/', '.')}.json"
        before = read_split(path) if path.exists() else Split(name=name, scenes=())
        if before.name != name:
            raise StoreError(
                f"the splits {before.name!r} and {name!r} would lie in one file.",
                where=path,
                why="a slash is written as a dot, and some file systems take capital letters for small ones",
                fix="rename one of them in the metadata of its dataset and pack again",
            )
        both = sorted({*before.scenes, *scenes}, key=natural)
        write_if_changed(path, Split(name=name, scenes=tuple(both)).to_dict())


def keep_sets(
    root: Path, scenes: Sequence[PackedScene], options: SetsOptions, sets: str | Path | None = None
) -> Path:
    """Put the view sets of these scenes in the store, beside those of the scenes it had before.

    One file per choice of options, `walk-4x20@1f2e3d.json`. A scene without covisibility has none.

    Args:
        root: of the store.
        scenes: that are extracted.
        options: how sets are sampled.
        sets: a file of sets to keep instead.

    Raises:
        SetsError: the file cannot be read, or is of other images.
    """
    drawn = _given(sets, scenes) if sets else _sampled(scenes, options.as_sampler())
    sampler = read_sampler(sets) if sets else options.as_sampler()
    path = root / "sets" / f"{sets_name(sampler)}.json"
    now = {scene.id for scene in scenes}
    kept = [view_set for view_set in (read_sets(path) if path.exists() else []) if view_set.scene not in now]
    every = sorted([*kept, *drawn.sets], key=lambda view_set: natural(view_set.scene))
    write_sets(path, every, sampler=sampler, skipped=drawn.skipped, dropped_equal=drawn.dropped)
    return path


def scene_sets(
    scenes: Sequence[PackedScene], options: SetsOptions, sets: str | Path | None = None
) -> list[ViewSet]:
    """The view sets that `keep_sets` puts in the store.

    Raises:
        SetsError: as `keep_sets`.
    """
    return (_given(sets, scenes) if sets else _sampled(scenes, options.as_sampler())).sets


@dataclass(frozen=True, kw_only=True)
class _Drawn:
    """Sets, (scene, reason) of scenes without, and how many sets were equal to others."""

    sets: list[ViewSet]
    skipped: list[tuple[str, str]]
    dropped: int


def _sampled(scenes: Sequence[PackedScene], sampler: Mapping[str, Any]) -> _Drawn:
    sets, skipped, dropped, of_dataset = [], [], 0, Counter[str]()
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
            skipped.append((scene.id, f"no two views share more than {sampler['threshold']:g}"))
    return _Drawn(sets=sets, skipped=skipped, dropped=dropped)


def _given(path: str | Path, scenes: Sequence[PackedScene]) -> _Drawn:
    """The sets of a file, whose images are those of the shards, or what those were made from."""
    images = {
        (scene.id, view.name): (view.image_digest, view.source_digest)
        for scene in scenes
        for view in scene.views
    }
    wanted = {scene.id for scene in scenes}
    sets = [view_set for view_set in read_sets(path) if view_set.scene in wanted]
    members = ((s.scene, name, sha) for s in sets for name, sha in zip(s.members, s.images, strict=True))
    strange = [f"{scene}/{name}" for scene, name, sha in members if sha not in images.get((scene, name), ())]
    if strange:
        raise SetsError(
            f"the sets name images that the shards do not have: {first_few(dict.fromkeys(strange))}.",
            where=path,
            why="they were made for other images of these scenes",
            fix="make the sets again (`strata sets make`), or pack the scenes they were made for",
        )
    return _Drawn(sets=sets, skipped=[], dropped=0)
