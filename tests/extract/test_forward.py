"""The cast that the store keeps: its bits, and which views have numbers that it cannot hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from strata.extract.forward import narrowed, on_host

DTYPES = {"f16": torch.float16, "bf16": torch.bfloat16, "f32": torch.float32}


@pytest.mark.parametrize("storage", DTYPES)
def test_bits_are_those_of_the_cast(storage):
    values = torch.randn(3, 2, 5, 7)[:, :, 1:]  # not contiguous
    array = on_host(narrowed(values, storage)[0])
    assert array.dtype == {"f16": np.float16, "bf16": np.uint16, "f32": np.float32}[storage]
    expected = values.to(DTYPES[storage]).contiguous().view(torch.uint8).numpy()
    np.testing.assert_array_equal(np.ascontiguousarray(array).view(np.uint8), expected)


@pytest.mark.parametrize(
    ("storage", "bad"),
    [
        ("f16", [7e4, -7e4, np.inf, np.nan]),
        ("bf16", [3.4e38, np.inf, -np.inf, np.nan]),
        ("f32", [np.inf, np.nan]),
    ],
)
def test_views_that_it_cannot_hold_are_named(storage, bad):
    largest = torch.finfo(DTYPES[storage]).max
    values = torch.full((len(bad) + 2, 3, 5), largest)
    values[1] = -0.0
    for i, value in enumerate(bad):
        values[i + 2, 1, 3] = value
    finite = on_host(narrowed(values, storage)[1])
    assert finite.tolist() == [True, True, *[False] * len(bad)]


@pytest.mark.parametrize("storage", DTYPES)
def test_what_is_kept_is_not_the_encoders_memory(storage):
    values = torch.zeros(1, 2, 3, dtype=DTYPES[storage])
    cast, _ = narrowed(values, storage)
    values += 1
    assert not cast.any()
