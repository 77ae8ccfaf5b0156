"""`strata sets make` and `strata sets ls`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from statistics import fmean
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..configs.dataset_presets import load_dataset
from ..configs.schema import SetsConfig, SetsOptions
from ..errors import ConfigError, SceneError, SetsError, counted, first_few
from ..store.schema import ViewSet
from .scenes.mix import mix_datasets
from .scenes.open import Subset, asked_scenes
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
    source = asked_scenes(config)
    walks = _walks(config, source)
    for options in walks.by_dataset.values():
        check_options(**{name: options[name] for name in ("views", "count", "seed", "sampler")})
    every = source.source if config.scene and isinstance(source, Subset) else source
    sampled = _sample(source, walks, _places(every.ids()))
    sets, skipped, dropped = sampled.sets, sampled.skipped, sampled.dropped

    def say(text: str) -> None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)

    for scene_id, reason in skipped:
        say(f"skipped {scene_id}: {reason}")
    if not sets:
        raise SetsError(
            "no scene has a view set.",
            where=config.scenes,
            why="; ".join(sorted({reason for _, reason in skipped})),
            fix="scenes with covisibility"
            + ("" if config.mix else f", or a lower set_threshold (now {config.set_threshold})"),
        )
    write_sets(config.out, sets, sampler=walks.sampler, skipped=skipped, dropped_equal=dropped)
    for line in sampled.smaller():
        say(line)
    scenes = counted(len({view_set.scene for view_set in sets}), "scene")
    say(f"{counted(len(sets), 'set')} of {scenes} in {config.out}; {dropped:,} equal ones dropped")
    return 1 if sampled.broken else 0


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


@dataclass
class _Sampled:
    """What was drawn.

    Attributes:
        sets: in order of their scenes.
        skipped: (scene, reason) of those without sets.
        dropped: how many sets were equal to another.
        broken: how many scenes cannot be read.
        short: by reason, in each scene how many sets have fewer views than were asked for.
    """

    sets: list[ViewSet] = field(default_factory=list)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    dropped: int = 0
    broken: int = 0
    short: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))

    def add(self, scene: Scene, drawn: list[ViewSet], equal: int, options: dict[str, Any]) -> None:
        """The sets of one scene."""
        self.sets += drawn
        self.dropped += equal
        asked, there = options["views"], len(scene.views)
        why = (
            f"there are no {asked} views"
            if there < asked
            else f"no walk of {asked} views stays above a covisibility of {options['threshold']:g}"
        )
        if short := sum(len(view_set.members) < asked for view_set in drawn):
            self.short[why][f"{scene.id} ({counted(there, 'view')})"] += short

    def smaller(self) -> list[str]:
        """A line for each reason why sets are smaller than asked for."""
        return [
            f"{sum(scenes.values()):,} of {counted(len(self.sets), 'set')} have fewer views than asked for, "
            f"since {why}: {first_few(scenes)}"
            for why, scenes in self.short.items()
        ]


def _places(ids: Sequence[str]) -> dict[str, int]:
    """By scene its place in its dataset, which mapanything seeds by: one scene alone keeps its own."""
    seen: Counter[str] = Counter()
    places = {}
    for scene_id in ids:
        dataset = scene_id.partition("/")[0]
        places[scene_id] = seen[dataset]
        seen[dataset] += 1
    return places


def _sample(source: SceneSource, walks: _Walks, places: Mapping[str, int]) -> _Sampled:
    sampled = _Sampled()
    for scene_id in source.ids():
        try:
            scene, options = source.scene(scene_id), walks.by_dataset[scene_id.partition("/")[0]]
            sampled.add(scene, *_sample_scene(scene, places[scene_id], options), options)
        except SceneError as error:
            sampled.broken += 1
            sampled.skipped.append((scene_id, f"broken: {error.what}"))
        except SetsError as error:
            sampled.skipped.append((scene_id, error.what))
    return sampled


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
