"""Measures on held-out view sets while training.

Shapes: B sets, V views, H W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Generator, Tensor, nn

from ..kernels.dense_metrics import dense_metrics
from ..store.read_ahead import read_ahead
from .batch import Batch, size, to_device
from .distributed import Shard, sum_over_ranks
from .draws import Draw
from .vggt_batch import measurable, predict, predicted_geometry, true_geometry
from .views import Look, SetViews, ViewSource, collated

NAMES = (
    "pointmaps_abs_rel",
    "pointmaps_inlier_thres_103",
    "pointmaps_inlier_thres_105",
    "z_depth_abs_rel",
    "z_depth_inlier_thres_103",
    "z_depth_inlier_thres_105",
    "pose_ate_rmse",
    "pose_auc_5",
    "pose_auc_30",
    "ray_dirs_err_deg",
)
SHOWN = 2


@dataclass(frozen=True, kw_only=True, eq=False)
class HeldOut:
    """Sets that are measured on, always the same.

    Attributes:
        views: reads them.
        draws: which they are; not empty.
        look: at which size, never augmented.
        max_images: of a batch.
        form: of the measures, see `kernels/dense_metrics.py`.
    """

    views: ViewSource
    draws: Sequence[Draw]
    look: Look
    max_images: int
    form: str

    @property
    def names(self) -> tuple[str, ...]:
        """What is measured; where several datasets are held out, of each by itself too."""
        names, datasets = ("loss", *NAMES), self._datasets
        parts = [f"{dataset}/" for dataset in datasets] if len(datasets) > 1 else []
        return tuple(part + name for part in ("", *parts) for name in names)

    @torch.no_grad()
    def measure(
        self, model: nn.Module, loss: Callable[[Batch], Mapping[str, Tensor]], shard: Shard
    ) -> dict[str, float]:
        """Means over all sets of all ranks: `loss`, and the measures if the model has cameras and a surface.

        A set in which there is nothing to measure has no part in that mean. Where several datasets are held
        out, `<dataset>/<measure>` is the mean over the sets of one.
        """
        device, datasets = next(model.parameters()).device, self._datasets
        sums = torch.zeros(2, len(datasets), 1 + len(NAMES), dtype=torch.float64, device=device)
        for batch in self._batches(shard):
            values = self._values(model, to_device(batch, device), loss)
            there = values.isfinite()
            rows = torch.tensor([datasets.index(_dataset(draw)) for draw in batch["draws"]], device=device)
            sums.index_add_(1, rows, torch.stack((torch.where(there, values, 0), there.double())))
        shared = sum_over_ranks(sums, shard).cpu()
        if len(datasets) > 1:
            shared = torch.cat((shared.sum(1, keepdim=True), shared), dim=1)
        total, count = shared.flatten(1).tolist()
        return {name: total[i] / count[i] for i, name in enumerate(self.names) if count[i]}

    def shown(self) -> Iterator[tuple[Draw, Batch, np.ndarray | None]]:
        """A few sets for pictures: each as a batch of its own, and its images."""
        for draw in self.draws[:: max(1, -(-len(self.draws) // SHOWN))]:
            yield draw, collated([self._read(draw)]), self.views.pictures(draw, self.look)

    @property
    def _datasets(self) -> list[str]:
        return sorted({_dataset(draw) for draw in self.draws})

    def _values(
        self, model: nn.Module, batch: Batch, loss: Callable[[Batch], Mapping[str, Tensor]]
    ) -> Tensor:
        """[B, 1 + measures] f64; NaN where there is nothing to measure."""
        sets, device = size(batch), batch["depth"].device
        values = torch.full((sets, 1 + len(NAMES)), torch.nan, dtype=torch.float64, device=device)
        values[:, 0] = loss(batch)["loss"].double()
        answer = predict(model, batch)
        if measurable(answer):
            truth, valid = true_geometry(batch["depth"], batch["K_px"], batch["world_from_cam"])
            found = dense_metrics(predicted_geometry(answer), truth, valid, form=self.form)
            values[:, 1:] = torch.stack([found[name].double() for name in NAMES], dim=1)
        return values

    def _batches(self, shard: Shard) -> Iterator[Batch]:
        """This rank's; sets of one number of views and one grid share a batch."""
        chunks: list[list[Draw]] = []
        kinds = sorted(self.draws, key=_kind)
        for (views, _), group in groupby(kinds, key=_kind):
            alike, most = list(group), max(1, self.max_images // views)
            chunks += [alike[i : i + most] for i in range(0, len(alike), most)]
        mine = chunks[shard.rank :: shard.count]
        return read_ahead([[partial(self._read, draw) for draw in chunk] for chunk in mine], collated)

    def _read(self, draw: Draw) -> SetViews:
        return self.views.read(draw, self.look, Generator())


def _kind(draw: Draw) -> tuple[int, Any]:
    return len(draw.names), draw.grid or (0, 0)


def _dataset(draw: Draw) -> str:
    return draw.scene.partition("/")[0]
