"""Which view sets a training has, and how many of each dataset an epoch draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..configs.dataset_presets import dataset_names, load_dataset
from ..configs.schema import TrainVGGTConfig
from ..extract.scenes.scene import Scene
from ..extract.scenes.wai_rules import plain_name
from ..extract.sets import check_options, sample_sets
from ..store.feature_store import FeatureStore
from ..store.schema import ViewSet
from ..store.view_sets import sets_name
from .draws import Draw
from .mix import read_mix


def samples_of(config: TrainVGGTConfig, counts: Mapping[str, int]) -> dict[str, int]:
    """Samples of an epoch by dataset; without a mix every item once."""
    if config.mix is None:
        return dict(counts)
    mixed: dict[str, int] = {}
    for name, part in read_mix(config.mix).items():
        folders = [dataset for dataset in counts if name in (dataset, plain_name(dataset))]
        for folder in folders or [name]:
            mixed[folder] = max(1, part.sets // max(1, len(folders)))
    return mixed


def walk_threshold(dataset: str, config: TrainVGGTConfig) -> float:
    """Of covisibility: a mix draws each dataset with its own."""
    preset = plain_name(dataset)
    if config.mix is None or preset not in dataset_names():
        return config.set_threshold
    return float(load_dataset(preset).options["set_threshold"])


def sampled_sets(scene: Scene, config: TrainVGGTConfig) -> list[Draw]:
    """Sets of a held-out scene, those that `strata sets make` would make."""
    sampler = config.as_sampler()
    check_options(**{name: sampler[name] for name in ("views", "count", "seed", "sampler")})
    if scene.covisibility is None:
        return []
    names = [view.name for view in scene.views]
    digests = [view.image_digest for view in scene.views]
    sets, _ = sample_sets(
        scene.id,
        names,
        digests,
        scene.covisibility,
        **{**sampler, "threshold": walk_threshold(scene.dataset, config)},
    )
    return [Draw(scene=one.scene, names=one.members) for one in sets]


def stored_sets(store: FeatureStore, config: TrainVGGTConfig) -> list[ViewSet]:
    """The store's sets of the asked options, or the only ones it has."""
    names, asked = store.set_names(), sets_name(config.as_sampler())
    return store.view_sets(asked if asked in names or len(names) != 1 else names[0])


def spread(draws: Sequence[Draw], limit: int | None) -> tuple[Draw, ...]:
    """At most `limit` of them, evenly over all."""
    if limit is None or len(draws) <= limit:
        return tuple(draws)
    return tuple(draws[len(draws) * i // limit] for i in range(limit))
