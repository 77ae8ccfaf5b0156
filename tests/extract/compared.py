"""What tests of encoders and of scenes ask of numbers."""

from __future__ import annotations

import numpy as np
import torch


def close(a: torch.Tensor, b: torch.Tensor) -> None:
    """Equal but for the last digits of float32."""
    torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)


def known(array: np.ndarray | None) -> np.ndarray:
    """The array, which is there."""
    assert array is not None
    return array
