"""What the words of `strata extract` mean: preprocessing, scenes, dtype.

Each either gives the value or an error that names the word.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path

from ..configs.schema import ExtractConfig
from ..errors import ConfigError, SelectionError, did_you_mean, first_few
from ..store.key import COMPUTES, FeatureKey, Preprocess
from .encoders.base import Encoder
from .groups import VIEWS
from .packed_scene import PackedScene
from .scenes.split_lists import read_names
from .shards import ShardIndex


def preprocess_of(config: ExtractConfig) -> Preprocess:
    """The preprocessing that the words of the command ask for."""
    grid = None if config.pixels is not None else config.grid
    return Preprocess(
        fit=config.fit, grid=grid, pixels=config.pixels, orient=config.orient, filter=config.filter
    )


def check_views(views: str) -> str:
    """The word itself, if it says what is kept of the views.

    Raises:
        ConfigError: it does not.
    """
    if views not in VIEWS:
        raise ConfigError(f"views={views} is not known.", where="views", fix=did_you_mean(views, VIEWS))
    return views


def feature_key(config: ExtractConfig, encoder: Encoder, compute: str) -> FeatureKey:
    """The key of the features that these words ask for."""
    info = encoder.info
    return FeatureKey(
        encoder=info.name,
        weights=encoder.weights_digest(),
        preprocess=preprocess_of(config),
        compute=compute,
        context=info.context,
        numerics=info.numerics,
    )


def wanted_scenes(config: ExtractConfig, index: ShardIndex) -> tuple[PackedScene, ...]:
    """The packed scenes that split, glob and limit leave.

    Raises:
        ConfigError: the limit is not positive.
        SelectionError: none is left, or the split is unknown.
    """
    if config.limit is not None and config.limit < 1:
        raise ConfigError(
            f"limit={config.limit} leaves no scene.", where="limit", fix="write limit=1 or more"
        )
    names = split_scenes(config.split, index.splits) if config.split else None
    scenes = [
        scene
        for scene in index.scenes
        if (names is None or scene.id in names)
        and (config.scene is None or fnmatchcase(scene.id, config.scene))
    ][: config.limit]
    if not scenes:
        known = [scene.id for scene in index.scenes]
        raise SelectionError(
            f"no packed scene fits split={config.split}, scene={config.scene}.",
            where=index.path,
            why=f"it holds {first_few(known)}",
            fix=did_you_mean(config.scene or "", known),
        )
    return tuple(scenes)


def split_scenes(split: str, splits: Mapping[str, Iterable[str]]) -> set[str]:
    """Scene ids of a split; `test` means every `test/<dataset>`, a .json or .txt file what it lists.

    Raises:
        SelectionError: there is no such split.
        SceneError: the file cannot be read.
    """
    if Path(split).suffix in (".json", ".txt"):
        return set(read_names(Path(split)))
    found = [set(ids) for name, ids in splits.items() if name == split or name.startswith(f"{split}/")]
    if not found:
        raise SelectionError(
            f"the shards have no split {split!r}.", where="split", fix=did_you_mean(split, splits)
        )
    return set.union(*found)


def resolve_compute(compute: str, device: str, encoder: Encoder) -> str:
    """`auto` = bfloat16 on a GPU, float32 elsewhere; float32 for encoders that know no other.

    Raises:
        ConfigError: the dtype is unknown.
    """
    if compute not in ("auto", *COMPUTES):
        fix = did_you_mean(compute, ("auto", *COMPUTES))
        raise ConfigError(f"compute={compute} is not known.", where="compute", fix=fix)
    wanted = "bfloat16" if compute == "auto" and device.startswith("cuda") else compute
    return wanted if wanted in encoder.info.computes else "float32"
