"""The command `strata`: it parses and calls. Every body imports what it needs, so that help is quick.

Groups of commands are in `commands/`; here are the commands of one word.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from . import __version__
from .commands.command import VERBOSE, AsJson, Preset, Verbose, config_of, help_class, leave, words_command
from .commands.features import encoders, extract, store
from .commands.models import probe, train
from .commands.scenes import scenes, sets
from .commands.upkeep import upkeep
from .configs.schema import DemoConfig, PackConfig, ReconstructConfig, ReportConfig, SubmitConfig

if TYPE_CHECKING:
    from rich.console import Console

SUBMIT = "strata submit address=http://head:8265 -- extract run shards=/data/shards ... backend=ray"

app = typer.Typer(
    help="Extract multi-layer features of vision backbones from multi-view scenes once; probe them often.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for name, group in {
    "scenes": scenes,
    "sets": sets,
    "encoders": encoders,
    "extract": extract,
    "store": store,
    "probe": probe,
    "train": train,
}.items():
    app.add_typer(group, name=name)
store.add_typer(upkeep)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"strata {__version__}")
        raise typer.Exit


@app.callback()
def _globals(
    ctx: typer.Context,
    verbose: Verbose = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    ctx.meta[VERBOSE] = verbose


@words_command(app, "pack", PackConfig, "strata pack scenes=scenes out=shards", echo=True)
def pack(config: PackConfig, console: Console) -> int:
    """Pack scenes into WebDataset shards."""
    from .extract.pack import pack

    return pack(config, console)


@words_command(
    app,
    "reconstruct",
    ReconstructConfig,
    "strata reconstruct images=photos out=reconstruction",
    echo=True,
)
def reconstruct(config: ReconstructConfig, console: Console) -> int:
    """Cameras, depth and points of scenes from one forward pass, with a viewer. Run it again to resume."""
    from .probes.reconstruction.command import reconstruct

    return reconstruct(config, console)


@app.command("report", cls=help_class(ReportConfig, "strata report runs/correspondence out=report"))
def report(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="DIR... [NAME=VALUE...]", help="Folders of probe results and of training runs; words."
        ),
    ],
    preset: Preset = None,
    verbose: Verbose = False,
) -> None:
    """Turn the results of probes and the curves of trainings into one page and tables."""

    def body(console: Console) -> int:
        from .probes.report import report

        dirs = [word for word in words if "=" not in word]
        return report(dirs, config_of(ReportConfig, [w for w in words if "=" in w], preset), console)

    leave(ctx, body, verbose)


@app.command("submit", cls=help_class(SubmitConfig, SUBMIT))
def submit(
    ctx: typer.Context,
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="[address=...] -- COMMAND...",
            help="A command without the word strata; or status [ID], logs ID, stop ID.",
        ),
    ],
    verbose: Verbose = False,
) -> None:
    """Run a command as a job on a Ray cluster, with this code; ask how it is, or stop it."""

    def body(console: Console) -> int:
        from .extract.submit import submit

        return submit(words, console)

    leave(ctx, body, verbose)


@app.command("doctor")
def doctor(
    ctx: typer.Context,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Check this machine: what works, what falls back, how to fix it."""

    def body(console: Console) -> int:
        from .doctor import doctor

        return doctor(console, as_json)

    leave(ctx, body, verbose)


@words_command(app, "demo", DemoConfig, "strata demo out=demo")
def demo(config: DemoConfig, console: Console) -> int:
    """Run the whole pipeline on synthetic rooms, in under two minutes."""
    from .demo import demo

    return demo(config, console)
