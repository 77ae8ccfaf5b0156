"""The command `strata`: it parses and calls. Every body imports what it needs, so that help is quick."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from . import __version__
from .cli_command import VERBOSE, Preset, Verbose, config_of, help_class, leave, words_command
from .configs.schema import (
    CheckConfig,
    ConvertConfig,
    CorrespondenceConfig,
    DemoConfig,
    ExtractConfig,
    PackConfig,
    ReportConfig,
    ScenesConfig,
    SetsConfig,
    SubmitConfig,
    SynthConfig,
)

if TYPE_CHECKING:
    from rich.console import Console

SUBMIT = "strata submit address=http://head:8265 -- extract run shards=/data/shards ... backend=ray"


def _group(about: str) -> typer.Typer:
    return typer.Typer(help=about, no_args_is_help=True, rich_markup_mode=None)


app = typer.Typer(
    help="Extract multi-layer features of vision backbones from multi-view scenes once; probe them often.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
scenes, sets, extract = _group("Scenes on disk."), _group("View sets."), _group("Features of scenes.")
store, probe = _group("What a store holds."), _group("Measurements on stored features.")
encoders = _group("Models to extract with.")
for name, group in {
    "scenes": scenes,
    "sets": sets,
    "encoders": encoders,
    "extract": extract,
    "store": store,
    "probe": probe,
}.items():
    app.add_typer(group, name=name)


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


@words_command(scenes, "ls", ScenesConfig, "strata scenes ls scenes=data/wai")
def scenes_ls(config: ScenesConfig, console: Console) -> int:
    """List scenes with their views and what they have."""
    from .extract.scenes.listing import ls

    return ls(config, console)


@words_command(
    scenes, "check", CheckConfig, "strata scenes check scenes=data/wai/eth3d out=check.html fix=mended"
)
def scenes_check(config: CheckConfig, console: Console) -> int:
    """Report every fault of every scene at once, with its fix; write a page and corrected copies."""
    from .extract.scenes.check import check

    return check(config, console)


@words_command(scenes, "convert", ConvertConfig, "strata scenes convert scenes=data/nerfstudio out=data/wai")
def scenes_convert(config: ConvertConfig, console: Console) -> int:
    """Write scenes of any source in the WAI layout. Run it again to resume."""
    from .extract.scenes.convert import convert

    return convert(config, console)


@words_command(scenes, "synth", SynthConfig, "strata scenes synth out=scenes views=6")
def scenes_synth(config: SynthConfig, console: Console) -> int:
    """Write analytic rooms with exact geometry as WAI scenes."""
    from .extract.scenes.synth_command import synth

    return synth(config, console)


@words_command(sets, "make", SetsConfig, "strata sets make scenes=scenes out=sets.json set_views=4")
def sets_make(config: SetsConfig, console: Console) -> int:
    """Sample view sets by a walk over covisible views."""
    from .extract.sets_command import make

    return make(config, console)


@sets.command("ls")
def sets_ls(
    ctx: typer.Context,
    path: Annotated[str, typer.Argument(metavar="FILE", help="A file of `strata sets make`.")],
    verbose: Verbose = False,
) -> None:
    """List the sets of a file."""

    def body(console: Console) -> int:
        from .extract.sets_command import ls

        return ls(path.removeprefix("sets="), console)

    leave(ctx, body, verbose)


@words_command(app, "pack", PackConfig, "strata pack scenes=scenes out=shards", echo=True)
def pack(config: PackConfig, console: Console) -> int:
    """Pack scenes into WebDataset shards."""
    from .extract.pack import pack

    return pack(config, console)


AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


@encoders.command("ls")
def encoders_ls(
    ctx: typer.Context,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
    verbose: Verbose = False,
) -> None:
    """List the encoders with their size, licence and what a view of features weighs."""

    def body(console: Console) -> int:
        from .extract.encoders.listing import ls

        return ls(console, as_json=as_json, as_markdown=as_markdown)

    leave(ctx, body, verbose)


@encoders.command("info")
def encoders_info(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="An encoder, also timm:... or hf:...")],
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Show what an encoder declares, without its weights."""

    def body(console: Console) -> int:
        from .extract.encoders.listing import info

        return info(name.removeprefix("encoder="), console, as_json=as_json)

    leave(ctx, body, verbose)


@words_command(
    extract,
    "plan",
    ExtractConfig,
    "strata extract plan shards=shards store=feats.zarr encoder=dinov2_base grid=[28,37]",
)
def extract_plan(config: ExtractConfig, console: Console) -> int:
    """Say what an extraction would compute and write, and whether it fits."""
    from .extract.plan_command import plan

    return plan(config, console)


@words_command(
    extract,
    "run",
    ExtractConfig,
    "strata extract run shards=shards store=feats.zarr encoder=dinov2_base layers=1/2,last",
    echo=True,
)
def extract_run(config: ExtractConfig, console: Console) -> int:
    """Extract features of several layers into the store. Run it again to resume."""
    from .extract.run import run

    return run(config, console)


StorePath = Annotated[str, typer.Argument(metavar="PATH", help="The store, a folder that ends in .zarr.")]


@store.command("ls")
def store_ls(ctx: typer.Context, path: StorePath, verbose: Verbose = False) -> None:
    """List the features of a store."""

    def body(console: Console) -> int:
        from .store.listing import ls

        return ls(path.removeprefix("store="), console)

    leave(ctx, body, verbose)


@store.command("info")
def store_info(ctx: typer.Context, path: StorePath, verbose: Verbose = False) -> None:
    """Show keys, layers, scenes, sizes and what is missing."""

    def body(console: Console) -> int:
        from .store.listing import info

        return info(path.removeprefix("store="), console)

    leave(ctx, body, verbose)


@words_command(
    probe, "correspondence", CorrespondenceConfig, "strata probe correspondence store=feats.zarr", echo=True
)
def probe_correspondence(config: CorrespondenceConfig, console: Console) -> int:
    """Score multiview correspondence of stored features."""
    from .probes.correspondence import run

    return run(config, console)


@app.command("report", cls=help_class(ReportConfig, "strata report runs/correspondence out=report"))
def report(
    ctx: typer.Context,
    words: Annotated[
        list[str], typer.Argument(metavar="DIR... [NAME=VALUE...]", help="Folders of probe results; words.")
    ],
    preset: Preset = None,
    verbose: Verbose = False,
) -> None:
    """Turn the results of probes into one page and tables."""

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
