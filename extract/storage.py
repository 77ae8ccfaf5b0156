"""How each layer is stored: f16, or bf16 where its values are too large for it.

A few layers of large models hold single channels beyond float16's 65,504. `storage=auto` looks at
max |x| over 8 views spread over what is wanted. A layer that the key already has in the store keeps
its storage, so that features added later are of one kind.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from ..errors import SceneError, ShardError
from ..store.key import FeatureKey
from ..store.layers import stored_name
from ..store.schema import ViewSet
from .bundling import scene_grids
from .encoders.base import Encoder, FeatureMap
from .forward import encode
from .packed_scene import PackedScene
from .prepare import Request, prepare

LIMIT = 16_000.0
SAMPLE_VIEWS = 8
STORAGES = ("f16", "bf16", "f32", "u8")


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a few views tell before the work begins.

    Attributes:
        largest: by layer, max |x|.
        views_per_s: rate of decoding and encoding them, one after the other.
        device: on which that was.
    """

    largest: dict[str, float]
    views_per_s: float
    device: str


def choose_storages(
    asked: str, root: Path, key: FeatureKey, layers: Sequence[str], sample: Sample | None
) -> dict[str, str]:
    """Storage by layer.

    Args:
        asked: auto | f16 | bf16 | f32 | u8.
        root: the store.
        sample: max |x| by layer; None = not measured, f16 is taken for layers the store does not have.
    """
    if asked != "auto":
        return dict.fromkeys(layers, asked)
    return {layer: _present(root, key, layer) or _by_size(layer, sample) for layer in layers}


def undecided(asked: str, root: Path, key: FeatureKey, layers: Sequence[str]) -> bool:
    """Whether `storage=auto` has to look at values."""
    return asked == "auto" and any(_present(root, key, layer) is None for layer in layers)


def sample_views(
    encoder: Encoder,
    key: FeatureKey,
    layers: tuple[str, ...],
    scenes: Sequence[PackedScene],
    device: str,
    sets: Sequence[ViewSet] = (),
) -> Sample:
    """Encode a few views, or a few of the sets, spread evenly; what cannot be read is passed over."""
    chosen = _spread(_views_of(scenes, sets))
    largest = dict.fromkeys(layers, 0.0)
    start, done = time.perf_counter(), 0
    for scene, positions in chosen:
        sizes, info = [v.source_size for v in scene.views], encoder.info
        request = Request(
            preprocess=key.preprocess,
            grid=scene_grids(sizes, key.preprocess, info.patch_size, info.stride)[positions[0]],
            patch=info.patch_size,
            stride=info.stride,
            points=True,
            depth=True,
        )
        try:
            views = [prepare(scene, scene.views[position], request) for position in positions]
            maps = encode(encoder, [views], layers, device)
        except (SceneError, ShardError):
            continue
        done += len(views)
        for layer, feature in maps.items():
            largest[layer] = max(largest[layer], largest_value(feature))
    rate = done / max(time.perf_counter() - start, 1e-9)
    return Sample(largest=largest, views_per_s=rate, device=device)


def _views_of(
    scenes: Sequence[PackedScene], sets: Sequence[ViewSet]
) -> list[tuple[PackedScene, tuple[int, ...]]]:
    """Positions of the views of each set, or of each view alone where there are no sets."""
    if not sets:
        return [(scene, (position,)) for scene in scenes for position in range(len(scene))]
    by_id = {scene.id: scene for scene in scenes}
    places = {scene.id: {view.name: view.position for view in scene.views} for scene in scenes}
    return [(by_id[one.scene], tuple(places[one.scene][name] for name in one.members)) for one in sets]


def _spread(
    every: list[tuple[PackedScene, tuple[int, ...]]],
) -> list[tuple[PackedScene, tuple[int, ...]]]:
    """About `SAMPLE_VIEWS` views, one set at least."""
    count = min(max(1, SAMPLE_VIEWS // len(every[0][1])), len(every)) if every else 0
    return [every[i * len(every) // count] for i in range(count)]


def largest_value(feature: FeatureMap) -> float:
    """max |x| of a layer, not counting what is not finite."""
    # Prefix tokens are stored as the tokens are, and registers may be far larger than any token.
    values = [feature.tokens] if feature.prefix is None else [feature.tokens, feature.prefix]
    return max(float(torch.nan_to_num(value.float()).abs().max()) for value in values if value.numel())


def _by_size(layer: str, sample: Sample | None) -> str:
    return "bf16" if sample is not None and sample.largest[layer] > LIMIT else "f16"


def _present(root: Path, key: FeatureKey, layer: str) -> str | None:
    folder = root / "features" / key.folder
    try:
        return next((s for s in STORAGES if any(folder.glob(f"*/{stored_name(layer, s)}"))), None)
    except FileNotFoundError:
        return None  # `store gc` has just removed what nobody needs
