"""Multiview correspondence: are tokens of one 3D place alike in different views, and others not?

Everything is read from the store. A layer's score of a set is the mean cosine of tokens of different
views that look at one place (`corr`) and of those that do not (`noncorr`), under protocol `visible`,
`voxel` or `reference`; with `ranking` also how well similarity finds and tells apart what corresponds. The
questions (which tokens correspond) are made once per set, and all layers answer them.

Shapes: V views, P tokens of the longest view, D channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from ..errors import ProbeError
from ..kernels.nearest_cosine import PairLabels
from .base import Needs, Probe, Record
from .correspondence_words import VoxelEdge, protocol_names
from .questions import Protocol, Question, padded
from .ranking import ranking_metrics
from .reference_protocol import ReferenceProtocol
from .set_views import PlacedSet, by_context, place_sets, read_views
from .visible_protocol import VisibleProtocol
from .voxel_protocol import VoxelProtocol

if TYPE_CHECKING:
    from rich.console import Console

    from ..configs.schema import CorrespondenceConfig
    from ..store.block import Block
    from ..store.schema import ViewSet
    from ..store.selection import Selection

NUMERICS = 2
"""Version of the arithmetic, raised when results change: parts of older runs are computed again."""


_Asked = tuple[PlacedSet, Protocol, Question, PairLabels | None]
"""One question about one set, with what ranking needs."""


class Correspondence(Probe):
    """Scores of the view sets of one scene, by protocol, layer and metric.

    Args:
        sets: view sets by scene id.
        protocols: what is measured.
        ranking: whether to rank tokens too, which costs a product of all pairs of views.
    """

    name = "correspondence"

    def __init__(
        self, sets: Mapping[str, Sequence[ViewSet]], protocols: Sequence[Protocol], *, ranking: bool = True
    ) -> None:
        self.sets, self.protocols, self.ranking = sets, tuple(protocols), ranking

    def needs(self) -> Needs:
        return Needs(fields=frozenset({"token_point_world", "cam_from_world", "depth_m"}), unit="set")

    def fingerprint(self, selection: Selection) -> list[Any]:
        """What the records of one scene are computed from."""
        digests = [view_set.digest for view_set in self.sets.get(selection.scenes[0], ())]
        protocols = [repr(protocol) for protocol in self.protocols]
        return [NUMERICS, selection.fingerprint, digests, protocols, self.ranking]

    def evaluate(self, selection: Selection) -> Iterator[Record]:
        """All records of one scene of one encoder, by layer, set, protocol and metric.

        Raises:
            SelectionError: the store lacks points, depth or cameras of the scene.
            ProbeError: the scene has no depth, or none of its cells can be sized.
        """
        placed, _ = place_sets(selection, self.sets.get(selection.scenes[0], ()))
        parts = [(part, self._asked(part, sets)) for part, sets in by_context(selection, placed)]
        if not any(asked for _, asked in parts):
            raise _no_points(selection)
        for layer in selection.layers:
            for part, asked in parts:
                yield from self._answered(part, asked, layer, selection.fingerprint)

    def _asked(self, selection: Selection, placed: Sequence[PlacedSet]) -> list[_Asked]:
        return [
            (one, protocol, question, question.labels() if self.ranking else None)
            for protocol in self.protocols
            for one, question in self._questions(protocol, selection, placed)
        ]

    def _answered(
        self, selection: Selection, asked: Sequence[_Asked], layer: str, fingerprint: str
    ) -> Iterator[Record]:
        names = {name for one, *_ in asked for name in one.names}
        tokens = read_views(selection, names, _reader(layer))
        for one, protocol, question, labels in asked:
            views = padded([tokens[name] for name in one.names])
            row = _row(selection, layer, one, protocol, question)
            for metric, value in _answers(views, question, labels).items():
                yield Record(**row, metric=metric, value=value, selection=fingerprint)

    def _questions(
        self, protocol: Protocol, selection: Selection, placed: Sequence[PlacedSet]
    ) -> Iterator[tuple[PlacedSet, Question]]:
        points = read_views(selection, {name for one in placed for name in one.names}, protocol.read)
        scale_m = next(selection.blocks()).scene_scale_m
        for one in placed:
            question = protocol.ask([points[name] for name in one.names], scale_m)
            if question is not None:
                yield one, question


def protocols_of(config: CorrespondenceConfig) -> list[Protocol]:
    """The protocols that were asked for.

    Raises:
        ConfigError: one is unknown, or a voxel edge is no positive number.
    """
    known: dict[str, Protocol] = {
        "reference": ReferenceProtocol(voxel=VoxelEdge.parse(config.reference_voxel).size),
        "voxel": VoxelProtocol(edge=VoxelEdge.parse(config.voxel)),
        "visible": VisibleProtocol(),
    }
    return [known[name] for name in protocol_names(config)]


def run(config: CorrespondenceConfig, console: Console) -> int:
    """The command `strata probe correspondence`; see `correspondence_run`."""
    from .correspondence_run import CorrespondenceRun

    return CorrespondenceRun(config, console).run()


def _answers(views: torch.Tensor, question: Question, labels: PairLabels | None) -> dict[str, float | None]:
    """What tokens [1, V, P, D] answer, by metric."""
    ranked = ranking_metrics(views, question, labels) if labels is not None else {}
    return {**question.means(views), **ranked}


def _reader(layer: str) -> Any:
    def read(block: Block, rows: list[int]) -> list[torch.Tensor]:
        return [torch.from_numpy(view).flatten(0, 1) for view in block.tokens(layer, rows)]  # [P, D] each

    return read


def _row(
    selection: Selection, layer: str, one: PlacedSet, protocol: Protocol, question: Question
) -> dict[str, Any]:
    """What the records of one set, protocol and layer share."""
    grid_of = {name: list(block.grid) for block in selection.blocks() for name in block.names}
    grids = [grid_of[name] for name in one.names]
    scene = selection.scenes[0]
    covariates = {
        "views": list(one.names),
        "grid": grids[0] if all(grid == grids[0] for grid in grids) else grids,
        "median_angle_deg": question.median_angle_deg,
        **({"dropped": list(one.dropped)} if one.dropped else {}),
        # Where pixels decide too, encoders of other patches are asked something else.
        **({"pairs": question.digest} if question.digest != question.pairs else {}),
    }
    return {
        "probe": Correspondence.name,
        "protocol": protocol.name,
        "encoder": selection.key.encoder,
        "key": selection.key.id,
        "layer": layer,
        "dataset": scene.partition("/")[0],
        "scene": scene,
        "unit": "set",
        "set": one.digest,
        "pairs": question.pairs,
        "covariates": covariates,
    }


def _no_points(selection: Selection) -> ProbeError:
    return ProbeError(
        "the scene has no points to tell which tokens correspond.",
        where=selection.scenes[0],
        why="no view in its sets has depth and a camera",
        fix="add depth and poses to the scene, or leave it out",
    )
