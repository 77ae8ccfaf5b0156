"""Packing scenes into WebDataset shards.

Scenes are checked, planned into shards and written one shard at a time, so that a run that was
stopped continues with the shard it was at. Equal scenes give equal bytes, interrupted or not.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..configs.schema import PackConfig
from ..errors import ConfigError, SceneError, SetsError, counted, did_you_mean, first_few
from ..progress import Progress
from ..store.view_sets import read_sets
from .pack_changes import MB, pack_changes
from .pack_check import BrokenScene, check_scenes
from .pack_folder import ShardFolder
from .pack_members import CheckedScene
from .pack_plan import ShardPlan, plan_shards
from .scenes.open import Subset, asked_scenes
from .scenes.scene import SceneSource

if TYPE_CHECKING:
    from rich.console import Console

THREADS = min(8, os.cpu_count() or 1)
FAULTS_SHOWN = 20


class Advances(Protocol):
    """What a progress bar must be able to do."""

    def advance(self, n: int, /) -> object: ...

    def note(self, text: str, /) -> object: ...


@dataclass(frozen=True, kw_only=True)
class PackSummary:
    """What a pack holds and what was done for it.

    Attributes:
        scenes, views, shards, bytes: what the index names.
        kept: shards that were there already.
        replaced: shards that took the place of others.
        written: whether anything was written; False for a pack that was finished and is unchanged.
        broken: scenes that were left out.
    """

    scenes: int
    views: int
    shards: int
    bytes: int
    kept: int
    replaced: int
    written: bool
    broken: tuple[BrokenScene, ...] = ()


def pack(config: PackConfig, console: Console) -> int:
    """Pack the scenes of `config`; 1 when some were broken and left out, else 0."""
    for name in ("shard_mb", "max_side"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name}={value} is too small.", where=name, fix="give 1 or more")
    source = asked_scenes(config)
    if config.sets:
        source = Subset(source, _of_sets(config.sets, source))
    with Progress(console, "pack", len(source.ids()), unit="scenes") as progress:
        summary = pack_scenes(
            source,
            config.out,
            shard_bytes=config.shard_mb * MB,
            max_side=config.max_side,
            progress=progress,
            skip_broken=config.skip_broken,
        )
    console.print(_told(summary, config.out), markup=False, highlight=False, soft_wrap=True)
    return 1 if summary.broken else 0


def pack_scenes(
    source: SceneSource,
    out: str | Path,
    *,
    shard_bytes: int,
    max_side: int | None = None,
    progress: Advances | None = None,
    skip_broken: bool = False,
) -> PackSummary:
    """Pack all scenes of `source` into the folder `out`.

    Every image and depth is decoded once, so that what cannot be read is found here. All broken scenes
    are looked for; they keep the pack from being finished unless `skip_broken`. Nothing of a finished
    pack is replaced once a broken scene was met.

    Args:
        source: scenes; their order is the order in the shards.
        out: folder; finished shards in it are kept where they are what would be written.
        shard_bytes: a shard is closed before it gets larger.
        max_side: views with a longer side are made smaller; None = all are packed as they are.
        progress: its `advance(n)` is told of n scenes done, its `note` what is there and will change.
        skip_broken: pack the others.

    Raises:
        SceneError: scenes are broken, share an id, or there are none; nothing is committed.
        DiskFullError: finished shards stay; the same call continues.
    """
    folder, broken = ShardFolder(Path(out)), []
    settings = {"shard_bytes": shard_bytes, "max_side": max_side}
    if progress is not None and folder.finished:
        progress.note(_there(folder, source.ids(), settings))
    pool = ThreadPoolExecutor(THREADS, thread_name_prefix="pack")
    try:
        checked = check_scenes(source, _unique(source.ids()), folder.known_scenes(), pool, max_side)
        plans = plan_shards(_sound(checked, broken, progress), shard_bytes)
        records, kept, replaced = _put_all(folder, plans, pool, lambda: bool(broken) and not skip_broken)
    finally:
        pool.shutdown(cancel_futures=True)
    if broken and (not skip_broken or not records):
        raise _refusal(broken, out, skip_broken)
    written = folder.commit(records, source.splits(), settings)
    return _summary(records, kept, replaced, written, broken)


def _there(folder: ShardFolder, ids: Sequence[str], settings: dict[str, Any]) -> str:
    """What is in the folder, and what will become of it."""
    there = f"{counted(len(folder.finished), 'finished shard')} in {folder.path}"
    changes = pack_changes(folder.index(), folder.settings(), ids, settings)
    return f"{there}; {changes}" if changes else f"{there}: what still fits is kept"


def _put_all(
    folder: ShardFolder, plans: Iterable[ShardPlan], pool: Executor, lost: Callable[[], bool]
) -> tuple[list[dict[str, Any]], int, int]:
    """Records of the shards, how many were there, and how many replaced others.

    Once the pack is lost, a finished one is left alone.
    """
    records, kept, replaced = [], 0, 0
    for plan in plans:
        if lost() and folder.committed:
            continue
        before = plan.name in folder.finished
        record, was_there = folder.put(plan, pool)
        records.append(record)
        kept += was_there
        replaced += before and not was_there
    return records, kept, replaced


def _of_sets(sets: str, source: SceneSource) -> set[str]:
    """The scenes that a file of view sets names, all of which are there."""
    named, known = {view_set.scene for view_set in read_sets(sets)}, source.ids()
    absent = sorted(named.difference(known))
    if absent:
        raise SetsError(
            f"the sets name {counted(len(absent), 'scene')} not there: {first_few(absent)}.",
            where=sets,
            fix=did_you_mean(absent[0], known),
        )
    return named


def _unique(ids: list[str]) -> list[str]:
    repeated = [scene_id for scene_id, times in Counter(ids).items() if times > 1]
    if repeated:
        raise SceneError(
            f"scenes share an id: {first_few(repeated)}.",
            where="scenes",
            why="a scene is found by its id <dataset>/<scene>",
            fix="rename one of the two, or pack them into two folders",
        )
    if not ids:
        raise SceneError("there are no scenes to pack.", where="scenes", fix="name a folder with scenes")
    return ids


def _sound(
    checked: Iterable[CheckedScene | BrokenScene], broken: list[BrokenScene], progress: Advances | None
) -> Iterator[CheckedScene]:
    """The scenes without faults; the others go to `broken`."""
    for scene in checked:
        if isinstance(scene, BrokenScene):
            broken.append(scene)
        else:
            yield scene
        if progress is not None:
            progress.advance(1)


def _refusal(broken: list[BrokenScene], out: str | Path, skip_broken: bool) -> SceneError:
    scenes = f"{counted(len(broken), 'scene')} {'is' if len(broken) == 1 else 'are'} broken"
    return SceneError(
        f"{scenes}, the pack was not finished.",
        where=out,
        why=_listed(broken),
        fix="mend the scenes" + ("" if skip_broken else ", or add skip_broken=true to pack the others"),
    )


def _listed(broken: Iterable[BrokenScene]) -> str:
    lines = [line for scene in broken for line in str(scene).splitlines()]
    left = len(lines) - FAULTS_SHOWN
    return "\n".join([*lines[:FAULTS_SHOWN], *([f"and {left:,} more"] if left > 0 else [])])


def _summary(
    records: list[dict[str, Any]], kept: int, replaced: int, written: bool, broken: list[BrokenScene]
) -> PackSummary:
    parts = [part for record in records for part in record["scenes"]]
    return PackSummary(
        scenes=len({part["id"] for part in parts}),
        views=sum(len(part["views"]) for part in parts),
        shards=len(records),
        bytes=sum(record["bytes"] for record in records),
        kept=kept,
        replaced=replaced,
        written=written,
        broken=tuple(broken),
    )


def _told(summary: PackSummary, out: str) -> str:
    parts = ((summary.scenes, "scene"), (summary.views, "view"), (summary.shards, "shard"))
    counts = ", ".join(counted(number, noun) for number, noun in parts)
    held = f"{counts}, {summary.bytes / MB:,.1f} MB in {out}"
    if not summary.written:
        lines = [f"nothing to do, these scenes are packed already: {held}"]
    else:
        before = ((summary.kept, "kept as they were"), (summary.replaced, "rewritten"))
        lines = ["; ".join([f"packed {held}", *(f"{number:,} {what}" for number, what in before if number)])]
    if summary.broken:
        lines += [f"{counted(len(summary.broken), 'broken scene')} left out:", _listed(summary.broken)]
    return "\n".join(lines)
