"""What the words of `strata extract` mean: preprocessing, scenes, dtype.

Each either gives the value or an error that names the word.
"""

from __future__ import annotations

from ..configs.schema import ExtractConfig
from ..errors import ConfigError, SelectionError, did_you_mean, first_few
from ..store.key import COMPUTES, FeatureKey, Preprocess
from ..store.scene_glob import scene_fits
from ..store.split_lists import split_scenes
from ..store.view_sets import read_sets
from .encoders.base import Encoder
from .groups import VIEWS
from .packed_scene import PackedScene
from .scenes.mix import mix_scenes
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
        stride=info.stride,
        compute=compute,
        context=info.context,
        numerics=info.numerics,
    )


def wanted_scenes(config: ExtractConfig, index: ShardIndex) -> tuple[PackedScene, ...]:
    """The packed scenes that split, mix, sets, glob and limit leave.

    Raises:
        ConfigError: the limit is not positive.
        SelectionError: none is left, or the split is unknown.
        SceneError: the mix is not complete.
        SetsError: the sets cannot be read.
    """
    if config.limit is not None and config.limit < 1:
        raise ConfigError(
            f"limit={config.limit} leaves no scene.", where="limit", fix="write limit=1 or more"
        )
    named = _named(config, index)
    scenes = [
        scene
        for scene in index.scenes
        if all(scene.id in names for names in named.values()) and scene_fits(scene.id, config.scene)
    ][: config.limit]
    if not scenes:
        known = [scene.id for scene in index.scenes]
        asked = ", ".join(f"{name}={getattr(config, name)}" for name in (*named, "scene"))
        raise SelectionError(
            f"no packed scene fits {asked}.",
            where=index.path,
            why=f"it holds {first_few(known)}",
            fix=did_you_mean(config.scene or "", known),
        )
    return tuple(scenes)


def _named(config: ExtractConfig, index: ShardIndex) -> dict[str, set[str]]:
    """By the word that names them, scene ids."""
    named: dict[str, set[str]] = {}
    if config.split:
        named["split"] = split_scenes(config.split, index.splits, index.path)
    if config.mix:
        ids = [scene.id for scene in index.scenes]
        named["mix"] = mix_scenes(config.mix, ids, index.splits, index.path)
    if config.sets:
        named["sets"] = {view_set.scene for view_set in read_sets(config.sets)}
    return named


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
