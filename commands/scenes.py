"""`strata scenes` and `strata sets`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..configs.schema import CheckConfig, ConvertConfig, ScenesConfig, SetsConfig, SynthConfig
from .command import Verbose, group, leave, words_command

if TYPE_CHECKING:
    from rich.console import Console

scenes, sets = group("List, check, convert and make scenes."), group("Sample and list view sets.")


@words_command(scenes, "ls", ScenesConfig, "strata scenes ls scenes=data/wai")
def scenes_ls(config: ScenesConfig, console: Console) -> int:
    """List scenes with their views and what they have."""
    from ..extract.scenes.listing import ls

    return ls(config, console)


@words_command(
    scenes, "check", CheckConfig, "strata scenes check scenes=data/wai/eth3d out=check.html fix=mended"
)
def scenes_check(config: CheckConfig, console: Console) -> int:
    """Report every fault of every scene at once, with its fix; write a page and corrected copies."""
    from ..extract.scenes.check import check

    return check(config, console)


@words_command(scenes, "convert", ConvertConfig, "strata scenes convert scenes=data/nerfstudio out=data/wai")
def scenes_convert(config: ConvertConfig, console: Console) -> int:
    """Write scenes of any source in the WAI layout. Run it again to resume."""
    from ..extract.scenes.convert import convert

    return convert(config, console)


@words_command(scenes, "synth", SynthConfig, "strata scenes synth out=scenes views=6")
def scenes_synth(config: SynthConfig, console: Console) -> int:
    """Write analytic rooms with exact geometry as WAI scenes."""
    from ..extract.scenes.synth_command import synth

    return synth(config, console)


@words_command(sets, "make", SetsConfig, "strata sets make scenes=scenes out=sets.json set_views=4")
def sets_make(config: SetsConfig, console: Console) -> int:
    """Sample view sets by a walk over covisible views."""
    from ..extract.sets_command import make

    return make(config, console)


@sets.command("ls")
def sets_ls(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="FILE", help="A file of `strata sets make`.")],
    verbose: Verbose = False,
) -> None:
    """List the sets of a file."""

    def body(console: Console) -> int:
        from ..extract.sets_command import ls

        return ls(path.removeprefix("sets="), console)

    leave(ctx, body, verbose)
