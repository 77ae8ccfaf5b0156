"""What the words of `strata extract` mean for the scenes and the encoder at hand: key, scenes, dtype."""

from __future__ import annotations

from ..configs.schema import ExtractConfig
from ..errors import SelectionError, did_you_mean, first_few
from ..store.key import FeatureKey
from ..store.scene_glob import scene_fits
from ..store.split_lists import split_scenes
from ..store.view_sets import read_sets
from .check_words import preprocess_of
from .encoders.base import Encoder
from .packed_scene import PackedScene
from .scenes.mix import mix_scenes
from .shards import ShardIndex


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
        SelectionError: none is left, or the split is unknown.
        SceneError: the mix is not complete.
        SetsError: the sets cannot be read.
    """
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
    """`auto` = bfloat16 on a GPU, float32 elsewhere; float32 for encoders that know no other."""
    wanted = "bfloat16" if compute == "auto" and device.startswith("cuda") else compute
    return wanted if wanted in encoder.info.computes else "float32"
