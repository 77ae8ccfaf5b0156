"""One layer of one bundle as it is stored: whole maps, single tokens, and what their bits mean.

| storage | on disk | as numbers |
|---|---|---|
| f16, f32 | the numbers | themselves, not copied |
| bf16 | the upper 16 bits of f32, as u16 | f32 |
| u8 | u8, with scale and offset per view and channel | u8 * scale + offset, f32 |

Shapes: N views or tokens asked for, R C token rows and columns, T prefix tokens, D channels. Rows are those
of the bundle.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from .array_reader import ArrayReader
from .group import StoredGroup
from .remote.array import RemoteArrayReader

if TYPE_CHECKING:
    import torch

    from ..kernels.quantized import QuantizedTokens

Rows = Sequence[int] | np.ndarray


class LayerTokens:
    """Reads tokens of a layer.

    Args:
        group: the layer's group.
        storage: f32 | f16 | bf16 | u8.
    """

    def __init__(self, group: StoredGroup, storage: str) -> None:
        self.group, self.storage = group, storage

    @cached_property
    def reader(self) -> ArrayReader | RemoteArrayReader:
        """Of the stored tokens."""
        return self.group.array("tokens")

    @property
    def map_shape(self) -> tuple[int, int, int]:
        """(R, C, D)."""
        _, rows, cols, width = self.reader.spec.shape
        return rows, cols, width

    @property
    def stored_dtype(self) -> np.dtype:
        """What is on disk: f16, f32, u16 of bf16, u8."""
        return self.reader.dtype

    @property
    def dtype(self) -> np.dtype:
        """Of the numbers: f16 where they are stored so, else f32."""
        return np.dtype(np.float16 if self.storage == "f16" else np.float32)

    def stored(self, rows: Rows, out: np.ndarray | None = None) -> np.ndarray:
        """[N, R, C, D] in the stored dtype, read straight into `out` where it is given."""
        return self.reader.read(rows, out)

    def tensor(self, rows: Rows, device: str | torch.device = "cpu") -> torch.Tensor | QuantizedTokens:
        """[N, R, C, D] as stored, on a device; see `device_read`."""
        from .device_read import read_to

        return read_to(self, rows, device)

    def affine(self, rows: Rows) -> tuple[np.ndarray, np.ndarray]:
        """(scale, offset) [N, D] f32 of u8 tokens; NaN for a view without features."""
        return self.group.read("scale", rows), self.group.read("offset", rows)

    def tokens(self, rows: Rows, out: np.ndarray | None = None) -> np.ndarray:
        """[N, R, C, D] numbers."""
        if self.storage in ("f16", "f32"):
            return self.stored(rows, out)
        values = self._numbers(self.stored(rows), rows)
        if out is None:
            return values
        out[...] = values
        return out

    def prefix(self, rows: Rows) -> np.ndarray:
        """[N, T, D] prefix tokens; beside u8 they are kept as f32."""
        values = self.group.read("prefix", rows)
        return widened(values) if self.storage == "bf16" else values

    def gather(self, rows: np.ndarray, row: np.ndarray, col: np.ndarray) -> np.ndarray:
        """[N, D] numbers of single tokens at `rows` of the bundle, token row and column, [N] each."""
        return self._numbers(self.reader.gather(rows, (row, col)), rows)

    def _numbers(self, values: np.ndarray, rows: Rows) -> np.ndarray:
        """Of stored values [N, ..., D] that belong to these rows [N]."""
        if self.storage == "bf16":
            return widened(values)
        if self.storage != "u8":
            return values
        some, inverse = np.unique(np.asarray(rows, int), return_inverse=True)
        places = (len(values), *(1,) * (values.ndim - 2), values.shape[-1])
        scale, offset = (affine[inverse].reshape(places) for affine in self.affine(some))
        numbers = values.astype(np.float32)
        numbers *= scale
        numbers += offset
        return numbers


def widened(values: np.ndarray) -> np.ndarray:
    """f32 of bf16 that is held as u16."""
    return (values.astype(np.uint32) << 16).view(np.float32)
