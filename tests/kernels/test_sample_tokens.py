"""Bilinear sampling of tokens against torch's own grid_sample, and where the two part ways."""

from __future__ import annotations

import pytest
import torch
from strata.errors import StrataError
from strata.kernels.sample_tokens import QuantizedTokens, sample_tokens
from torch.nn.functional import grid_sample


def random_map(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)


def random_positions(count: int, rows: int, cols: int) -> torch.Tensor:
    share = torch.rand(count, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return share * torch.tensor([rows, cols]) - 0.5


@pytest.mark.parametrize("grid", [(5, 7), (1, 3), (1, 1)])
def test_equals_grid_sample(grid: tuple[int, int]):
    tokens = random_map(2, 3, *grid, 4)
    rowcol = random_positions(200, *grid)
    sampled = sample_tokens(tokens, rowcol)
    assert sampled.shape == (2, 3, 200, 4)
    uv = (2 * rowcol.flip(-1) + 1) / torch.tensor(grid[::-1]) - 1
    maps = tokens.flatten(0, 1).movedim(-1, 1)
    expected = grid_sample(maps, uv.expand(6, 1, 200, 2), padding_mode="border", align_corners=False)
    torch.testing.assert_close(sampled.flatten(0, 1), expected[:, :, 0].mT)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_exact_at_centres(dtype: torch.dtype):
    tokens = random_map(6, 9, 3, dtype=dtype)
    rowcol = torch.cartesian_prod(torch.arange(6), torch.arange(9)).float()
    sampled = sample_tokens(tokens, rowcol)
    assert sampled.dtype == dtype
    assert torch.equal(sampled, tokens.flatten(0, 1))


def test_a_centre_does_not_see_its_neighbours():
    tokens = torch.full((3, 3, 2), torch.nan)
    tokens[1, 1] = 4
    assert sample_tokens(tokens, torch.tensor([[1.0, 1.0]])).tolist() == [[4, 4]]
    assert sample_tokens(tokens, torch.tensor([[1.0, 1.25]])).isnan().all()


def test_border_holds_and_outside_is_nan():
    tokens = random_map(4, 5, 2)
    inside = torch.tensor([[-0.5, -0.5], [3.5, 4.5], [-0.25, 2.0]], dtype=torch.float64)
    assert torch.equal(sample_tokens(tokens, inside), tokens[[0, 3, 0], [0, 4, 2]])
    outside = [[-0.51, 0], [0, -0.51], [3.51, 0], [0, 4.51], [torch.nan, 0], [0, torch.inf]]
    assert sample_tokens(tokens, torch.tensor(outside, dtype=torch.float64)).isnan().all()


def test_each_map_may_have_points_of_its_own():
    tokens = random_map(2, 3, 4, 5, 2)
    rowcol = torch.stack([random_positions(7, 4, 5).roll(k, 0) for k in range(6)]).reshape(2, 3, 7, 2)
    sampled = sample_tokens(tokens, rowcol)
    for a in range(2):
        for b in range(3):
            assert torch.equal(sampled[a, b], sample_tokens(tokens[a, b], rowcol[a, b]))
    assert torch.autograd.gradcheck(lambda values: sample_tokens(values, rowcol), (tokens.requires_grad_(),))


def test_positions_of_other_maps_are_refused():
    for wrong in (torch.zeros(3, 7, 2), torch.zeros(7, 3), torch.zeros(2)):
        with pytest.raises(StrataError, match="do not go with tokens"):
            sample_tokens(random_map(2, 4, 5, 2), wrong)


def test_quantized_tokens_are_what_they_stand_for():
    generator = torch.Generator().manual_seed(3)
    tokens = QuantizedTokens(
        values=torch.randint(0, 256, (2, 4, 5, 3), generator=generator, dtype=torch.uint8),
        scale=torch.rand(2, 3, generator=generator),
        offset=torch.tensor([[0.0, 1, 2], [3, 4, torch.nan]]),
    )
    sampled = sample_tokens(tokens, torch.tensor([[1.0, 2.0], [2.5, 0.25]]))
    assert sampled.dtype == torch.float32
    centre = tokens.values[:, 1, 2] * tokens.scale + tokens.offset
    torch.testing.assert_close(sampled[:, 0], centre, equal_nan=True)


def test_gradient():
    tokens = random_map(2, 3, 4, 2).requires_grad_()
    rowcol = random_positions(6, 3, 4)
    assert torch.autograd.gradcheck(lambda values: sample_tokens(values, rowcol), (tokens,))


def test_gradient_passes_positions_outside():
    tokens = random_map(3, 4, 2).requires_grad_()
    sample_tokens(tokens, torch.tensor([[1.0, 1.0], [9.0, 9.0]]))[0].sum().backward()
    assert tokens.grad is not None
    assert float(tokens.grad.nan_to_num(99).sum()) == 2


def test_kernels_equal_the_reference(run_interpreted):
    run_interpreted("interpreted_sample_tokens.py")
