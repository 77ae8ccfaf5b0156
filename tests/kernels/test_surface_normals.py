"""Normals against the rooms' formulas, and where there are none."""

from __future__ import annotations

import math

import pytest
import torch
from strata.extract.scenes.synthetic import SyntheticSource
from strata.kernels.geometry import angle_deg, pixel_grid, unproject
from strata.kernels.surface_normals import surface_normals

K_PX = torch.tensor([[50.0, 3.0, 20.0], [0.0, 60.0, 15.0], [0.0, 0.0, 1.0]], dtype=torch.float64)


def plane_depth(normal: torch.Tensor, distance: float, height: int = 31, width: int = 41) -> torch.Tensor:
    """[H, W] z-depth of the plane normal . X = -distance."""
    rays = unproject(
        pixel_grid(height, width, K_PX).reshape(-1, 2), torch.ones(height * width).double(), K_PX
    )
    return (-distance / (rays @ normal)).reshape(height, width)


@pytest.mark.parametrize("direction", [(0.0, 0.0, -1.0), (0.5, -0.3, -0.8), (-0.7, 0.2, -0.6)])
def test_planes_are_exact(direction: tuple[float, ...]):
    normal = torch.nn.functional.normalize(torch.tensor(direction, dtype=torch.float64), dim=0)
    depth_m = plane_depth(normal, 2.0)
    uv_px = torch.tensor(
        [[20.3, 15.4], [5.0, 28.0], [40.0, 0.0]], dtype=torch.float64
    )  # the last in a corner
    u, v = uv_px.round().long().unbind(-1)
    found = surface_normals(uv_px, depth_m[v, u], depth_m, K_PX, reach_px=2)
    torch.testing.assert_close(found, normal.expand(3, 3), atol=1e-9, rtol=0)


def test_what_lies_behind_an_edge_does_not_count():
    normal = torch.tensor([0.0, 0.6, -0.8], dtype=torch.float64)
    depth_m = plane_depth(normal, 2.0)
    middle = torch.tensor([[20.0, 15.0]], dtype=torch.float64)
    z = depth_m[15, 20, None].clone()
    depth_m[:, 22:] = 1.4 * depth_m[:, 22:] + 1
    depth_m[1::5] = 0
    found = surface_normals(middle, z, depth_m, K_PX, reach_px=4)
    torch.testing.assert_close(found[0], normal, atol=1e-9, rtol=0)


def test_one_row_is_no_surface():
    depth_m = torch.zeros(9, 9, dtype=torch.float64)
    depth_m[4] = 2
    middle, z = torch.tensor([[4.0, 4.0]]).double(), torch.tensor([2.0]).double()
    assert surface_normals(middle, z, depth_m, K_PX, reach_px=3).isnan().all()
    depth_m[5, 4] = 2
    assert surface_normals(middle, z, depth_m, K_PX, reach_px=3).isnan().all(), "a pixel is no second row"
    depth_m[5] = 2
    assert surface_normals(middle, z, depth_m, K_PX, reach_px=3)[0, 2] == pytest.approx(-1)
    nowhere = torch.tensor([[math.nan, 4.0], [4.0, 4.0], [400.0, 4.0]]).double()
    z = torch.tensor([2.0, math.nan, 2.0]).double()
    assert surface_normals(nowhere, z, depth_m, K_PX, reach_px=3).isnan().all()


def test_rooms_face_as_their_formulas_say():
    view = SyntheticSource(scenes=3, views=2, width=160, height=120).analytic("synthetic/room_2").views[0]
    depth_m, K_px = torch.from_numpy(view.depth_m), torch.from_numpy(view.K_px)
    uv_px = pixel_grid(120, 160, K_px)[3::7, 3::7].reshape(-1, 2)
    u, v = uv_px.long().unbind(-1)
    found = surface_normals(uv_px, depth_m[v, u], depth_m, K_px, reach_px=3)
    cam_from_world = torch.from_numpy(view.world_from_cam[:3, :3]).T
    expected = torch.from_numpy(view.normal_world[v, u]).double() @ cam_from_world.T
    error_deg = angle_deg(found, expected)
    # The rest are creases, where the window sees two sides of nearly equal depth.
    assert (error_deg < 1).float().mean() > 0.75
    assert (error_deg < 60).float().mean() > 0.98
