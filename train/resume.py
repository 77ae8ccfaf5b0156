"""From a run's folder to where its next step is."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from ..configs.schema import FitOptions
from ..errors import TrainError
from .checkpoint import Checkpoints, read_state
from .distributed import Shard, same_everywhere
from .position import Position, check_identity, identity
from .task import Task


@dataclass(frozen=True, kw_only=True)
class Continued:
    """What a run starts from.

    Attributes:
        identity: what decides its numbers; see `position.identity`.
        path: the checkpoint; None for a new run.
        notices: lines for people.
    """

    identity: dict[str, Any]
    position: Position
    path: Path | None = None
    scaler: Mapping[str, Any] = field(default_factory=dict)
    notices: tuple[str, ...] = ()


def continued(
    checkpoints: Checkpoints, config: FitOptions, task: Task, precision: str, shard: Shard
) -> Continued:
    """The newest checkpoint of the run, if it has one, on all ranks the same.

    Raises:
        TrainError: the checkpoint is of other settings, damaged, or not visible on this rank.
    """
    asked = identity(config, task.identity(), precision, shard.count)
    step = _newest(checkpoints, shard)
    if step is None:
        return Continued(identity=asked, position=Position())
    path = checkpoints.path(step)
    document = read_state(path)
    check_identity(document["identity"], asked, config, path)
    position, before = Position.from_dict(document["position"]), document["options"]
    if before["accumulate"] != config.accumulate:
        position = dataclasses.replace(position, halved=False)
    return Continued(
        identity=asked,
        position=position,
        path=path,
        scaler=document["scaler"],
        notices=(_begins(position, config, path), *_changes(before, config)),
    )


def _begins(position: Position, config: FitOptions, path: Path) -> str:
    if position.epochs < config.epochs:
        return f"goes on after step {position.step:,}, from {path}"
    return (
        f"finished already, with {position.epochs:,} epochs and {position.step:,} steps: nothing is left to "
        f"train; epochs={position.epochs + 1} or more trains longer, another out= begins anew"
    )


def _newest(checkpoints: Checkpoints, shard: Shard) -> int | None:
    """The step that rank 0 sees; the others must see it too."""
    seen = checkpoints.steps()
    device = "cuda" if shard.count > 1 and torch.distributed.get_backend() == "nccl" else "cpu"
    newest = torch.tensor(seen[-1] if seen else -1, device=device)
    same_everywhere([newest], shard)
    step = int(newest)
    if step >= 0 and step not in seen:
        raise TrainError(
            f"rank {shard.rank} does not see the checkpoint of step {step:,}.",
            where=checkpoints.path(step),
            why="rank 0 does, and all ranks continue from the same one",
            fix="give an out= that is the same folder on all machines",
        )
    return step if step >= 0 else None


def _changes(before: Mapping[str, Any], config: FitOptions) -> list[str]:
    """A line for each option that is another now; those that may not change do not come here."""
    now = dataclasses.asdict(config)
    return [
        f"{name}: {before[name]} until here, now {now[name]}"
        for name in now
        if name in before and before[name] != now[name]
    ]
