"""One optimiser step on one batch: pieces, autocast, sums over ranks, clipping, skipping.

Shapes: B items of the batch on this rank, n of them in a piece, N on all ranks.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..configs.schema import FitOptions
from ..errors import TrainError
from .batch import Batch, size, split, to_device
from .distributed import Shard, sum_gradients, sum_over_ranks, total
from .optimiser import adamw, clip_groups, set_rate, trainable
from .task import Task

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a step did.

    Attributes:
        values: `loss` and what else the task returned, means over all items of all ranks.
        norms: by clip group, the 2-norm of its gradient before clipping.
        items: of all ranks.
        skipped: why the parameters were left as they were; empty if they were not.
        bad: whether the skip counts towards giving up.
        asked_to_stop: ranks that want to stop after this step.
    """

    values: Mapping[str, float]
    norms: Mapping[str, float]
    items: int
    skipped: str
    bad: bool
    asked_to_stop: int


class Stepper:
    """The optimiser of a task's model and all that a step needs besides.

    Args:
        task: its model is on `device` already, and frozen as far as it is.
        precision: float32 | bfloat16 | float16.
        halved: whether memory ran out in an earlier run.
        notice: called with a line for people.
    """

    def __init__(
        self,
        task: Task,
        config: FitOptions,
        *,
        precision: str,
        device: torch.device,
        shard: Shard,
        halved: bool = False,
        notice: Callable[[str], None] = print,
    ) -> None:
        parameters = trainable(task.model)
        self.halved = halved
        self._task, self._device, self._shard, self._notice = task, device, shard, notice
        self._accumulate, self._precision = config.accumulate, precision
        self._parameters, self._groups = list(parameters.values()), clip_groups(parameters, config)
        self.optimiser = adamw(parameters, config)
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "float16")

    def autocast(self) -> torch.autocast:
        """The context in which the model is called."""
        enabled = self._precision != "float32"
        return torch.autocast(self._device.type, dtype=DTYPES[self._precision], enabled=enabled)

    def step(self, batch: Batch, rate: float, wants_stop: Callable[[], bool] = lambda: False) -> Outcome:
        """Move the parameters once, unless loss or gradients are not finite.

        Args:
            batch: this rank's part.
            rate: learning rate.
            wants_stop: whether this rank wants to stop; asked once the gradients are there.

        Raises:
            TrainError: memory ran out although the pieces were halved before; or the task's loss is no loss.
        """
        set_rate(self.optimiser, rate)
        halved_before = self.halved
        items = total(size(batch), self._shard, self._device)
        sums = self._backward(to_device(batch, self._device), items)
        sum_gradients(self._parameters, self._shard)
        self.scaler.unscale_(self.optimiser)
        norms = {group.name: group.clip() for group in self._groups}
        numbers = self._numbers(sums, norms, wants_stop())
        stops, halvings, *values = numbers[: 2 + len(sums)]
        self.halved = self.halved or halvings > 0
        if self.halved and not halved_before:
            self._tell()
        outcome = _outcome(
            dict(zip(sums, values, strict=True)),
            dict(zip(norms, numbers[2 + len(sums) :], strict=True)),
            items=items,
            asked_to_stop=int(stops),
            scale=self.scaler.get_scale() if self.scaler.is_enabled() else 1.0,
        )
        if not outcome.skipped:
            self.scaler.step(self.optimiser)
        self.scaler.update()
        self.optimiser.zero_grad(set_to_none=True)
        return outcome

    def _backward(self, batch: Batch, items: int) -> dict[str, Tensor]:
        """Gradients of the batch, and the task's values as this rank's share of their means."""
        try:
            return self._pieces(batch, items)
        except torch.OutOfMemoryError as error:
            if self.halved or size(batch) <= self._accumulate:
                raise self._too_little_memory(size(batch)) from error
        # Outside the handler, which would keep what the failed pass holds on the device.
        self.halved = True
        self.optimiser.zero_grad(set_to_none=True)
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        return self._backward(batch, items)

    def _pieces(self, batch: Batch, items: int) -> dict[str, Tensor]:
        sums: dict[str, Tensor] = {}
        for piece in split(batch, self._accumulate * (2 if self.halved else 1)):
            share = size(piece) / items
            with self.autocast():
                values = self._task.loss(self._task.model, piece)
            _check_loss(values)
            self.scaler.scale(values["loss"].float() * share).backward()
            for name, value in values.items():
                sums[name] = sums.get(name, 0) + value.detach().double() * share
        return dict(sorted(sums.items()))

    def _numbers(self, sums: Mapping[str, Tensor], norms: Mapping[str, Tensor], stop: bool) -> list[float]:
        """Wishes and values added up over ranks, then norms: the one wait for the device in a step."""
        wishes = torch.tensor([float(stop), float(self.halved)], dtype=torch.float64, device=self._device)
        shared = sum_over_ranks(torch.cat([wishes, *(v.reshape(1) for v in sums.values())]), self._shard)
        return torch.cat([shared, *(norm.detach().double().reshape(1) for norm in norms.values())]).tolist()

    def _tell(self) -> None:
        """Said of any rank, as only one speaks."""
        pieces = 2 * self._accumulate
        self._notice(
            f"memory ran out: batches are computed in {pieces} pieces from here on; "
            f"accumulate={pieces} starts that way"
        )

    def _too_little_memory(self, items: int) -> TrainError:
        pieces = self._accumulate * (2 if self.halved else 1)
        return TrainError(
            f"memory ran out with batches computed in {pieces} pieces.",
            where=str(self._device),
            why=f"the batch has {items:,} items" + (", and the pieces were halved before" * self.halved),
            fix=f"accumulate={2 * pieces} divides further" if items > pieces else "make the items smaller",
        )


def _outcome(
    values: dict[str, float], norms: dict[str, float], *, items: int, asked_to_stop: int, scale: float
) -> Outcome:
    wrong = [name for name, norm in norms.items() if not math.isfinite(norm)]
    skipped, bad = "", False
    if not math.isfinite(values["loss"]):
        skipped, bad = f"the loss is {values['loss']}", True
    elif wrong:
        # In float16 an overflow is how the scaler finds its scale; at scale 1 there is nothing left to find.
        skipped, bad = f"the gradient of {', '.join(wrong)} is not finite", scale <= 1
    return Outcome(
        values=values, norms=norms, items=items, skipped=skipped, bad=bad, asked_to_stop=asked_to_stop
    )


def _check_loss(values: Mapping[str, Tensor]) -> None:
    wrong = [name for name, value in values.items() if value.numel() != 1]
    if "loss" not in values or wrong or not values["loss"].requires_grad:
        raise TrainError(
            "the task's loss is no scalar that can be trained on.",
            where="the task's loss",
            why=f"no single number: {', '.join(wrong)}"
            if wrong
            else f"it returned {', '.join(values) or 'nothing'}"
            + ("; loss depends on no trained parameter" if "loss" in values else ""),
            fix="return a mapping with the scalar `loss`; for a batch without targets, 0 times an output",
        )
