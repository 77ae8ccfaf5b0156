"""`strata sets make` and `strata sets ls`."""

from __future__ import annotations

from collections import Counter, defaultdict
from itertools import permutations
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..configs.schema import SetsConfig
from ..errors import SceneError, SetsError
from ..store.schema import ViewSet
from .scenes.open import open_scenes
from .scenes.scene import Scene, SceneSource
from .sets import check_options, read_sets, sample_sets, write_sets


def make(config: SetsConfig, console: Console) -> int:
    """Samples sets of all scenes and writes them; returns 1 if a scene is broken, else 0.

    Scenes without covisibility, or without two views that see each other, are skipped and named.

    Raises:
        SceneError: there are no scenes.
        SetsError: no scene has a set.
        StoreError: the file cannot be written.
        ConfigError: an option is out of range.
    """
    options = _options(config)
    check_options(**{name: options[name] for name in ("views", "count", "seed", "sampler")})
    source = open_scenes(config.scenes, config.source, config.split)
    sets, skipped, dropped, broken = _sample(source, options)
    for scene_id, reason in skipped:
        console.print(f"skipped {scene_id}: {reason}", markup=False, highlight=False)
    if not sets:
        raise SetsError(
            "no scene has a view set.",
            where=config.scenes,
            why="; ".join(sorted({reason for _, reason in skipped})),
            fix=f"a lower set_threshold (now {config.set_threshold}), or scenes with covisibility",
        )
    write_sets(config.out, sets, sampler=options, skipped=skipped, dropped_equal=dropped)
    scenes = len({view_set.scene for view_set in sets})
    console.print(
        f"{len(sets):,} sets of {scenes:,} scenes in {config.out}; {dropped:,} equal ones dropped",
        markup=False,
        highlight=False,
    )
    return 1 if broken else 0


def ls(path: str | Path, console: Console) -> int:
    """Prints one row per scene of a sets file; returns the exit code.

    Raises:
        SetsError: it is not a sets file.
    """
    by_scene: dict[str, list[ViewSet]] = defaultdict(list)
    for view_set in read_sets(path):
        by_scene[view_set.scene].append(view_set)
    table = Table("scene", "sets", "views per set", "covisibility", box=None, pad_edge=False)
    for scene_id, sets in by_scene.items():
        sizes = Counter(len(view_set.members) for view_set in sets)
        views = ", ".join(
            f"{size} ({n})" if len(sizes) > 1 else f"{size}" for size, n in sorted(sizes.items())
        )
        table.add_row(escape(scene_id), f"{len(sets):,}", views, _mean_covisibility(sets))
    console.print(table)
    return 0


def _sample(
    source: SceneSource, options: dict[str, Any]
) -> tuple[list[ViewSet], list[tuple[str, str]], int, int]:
    """(sets, (scene, reason) of skipped scenes, equal sets dropped, broken scenes)."""
    sets: list[ViewSet] = []
    skipped: list[tuple[str, str]] = []
    dropped = broken = 0
    seen_of_dataset: Counter[str] = Counter()
    for scene_id in source.ids():
        dataset = scene_id.partition("/")[0]
        scene_idx = seen_of_dataset[dataset]
        seen_of_dataset[dataset] += 1
        try:
            drawn, equal = _sample_scene(source.scene(scene_id), scene_idx, options)
        except SceneError as error:
            broken += 1
            skipped.append((scene_id, f"broken: {error.what}"))
            continue
        except SetsError as error:
            skipped.append((scene_id, error.what))
            continue
        sets.extend(drawn)
        dropped += equal
    return sets, skipped, dropped, broken


def _sample_scene(scene: Scene, scene_idx: int, options: dict[str, Any]) -> tuple[list[ViewSet], int]:
    if scene.covisibility is None:
        raise SetsError("no covisibility", where=scene.id)
    names = [view.name for view in scene.views]
    digests = [view.image_digest for view in scene.views]
    drawn, equal = sample_sets(scene.id, names, digests, scene.covisibility, scene_idx=scene_idx, **options)
    if not drawn:
        raise SetsError(f"no two views have covisibility above {options['threshold']}", where=scene.id)
    return drawn, equal


def _options(config: SetsConfig) -> dict[str, Any]:
    return {
        "views": config.set_views,
        "count": config.set_count,
        "threshold": config.set_threshold,
        "seed": config.set_seed,
        "sampler": config.sampler,
    }


def _mean_covisibility(sets: list[ViewSet]) -> str:
    """Over all ordered pairs of different members."""
    shares = [
        view_set.covisibility[i][j]
        for view_set in sets
        if view_set.covisibility is not None
        for i, j in permutations(range(len(view_set.members)), 2)
    ]
    return f"{fmean(shares):.2f}" if shares else "-"
