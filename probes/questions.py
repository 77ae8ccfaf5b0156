"""Questions: which tokens of a set correspond. Made once per set, answered by every layer.

Shapes: V views, P tokens of the longest view, M pairs of views in a cell.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..kernels.voxel_cosine import CellPairs, VoxelCosine, VoxelSegments, voxel_segments
from ..store.key import canonical_json
from .viewpoints import viewpoint_angles_deg, weighted_median

if TYPE_CHECKING:
    from ..store.block import Block


@dataclass(frozen=True, kw_only=True, eq=False)
class ViewPoints:
    """The 3D points of one view's tokens.

    Attributes:
        world: [P, 3].
        valid: [P] bool.
        centre: [3] f64 camera centre in the world; NaN = unknown, and then no token is valid.
    """

    world: Tensor
    valid: Tensor
    centre: Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Question:
    """Cells of the tokens of one set.

    Attributes:
        ids: [1, V, P] int64, -1 = no cell, also behind the last token of a shorter view.
        plan: their segments.
        angles_deg: [M] f64 viewpoint angle of each of `plan.pairs`.
        digest: 16 hex digits over the ids and the protocol's options.
    """

    ids: Tensor
    plan: VoxelSegments
    angles_deg: Tensor
    digest: str

    @cached_property
    def median_angle_deg(self) -> float | None:
        """Over all corresponding pairs of tokens."""
        a, b = self.plan.pairs
        return weighted_median(self.angles_deg, self.plan.count[a] * self.plan.count[b])

    def angles_of(self, pairs: CellPairs) -> Tensor:
        """[M] angles of scored pairs, which lack some where tokens were not finite."""
        a, b = self.plan.pairs
        views = self.ids.shape[1]
        asked = (self.plan.id[a] * views + self.plan.view[a]) * views + self.plan.view[b]
        scored = (pairs.id * views + pairs.view_a) * views + pairs.view_b
        return self.angles_deg[torch.searchsorted(asked, scored)]


class Protocol(ABC):
    """A rule for which tokens correspond, and what is measured on them."""

    name: str
    patch_free: bool
    """Whether the questions depend on the token grid alone, and so are the same for every encoder."""
    by_pairs: bool
    """Whether the metrics need sums by cell and views."""

    @abstractmethod
    def read(self, block: Block, rows: list[int]) -> list[ViewPoints]:
        """The token points of views of a block.

        Raises:
            SelectionError: the store does not have what they are made of.
        """

    @abstractmethod
    def ids(self, world: Tensor, valid: Tensor, scene_scale_m: float | None) -> Tensor:
        """[N] int64 cells of the points [N, 3] of one set, -1 = none.

        Raises:
            ProbeError: a cell cannot be sized or numbered.
        """

    @abstractmethod
    def metrics(self, score: VoxelCosine, question: Question) -> dict[str, float | None]:
        """Values by metric; None where there is nothing to measure."""

    @abstractmethod
    def options(self, scene_scale_m: float | None) -> dict[str, Any]:
        """What decides the ids beside the points."""


def ask(protocol: Protocol, views: Sequence[ViewPoints], scene_scale_m: float | None) -> Question | None:
    """The question about these views; None when no token is valid."""
    world = padded([view.world for view in views])  # [1, V, P, 3]
    valid = padded([view.valid for view in views])
    if not bool(valid.any()):
        return None
    ids = protocol.ids(world.reshape(-1, 3), valid.reshape(-1), scene_scale_m).reshape(valid.shape)
    plan = voxel_segments(ids)
    centres = torch.stack([view.centre for view in views])[None]
    hashed = hashlib.sha256(canonical_json([protocol.name, protocol.options(scene_scale_m)]).encode())
    hashed.update(canonical_json(list(ids.shape)).encode())
    hashed.update(ids.numpy().astype("<i8").tobytes())
    return Question(
        ids=ids,
        plan=plan,
        angles_deg=viewpoint_angles_deg(plan, world, centres),
        digest=hashed.hexdigest()[:16],
    )


def padded(views: Sequence[Tensor]) -> Tensor:
    """[1, V, P, ...] of V tensors [P_v, ...], zeros behind the shorter ones."""
    return torch.nn.utils.rnn.pad_sequence(list(views), batch_first=True)[None]
