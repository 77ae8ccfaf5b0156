"""A VGGT that runs out of memory once, alone or as one of two processes; as a script it is both processes."""

from __future__ import annotations

import io
import json
import os
import socket
import sys
import traceback
from pathlib import Path

import torch
from rich.console import Console
from strata import VGGT
from strata.configs.schema import TrainVGGTConfig
from strata.train.fit import fit
from strata.train.vggt_command import make_task
from torch import Tensor, nn

TOO_MUCH = torch.OutOfMemoryError("CUDA out of memory")


def short_in_forward(model: VGGT) -> None:
    """The first pass of more than one set fails on its way into the heads."""

    def fail(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if len(args[0]) > 1:
            handle.remove()
            raise TOO_MUCH

    assert model.camera_head is not None
    handle = model.camera_head.register_forward_pre_hook(fail)


def short_in_backward(model: VGGT) -> None:
    """As before, but when gradients of the heads are there already."""

    def watch(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        handle.remove()
        args[0].register_hook(fail)

    def fail(gradient: Tensor) -> None:
        raise TOO_MUCH

    assert model.camera_head is not None
    handle = model.camera_head.register_forward_pre_hook(watch)


def train(config: TrainVGGTConfig, prepare=None) -> str:
    """Fit; returns what was said."""
    said = io.StringIO()
    console = Console(file=said, width=200)
    task, model = make_task(config, console)
    if prepare is not None:
        prepare(model)
    fit(task, config, console)
    return said.getvalue()


def rank(number: int, port: int, config: TrainVGGTConfig) -> int:
    """Fork one of two processes, of which the second is short; returns its id."""
    pid = os.fork()
    if pid == 0:
        code = 1
        place = {"RANK": str(number), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        os.environ.update(place)
        try:
            said = train(config, short_in_backward if number else None)
            Path(config.out, f"said-{number}.txt").write_text(said)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid


def main(document: str) -> None:
    config = TrainVGGTConfig(**json.loads(document))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    pids = [rank(number, port, config) for number in range(2)]
    codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]
    sys.exit(max(map(abs, codes)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(sys.argv[1])
