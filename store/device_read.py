"""Tokens as they are stored, on a device: the small form crosses the bus and is widened there.

To a GPU they go through pinned memory. Where kvikio is installed, chunks that need no check (any more) are
read by the GPU itself, past the processor. Neither has run on a GPU yet.

Letters: N views, R C token rows and columns, D channels.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np

from .array_reader import ArrayReader
from .layer_tokens import LayerTokens, Rows

if TYPE_CHECKING:
    import torch

    from ..kernels.quantized import QuantizedTokens


def read_to(
    tokens: LayerTokens, rows: Rows, device: str | torch.device = "cpu"
) -> torch.Tensor | QuantizedTokens:
    """[N, R, C, D] f16, bf16 or f32 as stored, or quantized, on `device`.

    Args:
        tokens: the layer.
        rows: [N] of the bundle.
        device: on a GPU, the copy may still be under way on the current stream.

    Raises:
        StoreError: a shard is missing or damaged.
    """
    import torch

    from ..kernels.quantized import QuantizedTokens

    values = _array(tokens.reader, rows, torch.device(device))
    if tokens.storage == "bf16":
        return values.view(torch.bfloat16)
    if tokens.storage != "u8":
        return values
    scale, offset = (torch.from_numpy(affine).to(device) for affine in tokens.affine(rows))
    return QuantizedTokens(values=values, scale=scale, offset=offset)


def _array(reader: ArrayReader, rows: Rows, device: torch.device) -> torch.Tensor:
    """[N, ...] in the stored dtype."""
    import torch

    if device.type != "cuda":
        return torch.from_numpy(reader.read(rows)).to(device)
    places = reader.settled(rows) if find_spec("kvikio") else None
    if places is not None:
        return _direct(reader, places, device)
    shape, dtype = (len(rows), *reader.spec.shape[1:]), _torch_dtype(reader.dtype)
    pinned = torch.empty(shape, dtype=dtype, pin_memory=True)
    reader.read(rows, pinned.numpy())
    return pinned.to(device, non_blocking=True)


def _direct(reader: ArrayReader, places: list[tuple[str, int]], device: torch.device) -> torch.Tensor:
    """[N, ...] from (file, offset) of each row, by GPUDirect Storage."""
    import kvikio  # type: ignore[import-not-found]
    import torch

    out = torch.empty((len(places), *reader.spec.shape[1:]), dtype=_torch_dtype(reader.dtype), device=device)
    # kvikio reads on threads and streams of its own.
    torch.cuda.current_stream(device).synchronize()
    files = {path: kvikio.CuFile(path, "r") for path, _ in places}
    reads = [
        files[path].pread(row.reshape(-1).view(torch.uint8), reader.spec.row_bytes, offset)
        for row, (path, offset) in zip(out, places, strict=True)
    ]
    for read in reads:
        read.get()
    for file in files.values():
        file.close()
    return out


def _torch_dtype(dtype: np.dtype) -> torch.dtype:
    import torch

    return torch.from_numpy(np.empty(0, dtype)).dtype
