"""Questions: which tokens of a set correspond. Made once per set, answered by every layer.

Shapes: V query views, W = V key views, P tokens of the longest view, D channels, G bins of viewpoint angle,
H bins of similarity.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..kernels.nearest_cosine import NearestCosine, PairLabels
from ..store.key import canonical_json

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
class Question(ABC):
    """Which tokens of one set correspond.

    Attributes:
        digest: 16 hex digits over all that is asked.
        pairs: those of what every encoder of this token grid is asked alike; empty = nothing is.
        median_angle_deg: viewpoint angle over all corresponding pairs of tokens; None without any.
    """

    digest: str
    pairs: str
    median_angle_deg: float | None

    @abstractmethod
    def labels(self) -> PairLabels:
        """The same for the search of nearest tokens. `group` [1, V, W, P] is the bin of the viewpoint angle
        between views v and w at token p of view v, wherever something in view w corresponds to it."""

    @abstractmethod
    def means(self, tokens: Tensor) -> dict[str, float | None]:
        """Mean cosines and counts of tokens [1, V, P, D] by metric; None where there is nothing."""

    @abstractmethod
    def histograms(self, tokens: Tensor, nearest: NearestCosine) -> Tensor:
        """[G, H] int64 similarities of corresponding pairs by viewpoint angle."""


class Protocol(ABC):
    """A rule for which tokens correspond, and what is measured on them."""

    name: str

    @abstractmethod
    def read(self, block: Block, rows: list[int]) -> Sequence[ViewPoints]:
        """The token points of views of a block.

        Raises:
            SelectionError: the store does not have what they are made of.
        """

    @abstractmethod
    def ask(self, views: Sequence[Any], scene_scale_m: float | None) -> Question | None:
        """The question about views that `read` gave; None when no token is valid.

        Raises:
            ProbeError: a cell cannot be sized or numbered, or pairs are too many.
        """


def padded(views: Sequence[Tensor]) -> Tensor:
    """[1, V, P, ...] of V tensors [P_v, ...], zeros behind the shorter ones."""
    return torch.nn.utils.rnn.pad_sequence(list(views), batch_first=True)[None]


def question_digest(words: Sequence[Any], *arrays: Tensor) -> str:
    """16 hex digits over words and integer arrays."""
    hashed = hashlib.sha256(canonical_json(list(words)).encode())
    for array in arrays:
        hashed.update(canonical_json(list(array.shape)).encode())
        hashed.update(array.numpy().astype("<i8").tobytes())
    return hashed.hexdigest()[:16]


def mean_metrics(name: str, part: str, total: Tensor, count: Tensor) -> dict[str, float | None]:
    """`name` and `name_count` of one part, such as `@0-30`; without pairs there is no mean."""
    pairs = int(count)
    return {f"{name}{part}": float(total) / pairs if pairs else None, f"{name}_count{part}": pairs}
