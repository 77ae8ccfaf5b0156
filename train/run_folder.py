"""What a run writes beside its checkpoints: options, log, points of trackers. One process at a time may."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import os
import sys
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy
import torch

from ..configs.schema import FitOptions
from ..errors import TrainError
from ..store.atomic import read_json, write_json
from .log import RUN, Log
from .position import Position, finite
from .step import Outcome
from .trackers import open_trackers


class RunFolder:
    """The records of a run in its folder, from `position` on.

    Args:
        command: that runs this again.
        steps: that the run is to have.

    Raises:
        TrainError: another process writes there, or a tracker cannot start.
    """

    def __init__(
        self, folder: Path, config: FitOptions, position: Position, command: str, steps: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._every, options = config.log_every, dataclasses.asdict(config)
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, _locked(folder))
            run_id = _describe(folder, options, command, steps)
            self._trackers = open_trackers(config.log, folder, position.step, run_id, options)
            for tracker in self._trackers:
                stack.callback(tracker.close)
            self._log = Log(folder, position.log_bytes)
            stack.callback(self._log.close)
            self._close = stack.pop_all().close

    def step(self, at: Position, outcome: Outcome, rate: float, step_s: float, wait_s: float) -> None:
        """A row for the step that led to `at`."""
        numbers = {
            **outcome.values,
            "lr": rate,
            **{f"grad_norm/{name}": norm for name, norm in outcome.norms.items()},
            "items_per_s": outcome.items / step_s,
            "wait_share": wait_s / step_s,
        }
        row = {"kind": "step", "step": at.step, "epoch": at.epochs, **finite(numbers)}
        self._log.write(row | ({"skipped": outcome.skipped} if outcome.skipped else {}))
        if at.step % self._every == 0:
            self._point(at.step, numbers)

    def validation(self, step: int, epochs: int, metrics: Mapping[str, float]) -> None:
        """A row for the validation after `epochs` epochs."""
        self._log.write({"kind": "validation", "step": step, "epoch": epochs, **finite(metrics)})
        self._point(step, {f"validation/{name}": value for name, value in metrics.items()})

    def settle(self) -> int:
        """Bring the log to the disk; returns its length in bytes."""
        return self._log.settle()

    def close(self) -> None:
        """Let go of log, trackers and lock."""
        self._close()

    def _point(self, step: int, values: Mapping[str, float]) -> None:
        for tracker in self._trackers:
            tracker.point(step, values)


def _describe(folder: Path, options: Mapping[str, Any], command: str, steps: int) -> str:
    """Write `run.json`; returns the run's id, which stays when it is continued."""
    path = folder / RUN
    run_id = read_json(path)["run"] if path.exists() else uuid.uuid4().hex
    versions = {"python": sys.version.split()[0], "torch": torch.__version__, "numpy": numpy.__version__}
    started = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(
        path,
        {
            "run": run_id,
            "started": started,
            "command": command,
            "steps": steps,
            "options": dict(options),
            "versions": versions,
        },
    )
    return run_id


def _locked(folder: Path) -> int:
    """A lock that goes with the process, however it ends."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise TrainError(
            "another process trains into this folder.",
            where=folder,
            why="two runs would write over each other",
            fix="wait for it, stop it, or give another out=",
        ) from None
    except OSError:
        pass  # a file system without locks
    return handle
