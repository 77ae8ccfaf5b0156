"""A small task, and processes that fit it; the tests of the loop run this file as a script.

One process imports torch and forks those that are killed or that train together: each starts in a moment.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from strata.configs.schema import FitOptions
from strata.store import atomic
from strata.train import checkpoint
from strata.train.fit import fit
from strata.train.task import Task
from torch import nn

ITEMS, BATCH, STEPS = 40, 8, 5
MOMENTS = ("model", "optimiser", "rename", "prune", "end")
EDGES = (0, 5, 8)
"""Where a batch is divided between two ranks: one has more items than the other."""


class Net(nn.Module):
    """A body and a head, a layer that nothing uses, and a buffer that counts training passes."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(16, 1)
        self.spare = nn.Linear(2, 2)
        self.register_buffer("passes", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.passes += 1
        return self.head(self.body(x))


class Toy(Task):
    """Squares of four numbers.

    Args:
        noise: a step draws from torch, NumPy and Python.
        room: items that memory has room for.
    """

    def __init__(self, *, noise: bool = True, room: int = BATCH) -> None:
        with torch.random.fork_rng():
            torch.manual_seed(3)
            self.model: Net = Net(0.2 if noise else 0.0)
        self._noise, self._room = noise, room
        generator = torch.Generator().manual_seed(1)
        self.x = torch.randn(ITEMS, 4, generator=generator)
        self.y = (self.x**2).sum(1, keepdim=True)
        self.calls = 0

    def steps(self, shard):
        return STEPS

    def batches(self, epoch, start, shard):
        order = torch.randperm(ITEMS, generator=torch.Generator().manual_seed(epoch))
        for k in range(start, STEPS):
            chosen = order[BATCH * k : BATCH * (k + 1)]
            if shard.count > 1:
                chosen = chosen[EDGES[shard.rank] : EDGES[shard.rank + 1]]
            yield {"x": self.x[chosen], "y": self.y[chosen], "name": "toy"}

    def loss(self, model, batch):
        self.calls += 1
        x = batch["x"]
        if len(x) > self._room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        if self._noise:
            x = x + 0.1 * torch.randn_like(x) + 0.1 * float(np.random.randn()) + 0.1 * random.random()
        squared = (model(x) - batch["y"]) ** 2
        return {"loss": squared.mean(), "mae": squared.sqrt().mean()}

    def validate(self, model, shard):
        _ = torch.rand(1), np.random.rand(), random.random()  # what validation draws must not matter
        return {"error": float(((model(self.x) - self.y) ** 2).mean())}


def options(out: Path, **changes) -> FitOptions:
    config = FitOptions(out=str(out), epochs=4, lr=1e-2, best="min:error", checkpoint_every=3)
    for name, value in changes.items():
        setattr(config, name, value)
    return config


def run(out: Path, noise: bool = True, room: int = BATCH, **changes) -> None:
    """Fit the toy; what is said goes into `said.txt`."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / "said.txt").open("a", buffering=1) as file:
        fit(
            Toy(noise=noise, room=room),
            options(out, **changes),
            Console(file=file, width=200),
            command="toy again",
        )


def child(out: Path, before: Callable[[], None] = lambda: None, **changes) -> int:
    """Fork a process that fits the toy; returns its id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            before()
            run(out, curves=False, **changes)
            code = 0
        except KeyboardInterrupt:
            code = 130
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def ended(pid: int) -> int:
    """The exit code, negative where a signal ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def signalled(out: Path, number: signal.Signals, times: int) -> list[int]:
    """Send signals at random times, then let a process get to the end; returns their exit codes."""
    rng, codes = random.Random(0), []
    for _ in range(times):
        pid = child(out)
        goal = lines(out) + rng.randint(1, 6)
        while lines(out) < goal and os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.01)
        os.kill(pid, number)
        codes.append(ended(pid))
    return [*codes, ended(child(out))]


def lines(out: Path) -> int:
    return (out / "log.jsonl").read_bytes().count(b"\n") if (out / "log.jsonl").exists() else 0


def killed_while_saving(out: Path, moment: str) -> list[int]:
    """Die at a moment of writing the second checkpoint, or right after the last; then run the same again."""
    return [ended(child(out, lambda: _die_at(moment))), ended(child(out))]


def _die_at(moment: str) -> None:
    real_save, real_replace, real_remove, calls = checkpoint.save_file, os.replace, shutil.rmtree, []

    def save(tensors, path):
        calls.append(path)
        if len(calls) == {"model": 3, "optimiser": 4}.get(moment):
            real_save(tensors, path)
            os.truncate(path, path.stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        real_save(tensors, path)

    def replace(source, target):
        if moment == "rename" and Path(target).name == "step-00000005":
            os.kill(os.getpid(), signal.SIGKILL)
        real_replace(source, target)
        if moment == "end" and Path(target).name == "step-00000020":
            os.kill(os.getpid(), signal.SIGKILL)

    def remove(path, **words):
        if moment == "prune" and Path(path).name == "step-00000003":
            os.unlink(Path(path) / "state.json")
            os.kill(os.getpid(), signal.SIGKILL)
        real_remove(path, **words)

    checkpoint.save_file, atomic.os.replace, checkpoint.shutil.rmtree = save, replace, remove


def together(out: Path) -> list[int]:
    """Two processes that train as one, the second with little memory."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])

    def joins(rank: int) -> Callable[[], None]:
        place = {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        return lambda: os.environ.update(place)

    return [
        ended(pid) for pid in [child(out, joins(rank), noise=False, room=5 - 3 * rank) for rank in range(2)]
    ]


def main(folder: Path) -> dict[str, list[int]]:
    """Everything that needs processes; returns exit codes by the folder of the run."""
    os.fsync = lambda handle: None  # a signal loses nothing that the kernel has, and disks are slow
    run(folder / "whole", curves=False)  # also loads what the forked processes share
    run(folder / "alone", noise=False, accumulate=2, curves=False)
    return {
        "killed": signalled(folder / "killed", signal.SIGKILL, times=6),
        "stopped": signalled(folder / "stopped", signal.SIGTERM, times=2),
        "together": together(folder / "together"),
        **{moment: killed_while_saving(folder / moment, moment) for moment in MOMENTS},
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(main(Path(sys.argv[1]))))
