"""`strata sets make` and `strata sets ls`."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..configs.dataset_presets import load_dataset
from ..configs.schema import SetsConfig, SetsOptions
from ..errors import ConfigError, SceneError, SetsError
from ..store.schema import ViewSet
from .scenes.mix import mix_datasets
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
    source = open_scenes(config.scenes, config.source, config.split, config.mix)
    walks = _walks(config, source)
    for options in walks.by_dataset.values():
        check_options(**{name: options[name] for name in ("views", "count", "seed", "sampler")})
    sets, skipped, dropped, broken = _sample(source, walks)
    for scene_id, reason in skipped:
        console.print(f"skipped {scene_id}: {reason}", markup=False, highlight=False)
    if not sets:
        raise SetsError(
            "no scene has a view set.",
            where=config.scenes,
            why="; ".join(sorted({reason for _, reason in skipped})),
            fix="scenes with covisibility"
            + ("" if config.mix else f", or a lower set_threshold (now {config.set_threshold})"),
        )
    write_sets(config.out, sets, sampler=walks.sampler, skipped=skipped, dropped_equal=dropped)
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


@dataclass(frozen=True, kw_only=True)
class _Walks:
    """By dataset, the options of `sample_sets`; and what the sets file says of all of them."""

    by_dataset: dict[str, dict[str, Any]]
    sampler: dict[str, Any]


def _sample(source: SceneSource, walks: _Walks) -> tuple[list[ViewSet], list[tuple[str, str]], int, int]:
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
            drawn, equal = _sample_scene(source.scene(scene_id), scene_idx, walks.by_dataset[dataset])
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


def _walks(config: SetsConfig, source: SceneSource) -> _Walks:
    """What the words ask for; a mix says itself how its datasets are walked through."""
    asked = config.as_sampler()
    if config.mix is None:
        datasets = {scene_id.partition("/")[0] for scene_id in source.ids()}
        return _Walks(by_dataset=dict.fromkeys(datasets, asked), sampler=asked)
    own, usual = ("views", "count", "threshold"), SetsOptions().as_sampler()
    given = [f"set_{name}={asked[name]}" for name in own if asked[name] != usual[name]]
    if given:
        raise ConfigError(
            f"the mix {config.mix} has its own {', '.join(given)}.",
            where=f"mix={config.mix}",
            why="each dataset of a mix comes with its threshold and its number of sets",
            fix="leave these words out, or take the datasets one by one with split=",
        )
    by_dataset = {}
    for one in mix_datasets(config.mix, source.ids(), source.splits(), config.scenes):
        preset = load_dataset(one.preset).options
        walk = {
            "views": preset["set_views"],
            "count": one.sets_per_scene,
            "threshold": preset["set_threshold"],
        }
        by_dataset[one.folder] = {**asked, **walk}
    shared = {name: value for name, value in asked.items() if name not in own}
    datasets = {name: {key: walk[key] for key in own} for name, walk in by_dataset.items()}
    return _Walks(by_dataset=by_dataset, sampler={**shared, "mix": config.mix, "datasets": datasets})


def _mean_covisibility(sets: list[ViewSet]) -> str:
    """Over all ordered pairs of different members."""
    shares = [
        view_set.covisibility[i][j]
        for view_set in sets
        if view_set.covisibility is not None
        for i, j in permutations(range(len(view_set.members)), 2)
    ]
    return f"{fmean(shares):.2f}" if shares else "-"
