"""From the words of `strata train` to what is read: online from scenes or shards, or from a store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..configs.schema import TrainVGGTConfig
from ..errors import ConfigError, TrainError
from ..extract.scenes.scene import Scene
from ..store.feature_store import FeatureStore
from ..store.key import digest
from ..store.schema import ViewSet
from ..store.selection import Selection
from ..store.view_sets import read_sets
from .draws import Draw, Draws, SetDraws, WalkDraws, placed_sets
from .online import OnlineViews, covisible, open_source, read_scenes
from .samples import sampled_sets, samples_of, spread, stored_sets, walk_threshold
from .scene_choice import Chosen, choose_scenes
from .stored import StoredViews
from .vggt_words import place_of
from .views import ViewSource

Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingData:
    """What a training reads.

    Attributes:
        views: reads it.
        draws: sets to train on.
        mix: by dataset, samples of an epoch.
        held_out: sets to measure on.
        fingerprint: of all of it.
        selection: whose tokens they are; None = images.
    """

    views: ViewSource
    draws: Draws
    mix: dict[str, int]
    held_out: tuple[Draw, ...]
    fingerprint: str
    selection: Selection | None = None


def open_data(config: TrainVGGTConfig, say: Say) -> TrainingData:
    """The data that the words ask for.

    Args:
        config: the options.
        say: called with lines for people.

    Raises:
        ConfigError: `source` lacks its place.
        TrainError: no scene is left, with the reason for each.
        StrataError: scenes, store, sets or a split cannot be read.
    """
    data = _online(config, say) if config.source == "online" else _stored(config, say)
    say(_told(data))
    return data


def _online(config: TrainVGGTConfig, say: Say) -> TrainingData:
    path = place_of(config, "scenes")
    source = open_source(path)
    chosen = choose_scenes(source.ids(), source.splits(), config, path)
    train, left_out = read_scenes(source, chosen.train)
    held, lost = read_scenes(source, chosen.held_out)
    grids = {(scene.id, view.name): None for scene in [*train, *held] for view in scene.views}
    sets = read_sets(config.sets) if config.sets is not None else []
    if config.sets is not None:
        draws: Draws = SetDraws(_of(sets, train, grids, say))
        held_out = _of(sets, held, grids, say)
    else:
        walkable, not_walkable = covisible(train, lambda dataset: walk_threshold(dataset, config))
        left_out |= not_walkable
        thresholds = {scene.dataset: walk_threshold(scene.dataset, config) for scene in train}
        draws = WalkDraws(walkable, thresholds, config.set_count)
        held_out = [draw for scene in held for draw in sampled_sets(scene, config)]
    _say_left_out(chosen, {**left_out, **lost}, say)
    _check_some(draws, chosen, left_out, path)
    views = [[s.id, [v.name for v in s.views]] for s in [*train, *held]]
    return TrainingData(
        views=OnlineViews([*train, *held], config.fit),
        draws=draws,
        mix=samples_of(config, draws.counts()),
        held_out=spread(held_out, config.val_limit),
        fingerprint=digest([views, [one.digest for one in sets]]),
    )


def _stored(config: TrainVGGTConfig, say: Say) -> TrainingData:
    path = place_of(config, "store")
    store = FeatureStore.open(path)
    selection = store.select(place_of(config, "encoder"), layers=[config.layer])
    if selection.key.context == "set":
        raise ConfigError(
            f"{selection.key.encoder} cannot be the patch embedding of VGGT.",
            where=f"encoder={config.encoder}",
            why="its features belong to whole view sets, and training looks at other sets",
            fix="choose an encoder that sees each view alone",
        )
    splits = {name: split.scenes for name, split in store.splits().items()}
    chosen = choose_scenes(selection.scenes, splits, config, path)
    views = StoredViews(selection, [*chosen.train, *chosen.held_out])
    sets = read_sets(config.sets) if config.sets is not None else stored_sets(store, config)
    held = set(chosen.held_out)
    train_sets, lost = placed_sets([one for one in sets if one.scene in set(chosen.train)], views.grids)
    held_out, held_lost = placed_sets([one for one in sets if one.scene in held], views.grids)
    _say_left_out(chosen, views.left_out, say)
    if lost + held_lost:
        say(
            f"left out {lost + held_lost:,} view sets: fewer than two of their views have tokens, camera and "
            "depth, or they have several token grids"
        )
    draws = SetDraws(train_sets)
    _check_some(draws, chosen, views.left_out, path)
    say(
        f"tokens of {selection.stored_key.name}, {selection.layers[0]}: sizes as stored, nothing is augmented"
    )
    return TrainingData(
        views=views,
        draws=draws,
        mix=samples_of(config, draws.counts()),
        held_out=spread(held_out, config.val_limit),
        fingerprint=digest([selection.fingerprint, [one.digest for one in sets]]),
        selection=selection,
    )


def _of(sets: Iterable[ViewSet], scenes: Sequence[Scene], grids: Mapping, say: Say) -> list[Draw]:
    ids = {scene.id for scene in scenes}
    placed, lost = placed_sets([one for one in sets if one.scene in ids], grids)
    if lost:
        say(f"left out {lost:,} view sets: fewer than two of their views have geometry")
    return placed


def _say_left_out(chosen: Chosen, left_out: Mapping[str, str], say: Say) -> None:
    for notice in chosen.notices:
        say(notice)
    for scene_id, why in left_out.items():
        say(f"left out {scene_id}: {why}")


def _check_some(draws: Draws, chosen: Chosen, left_out: Mapping[str, str], where: str) -> None:
    if sum(draws.counts().values()):
        return
    lines = [*chosen.notices, *dict.fromkeys(left_out.values())]
    raise TrainError(
        "there is nothing to train on.",
        where=where,
        why="\n".join(lines) or f"{len(chosen.train):,} scenes are chosen, and no view set is of them",
        fix="scenes with depth, cameras and covisibility; or name scenes with split=FILE or scene=GLOB",
    )


def _told(data: TrainingData) -> str:
    samples = ", ".join(f"{count:,} of {dataset}" for dataset, count in data.mix.items())
    held = (
        f"{len(data.held_out):,} held-out sets" if data.held_out else "no held-out sets: nothing is measured"
    )
    return f"an epoch draws {sum(data.mix.values()):,} view sets ({samples}); {held}"


def describe(data: TrainingData) -> dict[str, Any]:
    """What decides the data, as a checkpoint keeps it."""
    return {"data": data.fingerprint, "mix": data.mix}
