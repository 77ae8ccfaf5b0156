"""Runs that write to a store now, by the heartbeats of their records."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ...errors import StoreError
from ..atomic import read_json
from ..processes import dead

LIVE_S = 600.0
"""Twenty beats: clocks of several machines differ, and a slow disk may delay one."""


@dataclass(frozen=True, kw_only=True)
class LiveRun:
    """A run with a heartbeat.

    Attributes:
        name: of its record.
        key: folder of the features that it writes.
        bundles: ids of the bundles that it works on.
    """

    name: str
    key: str
    bundles: frozenset[str]


def runs_begun(root: Path) -> frozenset[str]:
    """Names of the records of all runs that ever began."""
    return frozenset(path.name for path in root.glob("runs/*.json"))


def live_runs(root: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> list[LiveRun]:
    """Runs that have not ended, and whose heart beat in the last ten minutes.

    A run on a machine whose clock is wrong is told by when its record was written, by the clock of the file
    system: either will do.
    """
    live, clock_s = [], _file_system_s(root)
    for path in sorted(root.glob("runs/*.json")):
        # A record that cannot be read is nobody's heartbeat.
        with contextlib.suppress(OSError, StoreError, AttributeError, TypeError, ValueError, KeyError):
            document = read_json(path)
            fresh = abs(clock_s - path.stat().st_mtime) <= LIVE_S
            if _beats(document, now(), math.inf if fresh else LIVE_S):
                bundles = frozenset(map(str, document["bundles"]))
                live.append(LiveRun(name=str(document["run"]), key=str(document["key"]), bundles=bundles))
    return live


def _file_system_s(root: Path) -> float:
    """Now, in seconds since 1970, by the clock that stamps the files; ours where nothing may be written."""
    try:
        os.utime(root / "runs" / ".lock")
        return (root / "runs" / ".lock").stat().st_mtime
    except OSError:
        return time.time()


def run_lives(root: Path, name: str, within_s: float) -> bool:
    """Whether a run has not ended, and its heart beat in the last so many seconds."""
    try:
        return _beats(read_json(root / "runs" / f"{name}.json"), datetime.now(UTC), within_s)
    except (StoreError, AttributeError, TypeError, ValueError, KeyError):
        return False


def _beats(document: Any, now: datetime, within_s: float = LIVE_S) -> bool:
    if document.get("state") != "running":
        return False
    age = now - datetime.fromisoformat(document["heartbeat"])
    return abs(age.total_seconds()) <= within_s and not dead(document.get("owner", ""))
