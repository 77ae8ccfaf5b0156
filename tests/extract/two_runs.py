"""Two runs on one store at the same time, as processes; `test_two_runs.py` runs this as a script.

One process loads everything and forks the others. They meet where a scene says: who comes to a place says so
in one pipe, and goes on when another pipe says so.
"""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from unittest import mock

import torch
from deaths import Store, _pack, ended, fork, shared
from rich.console import Console
from strata.cli import app
from strata.extract import local_run, run
from strata.extract.bundle_pass import BundlePass
from strata.store import atomic, lock, taken_units
from strata.store.maintain.verify import verify

HANG_S = 300


class Gate:
    """A place where one process waits for another."""

    def __init__(self) -> None:
        self._came, self._open = os.pipe(), os.pipe()

    def pass_through(self) -> None:
        """Say that one has come, and wait."""
        os.write(self._came[1], b"x")
        os.read(self._open[0], 1)

    def wait(self) -> None:
        """Until somebody has come."""
        os.read(self._came[0], 1)

    def open(self) -> None:
        os.write(self._open[1], b"x")


class Run:
    """An extraction in a process of its own.

    Args:
        store: to fill.
        prepare: patches to make in the process.
    """

    def __init__(self, store: Store, *prepare: Callable[[], object]) -> None:
        self._said = Path(tempfile.mkstemp(dir=store.root.parent)[1])
        self._store, self._prepare = store, prepare
        self.pid = fork(self._work)

    def _work(self) -> None:
        signal.alarm(HANG_S)
        for prepare in self._prepare:
            prepare()
        encoder, said = shared.ColourEncoder(), io.StringIO()
        console = Console(file=said, width=1000)
        summary = run.extract(self._store.config, console, encoder)
        done = {"computed": summary.computed, "beside": summary.beside, "said": said.getvalue()}
        self._said.write_text(json.dumps(done))

    def end(self) -> dict:
        code = ended(self.pid)
        return {"code": code, **json.loads(self._said.read_text() or "{}")}


def once_at(owner: object, name: str, gate: Gate, fits: Callable[..., bool] = lambda *_: True):
    """A patch: the first call that fits passes through a gate before it is made."""

    def prepare() -> None:
        real, gates = getattr(owner, name), [gate]

        def call(*args):
            if gates and fits(*args):
                gates.pop().pass_through()
            return real(*args)

        mock.patch.object(owner, name, call).start()

    return prepare


def with_all_begun(gate: Gate) -> Callable[[], None]:
    """A patch: all units of the first bundle are begun, and no row is through yet."""
    return once_at(BundlePass, "_awaited", gate)


def without_locks() -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    for module in (lock, taken_units):
        mock.patch.object(module.fcntl, "flock", refuse).start()


def _is_tokens(_: object, target: object) -> bool:
    return "tokens/c." in str(target)


def at_the_same_rename(store: Store) -> list[dict]:
    """Both have written the same shard under their temporary names; then both rename it."""
    gates = [Gate(), Gate()]
    stops = [once_at(atomic.os, "replace", gate, _is_tokens) for gate in gates]
    runs = [Run(store, without_locks, stop) for stop in stops]
    for gate in gates:
        gate.wait()
    for gate in gates:
        gate.open()
    return [one.end() for one in runs]


def one_after_the_other(store: Store) -> list[dict]:
    """Both have begun the same units; the second comes to write them when the first has."""
    gates = [Gate(), Gate()]
    runs = [Run(store, without_locks, with_all_begun(gate)) for gate in gates]
    for gate in gates:
        gate.wait()
    gates[0].open()
    first = runs[0].end()
    gates[1].open()
    return [first, runs[1].end()]


def shared_work(store: Store, *, killed: bool = False) -> list[dict]:
    """The first has taken the units of a bundle; the second does the other bundle, and waits."""
    begun, waiting = Gate(), Gate()
    first = Run(store, with_all_begun(begun))
    begun.wait()
    second = Run(store, once_at(local_run.time, "sleep", waiting))
    waiting.wait()
    if killed:
        os.kill(first.pid, 9)
    begun.open()
    done = first.end()
    waiting.open()
    return [done, second.end()]


def two_commands(store: Store) -> list[dict]:
    """`strata extract run` twice, from the moment on at which the work begins."""
    gates, said = [Gate(), Gate()], []
    words = [f"{name}={value}" for name, value in vars(store.config).items() if name in ("shards", "store")]
    words += ["encoder=oracle_rgb", "grid=aspect:6", "unit_views=1", "batch=1"]
    pids = []
    for gate in gates:
        said.append(Path(tempfile.mkstemp(dir=store.root.parent)[1]))
        pids.append(fork(lambda gate=gate, said=said[-1]: _command(words, gate, said)))
    for gate in gates:
        gate.wait()
    for gate in gates:
        gate.open()
    return [{"code": ended(pid), "said": path.read_text()} for pid, path in zip(pids, said, strict=True)]


def _command(words: list[str], gate: Gate, said: Path) -> None:
    signal.alarm(HANG_S)
    once_at(run, "work_locally", gate)()
    with said.open("w") as file, redirect_stdout(file):
        app(["extract", "run", *words], standalone_mode=False)


SCENES = {
    "same rename": at_the_same_rename,
    "one after the other": one_after_the_other,
    "shared": shared_work,
    "killed": lambda store: shared_work(store, killed=True),
    "commands": two_commands,
}


def main(folder: Path) -> dict:
    """What each scene's runs said, and what became of the store."""
    os.fsync = lambda handle: None  # what the kernel has survives a kill, and disks are slow
    _pack(folder)
    Store(folder, "whole.zarr").extract()
    wholes = {"commands": Store(folder, "command.zarr")}
    assert ended(fork(lambda: _alone(wholes["commands"]))) == 0
    found = {}
    for number, (name, play) in enumerate(SCENES.items()):
        store = Store(folder, f"{number}.zarr")
        runs = play(store)
        whole = wholes.get(name, Store(folder, "whole.zarr"))
        report = verify(store.root)
        found[name] = {
            "runs": runs,
            "same": store.files() == whole.files(),
            "faults": [fault.path for fault in report.faults],
            "unfinished": report.unfinished,
        }
    return found


def _alone(store: Store) -> None:
    gate = Gate()
    gate.open()
    words = [f"shards={store.config.shards}", f"store={store.root}", "encoder=oracle_rgb", "grid=aspect:6"]
    _command([*words, "unit_views=1", "batch=1"], gate, store.root.parent / "alone.txt")


if __name__ == "__main__":
    torch.set_num_threads(1)
    signal.alarm(HANG_S)
    print(json.dumps(main(Path(sys.argv[1]))))
