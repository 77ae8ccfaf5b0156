"""VGGT as a task: the batches it is trained on, its loss, what it is measured by.

Shapes: B sets, V views, R C token rows and columns, D channels, H W pixels.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from .batch import Batch
from .distributed import Shard
from .held_out import HeldOut
from .loss_options import LossOptions
from .losses import vggt_loss
from .normalise import normalised
from .set_batches import SetBatches
from .task import Task
from .vggt_batch import predict, true_geometry
from .vggt_pictures import paint_set


class VGGTTask(Task):
    """Training of a VGGT on batches of view sets.

    Args:
        model: a `strata.VGGT`; trained in place.
        train: batches.
        held_out: sets to measure on; None = none.
        loss: what is scored.
        identity: JSON of what decides the data.
        endless: an epoch has as many steps as are asked for, though sets come again in it.

    Attributes:
        train, held_out: as given.
    """

    def __init__(
        self,
        model: nn.Module,
        train: SetBatches,
        held_out: HeldOut | None,
        loss: LossOptions,
        identity: Mapping[str, Any],
        *,
        endless: bool = False,
    ) -> None:
        self.model, self.train, self.held_out = model, train, held_out
        self._loss, self._identity, self._endless = loss, dict(identity), endless

    def steps(self, shard: Shard) -> int | None:
        return None if self._endless else self.train.steps(shard.count)

    def batches(self, epoch: int, start: int, shard: Shard) -> Generator[Batch]:
        return self.train.batches(epoch, start, shard)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        truth, valid = true_geometry(batch["depth"], batch["K_px"], batch["world_from_cam"])
        return vggt_loss(predict(model, batch), normalised(truth, valid), valid, self._loss)

    def validate(self, model: nn.Module, shard: Shard) -> dict[str, float]:
        if self.held_out is None:
            return {}
        return self.held_out.measure(model, lambda batch: self.loss(model, batch), shard)

    def pictures(self, model: nn.Module, epoch: int, folder: Path) -> None:
        if self.held_out is None:
            return
        for number, (draw, batch, images) in enumerate(self.held_out.shown()):
            paint_set(model, batch, images, f"{draw.scene}, epoch {epoch}", folder / f"set-{number}.png")

    def identity(self) -> dict[str, Any]:
        return self._identity
