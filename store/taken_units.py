"""Units that runs are writing now, so that runs beside each other share the work and do not do it twice.

`runs/.units` has a line for each: who takes it, the group's folder, the unit. It is read and written anew
under a lock of its own, so that machines which share the file system see it alike. Whoever takes units holds
a lock on `runs/<taker>.taking`, which the system lets go when the process ends, however it ends.

It is advice and nothing more. Where the file system has no locks nothing is taken, and a unit that two runs
write after all is right by either.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
from collections import deque
from collections.abc import Iterable, Sequence
from pathlib import Path

from .inside import check_there
from .lock import locked
from .maintain.heartbeats import run_lives
from .processes import owner

Unit = tuple[str, int]
"""A group's folder relative to the store, and the number of one of its units."""
Line = tuple[str, str, int]

LIVE_S = 120.0
"""Four beats. A run that is taken for dead too early costs some work twice, and no more."""
_COUNTER = itertools.count()


class TakenUnits:
    """The units that one worker takes; a context that gives back what it still has.

    Args:
        root: the store.
        run: name of the run's record.
    """

    def __init__(self, root: Path, run: str) -> None:
        self._root, self._runs = root, root / "runs"
        self._ledger = self._runs / ".units"
        self._name = f"{run}@{owner().replace(':', '-')}-{next(_COUNTER)}"
        self._handle: int | None = None
        self._done: deque[Unit] = deque()

    def __enter__(self) -> TakenUnits:
        check_there(self._root)
        with locked(self._ledger):
            for path in self._runs.glob("*.taking"):
                if not _held(path):
                    path.unlink(missing_ok=True)
            self._handle = _hold(self._runs / f"{self._name}.taking")
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is None:
            return
        with contextlib.suppress(OSError):  # what led here says more
            with locked(self._ledger) as handle:
                _write(handle, [line for line in _read(handle) if line[0] != self._name])
            (self._runs / f"{self._name}.taking").unlink(missing_ok=True)
        os.close(self._handle)

    def take(self, units: Sequence[Unit]) -> list[str]:
        """Take the units that no other run is writing; of each unit, the run that is, or an empty string.

        Raises:
            StoreError: the store is not there any more.
        """
        if self._handle is None:
            return [""] * len(units)
        check_there(self._root)
        with locked(self._ledger) as handle:
            lines = self._without_done(self._living(_read(handle)))
            takers = {(group, unit): name for name, group, unit in lines}
            new = [(self._name, *unit) for unit in units if unit not in takers]
            _write(handle, [*lines, *new])
        found = [takers.get(unit, self._name) for unit in units]
        return ["" if name == self._name else _run(name) for name in found]

    def give_back(self, unit: Unit) -> None:
        """The unit is on disk, where others see it; the ledger is told with the next `take`."""
        self._done.append(unit)

    def _without_done(self, lines: list[Line]) -> list[Line]:
        done = {(self._name, *self._done.popleft()) for _ in range(len(self._done))}
        return [line for line in lines if line not in done]

    def _living(self, lines: list[Line]) -> list[Line]:
        others = {name for name, _, _ in lines} - {self._name}
        living = {name for name in others if self._lives(name)} | {self._name}
        return [line for line in lines if line[0] in living]

    def _lives(self, name: str) -> bool:
        # On a network file system the locks of a machine that is gone may stay: its heart has to beat too.
        return _held(self._runs / f"{name}.taking") and run_lives(self._root, _run(name), LIVE_S)


def _run(name: str) -> str:
    return name.partition("@")[0]


def _hold(path: Path) -> int | None:
    """A lock that lasts as long as the handle; None where the file system has none."""
    path.touch()
    # Not open for writing: a file system that has such files cannot be made read-only.
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        path.unlink(missing_ok=True)
        return None
    return handle


def _held(path: Path) -> bool:
    """Whether somebody holds the lock of a file."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _read(handle: int) -> list[Line]:
    """The lines; one that a crash cut, or that is strange, is nobody's."""
    lines = []
    for text in os.pread(handle, os.fstat(handle).st_size, 0).splitlines():
        with contextlib.suppress(ValueError, TypeError, RecursionError):
            name, group, unit = json.loads(text)
            if Path(str(name)).name == name and isinstance(group, str) and type(unit) is int:
                lines.append((name, group, unit))
    return lines


def _write(handle: int, lines: Iterable[Line]) -> None:
    text = "".join(json.dumps(line) + "\n" for line in lines).encode()
    os.ftruncate(handle, 0)
    os.pwrite(handle, text, 0)
