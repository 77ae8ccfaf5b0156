"""Views of one token grid, with what was asked for of them: read into buffers, given as arrays or tensors.

Shapes: V views, R C token rows and columns, T prefix tokens, D channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np

from ..errors import SelectionError, did_you_mean
from .block import Block
from .key import Size
from .layer_tokens import widened
from .view_groups import LAYER_ARRAYS, PIXEL_ARRAYS, POINT_ARRAYS

Array = TypeVar("Array")
Empty = Callable[[tuple[int, ...], np.dtype], np.ndarray]

FIELDS = ("tokens", "prefix", *PIXEL_ARRAYS, "depth_m", "K_px", "cam_from_world", *POINT_ARRAYS)
"""What can be read of views, by its name in the format."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GridFeatures(Generic[Array]):
    """Views that share one token grid; arrays are those of numpy or of torch.

    Attributes:
        grid: (R, C).
        views: `<dataset>/<scene>/<frame>` of each row.
        tokens: by layer, [V, R, C, D].
        prefix: by layer, [V, T, D].
        image: [V, H, W, 3] u8, as the encoder saw them.
        token_from_source_px: [V, 2, 3] f64: [col, row] = A [u, v, 1] for pixels of the source image.
        depth_m: [V, H, W] f32 z-depth, 0 = none or outside the masks.
        K_px: [V, 3, 3] f64 intrinsics of the preprocessed views, NaN = unknown.
        cam_from_world: [V, 4, 4] f64 rigid poses, NaN = unknown.
        token_point_world: [V, R, C, 3] f32, NaN = none.
        token_valid: [V, R, C] bool.
        token_spread_m: [V, R, C] f32.

    What was not asked for is None, or empty by layer.
    """

    grid: Size
    views: tuple[str, ...]
    tokens: dict[str, Array] = field(default_factory=dict)
    prefix: dict[str, Array] = field(default_factory=dict)
    image: Array | None = None
    token_from_source_px: Array | None = None
    depth_m: Array | None = None
    K_px: Array | None = None
    cam_from_world: Array | None = None
    token_point_world: Array | None = None
    token_valid: Array | None = None
    token_spread_m: Array | None = None

    def __len__(self) -> int:
        """Number of views."""
        return len(self.views)

    def __repr__(self) -> str:
        arrays = ", ".join(f"{name} {list(array.shape)}" for name, array in _named_arrays(self))
        return f"{type(self).__name__}({len(self):,} views, grid {self.grid}: {arrays})"


def _named_arrays(features: GridFeatures[Any]) -> Iterator[tuple[str, Any]]:
    """The arrays that there are, with what people call them."""
    yield from features.tokens.items()
    yield from ((f"prefix of {layer}", array) for layer, array in features.prefix.items())
    single = ((name, getattr(features, name)) for name in FIELDS if name not in ("tokens", "prefix"))
    yield from ((name, array) for name, array in single if array is not None)


class ViewBuffers:
    """Room for some fields of views of one grid, in the dtypes they are stored in.

    Several threads may fill it. Layers whose storages differ from view to view are held as f32.

    Args:
        blocks: the views come from these.
        layers: whose tokens and prefix.
        fields: of `FIELDS`.
        views: how many.
        empty: makes an array of a shape and dtype.

    Raises:
        SelectionError: the store does not have a field of these views.
    """

    def __init__(
        self,
        blocks: Sequence[Block],
        layers: Sequence[str],
        fields: Sequence[str],
        views: int,
        empty: Empty = np.empty,
    ) -> None:
        self.grid = blocks[0].grid
        storages = {layer: {block.places[layer].storage for block in blocks} for layer in layers}
        self.storages = {layer: _common(of_layer) for layer, of_layer in storages.items()}
        self._arrays: dict[tuple[str, str], np.ndarray] = {}
        for name, layer in self._wanted(fields):
            shape, dtype = blocks[0].shape(name, layer)
            mixed = len(storages.get(layer, ())) > 1
            self._arrays[name, layer] = empty((views, *shape), np.dtype(np.float32) if mixed else dtype)

    def fill(self, start: int, block: Block, rows: Sequence[int]) -> None:
        """Read views of a block into the rows from `start` on."""
        for (name, layer), out in self._arrays.items():
            target = out[start : start + len(rows)]
            if name not in LAYER_ARRAYS or block.places[layer].storage == self.storages[layer]:
                block.read(name, rows, layer=layer, out=target)
            else:
                target[...] = getattr(block, name)(layer, rows)
            if name == "depth_m":
                target[~block.read("valid", rows)] = 0

    def arrays(self, views: tuple[str, ...]) -> GridFeatures[np.ndarray]:
        """What was read, for numpy: bf16 as f32, u8 as its f32 values."""
        values: dict[str, Any] = {**self._by_layer(self._floats), **self._of_views()}
        return GridFeatures(grid=self.grid, views=views, **values)

    def tensors(self, views: tuple[str, ...]) -> GridFeatures[Any]:
        """The same memory as tensors: bf16 as bfloat16, u8 as `QuantizedTokens`."""
        import torch

        others = {name: torch.from_numpy(values) for name, values in self._of_views().items()}
        values: dict[str, Any] = {**self._by_layer(self._tensor), **others}
        return GridFeatures(grid=self.grid, views=views, **values)

    def _wanted(self, fields: Sequence[str]) -> list[tuple[str, str]]:
        wanted = []
        for name in dict.fromkeys(map(checked_field, fields)):
            wanted += [(name, layer) for layer in self.storages] if name in LAYER_ARRAYS else [(name, "")]
            if name == "tokens":
                small = [layer for layer, storage in self.storages.items() if storage == "u8"]
                wanted += [(part, layer) for layer in small for part in ("scale", "offset")]
        return wanted

    def _by_layer(self, made: Callable[[str, str], Any]) -> dict[str, dict[str, Any]]:
        names = ("tokens", "prefix")
        there = {name: [layer for layer in self.storages if (name, layer) in self._arrays] for name in names}
        return {name: {layer: made(name, layer) for layer in there[name]} for name in names}

    def _of_views(self) -> dict[str, np.ndarray]:
        return {name: values for (name, _), values in self._arrays.items() if name not in LAYER_ARRAYS}

    def _floats(self, name: str, layer: str) -> np.ndarray:
        values = self._arrays[name, layer]
        if self.storages[layer] == "bf16":
            return widened(values)
        if (name, self.storages[layer]) != ("tokens", "u8"):
            return values
        scale, offset = (self._arrays[part, layer][:, None, None] for part in ("scale", "offset"))
        return values * scale + offset

    def _tensor(self, name: str, layer: str) -> Any:
        import torch

        from ..kernels.quantized import QuantizedTokens

        values = torch.from_numpy(self._arrays[name, layer])
        if self.storages[layer] == "bf16":
            return values.view(torch.bfloat16)
        if (name, self.storages[layer]) != ("tokens", "u8"):
            return values
        scale, offset = (torch.from_numpy(self._arrays[part, layer]) for part in ("scale", "offset"))
        return QuantizedTokens(values=values, scale=scale, offset=offset)


def checked_field(name: str) -> str:
    """The name itself, if it is one of `FIELDS`.

    Raises:
        SelectionError: it is not.
    """
    if name not in FIELDS:
        raise SelectionError(
            f"views have no field {name!r}.",
            where="fields",
            why=f"they have {', '.join(FIELDS)}",
            fix=did_you_mean(name, FIELDS),
        )
    return name


def pinned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Memory from which copies to a GPU run beside the computation."""
    import torch

    kind = torch.from_numpy(np.empty(0, dtype)).dtype
    return torch.empty(shape, dtype=kind, pin_memory=True).numpy()


def _common(storages: Collection[str]) -> str:
    return next(iter(storages)) if len(storages) == 1 else "f32"
