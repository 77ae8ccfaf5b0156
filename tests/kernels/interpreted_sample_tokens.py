"""The Triton kernels of `sample_tokens` against the reference, interpreted by test_sample_tokens.py."""

from __future__ import annotations

import pytest
import torch
from strata.kernels.sample_tokens import QuantizedTokens, kernel, reference
from triton.runtime.interpreter import InterpretedFunction


@pytest.fixture(autouse=True)
def poison(monkeypatch: pytest.MonkeyPatch):
    """What no kernel writes is not a number; blocks are small, so that channels need several."""
    assert isinstance(kernel.sample_forward, InterpretedFunction)
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *size, **place: empty(*size, **place).fill_(torch.nan))
    monkeypatch.setattr(kernel, "BLOCK", 4)


def inputs(maps: tuple[int, ...], grid: tuple[int, int], points: tuple[int, ...], dtype=torch.float32):
    generator = torch.Generator().manual_seed(points[-1])
    tokens = torch.randn(*maps, *grid, 5, generator=generator).to(dtype)
    # A little beyond the borders, and some centres.
    rowcol = torch.rand(*points, 2, generator=generator) * (torch.tensor(grid) + 0.4) - 0.7
    rowcol[..., ::3, :] = rowcol[..., ::3, :].round()
    return tokens, rowcol


def compare(tokens: torch.Tensor, rowcol: torch.Tensor) -> None:
    results = {}
    for name, sample in {"kernel": kernel.sample_tokens, "reference": reference.sample_tokens}.items():
        leaf = tokens.clone().requires_grad_()
        sampled = sample(leaf, rowcol)
        weight = torch.arange(sampled.numel(), dtype=sampled.dtype).reshape(sampled.shape) / sampled.numel()
        sampled.backward(weight)
        results[name] = {"sampled": sampled.detach(), "gradient": leaf.grad}
    tolerance = 1e-6 if tokens.dtype == torch.float32 else 2e-2
    for name, expected in results["reference"].items():
        got = results["kernel"][name]
        assert got.dtype == expected.dtype
        torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance, equal_nan=True, msg=name)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_storages(dtype: torch.dtype):
    compare(*inputs((2,), (3, 4), (7,), dtype))


@pytest.mark.parametrize("maps", [(), (1,), (2, 1)], ids=str)
@pytest.mark.parametrize(("grid", "points"), [((1, 1), 1), ((3, 2), 17), ((1, 4), 0)])
def test_odd_sizes(maps: tuple[int, ...], grid: tuple[int, int], points: int):
    compare(*inputs(maps, grid, (points,)))


def test_points_of_their_own():
    compare(*inputs((2, 2), (2, 3), (2, 2, 5)))


def test_a_centre_does_not_see_its_neighbours():
    tokens = torch.full((3, 3, 2), torch.nan)
    tokens[1, 1] = 4
    assert kernel.sample_tokens(tokens, torch.tensor([[1.0, 1.0]])).tolist() == [[4, 4]]
    assert kernel.sample_tokens(tokens, torch.tensor([[1.0, 1.25]])).isnan().all()


@pytest.mark.parametrize("points", [(5,), (2, 5)], ids=str)
def test_quantized(points: tuple[int, ...]):
    _, rowcol = inputs((2,), (2, 3), points)
    generator = torch.Generator().manual_seed(3)
    tokens = QuantizedTokens(
        values=torch.randint(0, 256, (2, 2, 3, 5), generator=generator, dtype=torch.uint8),
        scale=torch.rand(2, 5, generator=generator),
        offset=torch.randn(2, 5, generator=generator),
    )
    pair = kernel.sample_tokens(tokens, rowcol), reference.sample_tokens(tokens, rowcol)
    torch.testing.assert_close(*pair, rtol=1e-5, atol=1e-5, equal_nan=True)
