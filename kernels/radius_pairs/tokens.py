"""What pairs are sought among, and the pairs.

Shapes: B sets, N tokens of a set, M pairs.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from ...errors import ProbeError


@dataclass(frozen=True, kw_only=True, eq=False)
class RadiusPairs:
    """Pairs of tokens of different views, in order of (set, i, j).

    Attributes:
        set: [M] int64.
        i, j: [M] int64 tokens of the set, i < j.
        distance: [M] f64 between them, in the unit of the points.
    """

    set: Tensor
    i: Tensor
    j: Tensor
    distance: Tensor

    def __len__(self) -> int:
        return len(self.set)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
    """Tokens that may pair up.

    Attributes:
        point: [B, N, 3] f64, 0 where not valid.
        radius: [B, N] f64 finite and not negative, 0 where not valid.
        view: [B, N] int64.
        valid: [B, N] bool.
    """

    point: Tensor
    radius: Tensor
    view: Tensor
    valid: Tensor


def tokens_of(points: Tensor, valid: Tensor, view: Tensor, radius: Tensor) -> Tokens:
    """The arguments of `radius_pairs`, of one type and shape.

    Raises:
        ProbeError: shapes do not fit.
    """
    shape = valid.shape
    view_fits = view.shape in (shape, shape[1:])
    if points.shape != (*shape, 3) or len(shape) != 2 or radius.shape != shape or not view_fits:
        raise ProbeError(
            f"points {list(points.shape)}, valid {list(shape)}, view {list(view.shape)} and radius "
            f"{list(radius.shape)} do not fit together.",
            where="radius_pairs",
            fix="give points [B, N, 3], valid and radius [B, N], and view [B, N] or [N]",
        )
    valid = valid & points.isfinite().all(-1) & radius.isfinite() & (radius >= 0)
    return Tokens(
        point=points.detach().double().where(valid[..., None], 0.0).contiguous(),
        radius=radius.detach().double().where(valid, 0.0),
        view=view.long().expand(shape).contiguous(),
        valid=valid.contiguous(),
    )


def squared_distance(a: Tensor, b: Tensor) -> Tensor:
    """[...] f64 between points [..., 3]: the order of the sum is the same in every implementation."""
    x, y, z = (a - b).unbind(-1)
    return x * x + y * y + z * z


def pairs_of(codes: Tensor, squares: Tensor, count: int) -> RadiusPairs:
    """Sorted pairs of codes [M] int64 = (set * N + i) * N + j, with N = count, and squared distances."""
    codes, order = codes.sort()
    return RadiusPairs(
        set=codes.div(count * count, rounding_mode="floor"),
        i=codes.div(count, rounding_mode="floor") % count,
        j=codes % count,
        distance=squares[order].sqrt(),
    )
