"""`strata demo`: the whole pipeline on synthetic rooms, over Ray, by the same functions as the commands.

Every step is printed as the command that does it alone. Running the demo again resumes.
"""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from .configs.load import command_line
from .configs.schema import (
    CorrespondenceConfig,
    DemoConfig,
    ExtractConfig,
    PackConfig,
    ReportConfig,
    SetsConfig,
    SynthConfig,
)

if TYPE_CHECKING:
    from rich.console import Console

# The ceiling (knows the world point of every token), two floors, and colour alone.
ORACLES = ("oracle_world", "oracle_constant", "oracle_position", "oracle_rgb")
SETS = 8

Step = tuple[str, Callable[["Console"], int]]


def demo(config: DemoConfig, console: Console) -> int:
    """Scenes, sets, shards, features of a small encoder and the oracles, probe, report.

    Returns:
        0, or the exit code of the first step that did not succeed.
    """
    start_s, out = time.monotonic(), Path(config.out)
    with _own_ray(console) as backend:
        code = _walk(_steps(config, out, backend), console)
    if code:
        return code
    page = out / "report" / "report.html"
    seconds = time.monotonic() - start_s
    console.print(f"\nDone in {seconds:.0f} s. Open {page}", markup=False, highlight=False, soft_wrap=True)
    return 0


@contextmanager
def _own_ray(console: Console) -> Iterator[str]:
    """`ray`, one for all steps, or `local` where it cannot start."""
    from .errors import ClusterError
    from .extract.ray_session import own_session

    with ExitStack() as stack:
        try:
            stack.enter_context(own_session())
            backend = "ray"
        except ClusterError as error:
            console.print(f"going on without Ray: {error}", markup=False, highlight=False)
            backend = "local"
        yield backend


def _walk(steps: Iterator[Step], console: Console) -> int:
    """Print and run each step; the exit code of the first that did not succeed, or 0."""
    for command, step in steps:
        console.print(f"\n$ {command}", style="bold", markup=False, highlight=False, soft_wrap=True)
        code = step(console)
        if code:
            return code
    return 0


def _steps(config: DemoConfig, out: Path, backend: str) -> Iterator[Step]:
    yield from _prepare(config, out)
    for encoder in (config.encoder, *ORACLES):
        yield _extract(encoder, out, backend)
    yield from _measure(out)


def _prepare(config: DemoConfig, out: Path) -> Iterator[Step]:
    from .extract.pack import pack
    from .extract.scenes.synth_command import synth
    from .extract.sets_command import make

    rooms = SynthConfig(out=str(out / "scenes"), scenes=config.scenes)
    yield command_line("strata scenes synth", rooms), lambda console: synth(rooms, console)
    sets = SetsConfig(scenes=rooms.out, out=str(out / "sets.json"), set_count=SETS)
    yield command_line("strata sets make", sets), lambda console: make(sets, console)
    shards = PackConfig(scenes=rooms.out, out=str(out / "shards"))
    yield command_line("strata pack", shards), lambda console: pack(shards, console)


def _extract(encoder: str, out: Path, backend: str) -> Step:
    from .extract.run import run

    weights = "hub" if encoder.startswith("oracle_") else "random:0"
    config = ExtractConfig(
        shards=str(out / "shards"),
        store=str(out / "feats.zarr"),
        encoder=encoder,
        weights=weights,
        backend=backend,
    )
    return command_line("strata extract run", config), lambda console: run(config, console)


def _measure(out: Path) -> Iterator[Step]:
    from .probes.correspondence import run
    from .probes.report import report
    from .store.listing import ls

    store, results, page = str(out / "feats.zarr"), str(out / "runs"), str(out / "report")
    yield f"strata store ls {shlex.quote(store)}", lambda console: ls(store, console)
    probe = CorrespondenceConfig(store=store, sets=str(out / "sets.json"), out=results)
    yield command_line("strata probe correspondence", probe), lambda console: run(probe, console)
    shown = ReportConfig(out=page)
    command = command_line(f"strata report {shlex.quote(results)}", shown)
    yield command, lambda console: report([results], shown, console)
