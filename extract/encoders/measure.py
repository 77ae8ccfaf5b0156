"""What an encoder's numbers are like, layer by layer: how large, and how exact in 16 bits or compiled.

Measured on views of a synthetic room. A deviation is |x - x32| / |x32| over all tokens and prefix tokens of
a layer, x32 being the layer in float32 as it is.

Shapes: V views, R C token rows and columns, T prefix tokens, D channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...configs.schema import ExtractConfig
from ...errors import EncoderError
from ...store.key import Preprocess
from ..scenes.synthetic import synthetic_scene
from ..storage import LIMIT, largest_value
from .base import Encoder, FeatureMap, ViewBatch
from .blocks import BlockEncoder

VIEWS, SIZE = 2, (640, 480)
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
COMPILED = "compile"
_TAP = "."


@dataclass(frozen=True, kw_only=True)
class LayerMeasure:
    """One layer.

    Attributes:
        layer: its name.
        largest: max |x| in float32, prefix tokens included.
        storage: what `storage=auto` makes of that.
        deviation: by dtype, and for `compile`; None where values are not finite. What the encoder cannot
            do is left out.
    """

    layer: str
    largest: float
    storage: str
    deviation: dict[str, float | None]


def measure(
    encoder: Encoder,
    device: str = "cpu",
    *,
    compiled: bool = True,
    done: Callable[[], None] = lambda: None,
    note: Callable[[str], None] = lambda text: None,
) -> list[LayerMeasure]:
    """Every layer but taps, shallow to deep. The encoder's blocks are compiled afterwards, if asked.

    Args:
        encoder: of images alone.
        device: where it is measured.
        compiled: compile the blocks too; where that fails, it is noted and left out.
        done: called after each of the `passes(encoder)` passes.
        note: called with a line for the user.

    Raises:
        EncoderError: the encoder needs more than images.
    """
    _check_images_alone(encoder)
    batch, layers = _views(encoder), tuple(name for name in encoder.layers() if _TAP not in name)
    exact = _run(encoder, batch, layers, device, torch.float32)
    done()
    deviation: dict[str, dict[str, float | None]] = {layer: {} for layer in layers}
    for way in passes(encoder, compiled)[1:]:
        if way == COMPILED:
            other = _run_compiled(encoder, batch, layers, device, note)
        else:
            other = _run(encoder, batch, layers, device, DTYPES[way])
        for layer in other:
            deviation[layer][way] = _deviation(other[layer], exact[layer])
        done()
    encoder.to(device, torch.float32)
    return [_measure(layer, exact[layer], deviation[layer]) for layer in layers]


def _check_images_alone(encoder: Encoder) -> None:
    if encoder.info.needs:
        raise EncoderError(
            f"{encoder.info.name} has nothing to measure.",
            where="--measure",
            why=f"it computes {' and '.join(sorted(encoder.info.needs))} into features, in float32 alone",
            fix="measure an encoder of images",
        )


def passes(encoder: Encoder, compiled: bool = True) -> list[str]:
    """What is run: float32, the 16-bit dtypes that it knows, and compiled blocks where it has blocks."""
    dtypes = [name for name in DTYPES if name in encoder.info.computes]
    return ["float32", *dtypes, *([COMPILED] if compiled and isinstance(encoder, BlockEncoder) else [])]


def _measure(layer: str, exact: FeatureMap, deviation: dict[str, float | None]) -> LayerMeasure:
    largest = largest_value(exact)
    storage = "bf16" if largest > LIMIT else "f16"
    return LayerMeasure(layer=layer, largest=largest, storage=storage, deviation=deviation)


def _views(encoder: Encoder) -> ViewBatch:
    """One set of views of a room, at the default token grid."""
    info = encoder.info
    default = ExtractConfig(shards="", store="", encoder="").grid
    grid = Preprocess(grid=default).resolve_grid(*SIZE, info.patch_size, info.stride)
    height, width = info.pixels(grid)
    scene = synthetic_scene(0, 0, VIEWS, width, height)
    images = torch.from_numpy(np.stack([view.image for view in scene.views]))
    return ViewBatch(images=images.permute(0, 3, 1, 2)[None].float() / 255, grid=grid)


def _run(
    encoder: Encoder, batch: ViewBatch, layers: tuple[str, ...], device: str, dtype: torch.dtype
) -> dict[str, FeatureMap]:
    return encoder.to(device, dtype).forward(batch, layers)


def _run_compiled(
    encoder: Encoder, batch: ViewBatch, layers: tuple[str, ...], device: str, note: Callable[[str], None]
) -> dict[str, FeatureMap]:
    """As `_run` in float32; nothing where the blocks cannot be compiled."""
    assert isinstance(encoder, BlockEncoder)
    for block in encoder.blocks:
        block.compile()
    try:
        return _run(encoder, batch, layers, device, torch.float32)
    except Exception as error:  # the compiler raises types of its own, and what its tools raise
        note(f"torch.compile does not work here and is left out: {str(error).strip().partition(chr(10))[0]}")
        return {}


def _deviation(other: FeatureMap, exact: FeatureMap) -> float | None:
    a, b = _values(other), _values(exact)
    found = float((a - b).norm() / b.norm().clamp_min(torch.finfo(torch.float64).tiny))
    return found if np.isfinite(found) else None


def _values(feature: FeatureMap) -> Tensor:
    """All numbers of a layer, f64."""
    parts = [feature.tokens] if feature.prefix is None else [feature.tokens, feature.prefix]
    return torch.cat([part.double().flatten().cpu() for part in parts])
