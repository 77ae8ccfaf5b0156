"""TensorBoard and Weights & Biases, for those who ask for them; nothing leaves the machine unless told to."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import TrainError

PROJECT = "strata"


class Tracker(Protocol):
    """Where points of curves go."""

    def point(self, step: int, values: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class TensorBoard:
    """Event files in `<folder>/tensorboard`; points after `step` of an earlier run are hidden."""

    def __init__(self, folder: Path, step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _absent("tensorboard", error) from None
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def point(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class Wandb:
    """A run of Weights & Biases in `<folder>/wandb`; `wandb sync` sends an offline one."""

    def __init__(self, folder: Path, run_id: str, options: Mapping[str, Any], *, online: bool) -> None:
        try:
            import wandb  # pyright: ignore[reportMissingImports]
        except ImportError as error:
            raise _absent("wandb", error) from None
        try:
            self._run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=folder.resolve().name,
                id=run_id,
                dir=str(folder),
                mode="online" if online else "offline",
                resume="allow",
                config=dict(options),
            )
        except wandb.Error as error:
            raise TrainError(
                "Weights & Biases cannot start.",
                where="log=wandb",
                why=str(error),
                fix="run `wandb login`, or write log=wandb, which stays on this machine",
            ) from error

    def point(self, step: int, values: Mapping[str, float]) -> None:
        self._run.log(dict(values), step=step)

    def close(self) -> None:
        self._run.finish()


Maker = Callable[[Path, int, str, Mapping[str, Any]], Tracker]
TRACKERS: Mapping[str, Maker] = {
    "tensorboard": lambda folder, step, run_id, options: TensorBoard(folder, step),
    "wandb": lambda folder, step, run_id, options: Wandb(folder, run_id, options, online=False),
    "wandb:online": lambda folder, step, run_id, options: Wandb(folder, run_id, options, online=True),
}


def open_trackers(
    words: Sequence[str], folder: Path, step: int, run_id: str, options: Mapping[str, Any]
) -> list[Tracker]:
    """The trackers that `log=` asks for.

    Args:
        words: names of `TRACKERS`.
        folder: of the run.
        step: it goes on from.
        run_id: stays the same when the run is continued.
        options: of the run, to be shown beside its curves.

    Raises:
        TrainError: one is not installed, or cannot start.
    """
    return [TRACKERS[word](folder, step, run_id, options) for word in words]


def _absent(name: str, error: ImportError) -> TrainError:
    return TrainError(
        f"{name} is not installed.",
        where=f"log={name}",
        why=str(error),
        fix=f"pip install 'strata3d[{name}]'; log.jsonl and the curves are written without it",
    )
