"""`strata encoders`, `strata extract` and `strata store`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..configs.schema import ExtractConfig
from .command import AsJson, Verbose, group, leave, words_command

if TYPE_CHECKING:
    from rich.console import Console

encoders, extract = group("Models to extract with."), group("Features of scenes.")
store = group("What a store holds.")


@encoders.command("ls")
def encoders_ls(
    ctx: typer.Context,
    as_json: AsJson = False,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="Print the table in Markdown.")] = False,
    verbose: Verbose = False,
) -> None:
    """List the encoders with their size, licence and what a view of features weighs."""

    def body(console: Console) -> int:
        from ..extract.encoders.listing import ls

        return ls(console, as_json=as_json, as_markdown=as_markdown)

    leave(ctx, body, verbose)


@encoders.command("info")
def encoders_info(
    ctx: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="An encoder, also timm:... or hf:...")],
    as_json: AsJson = False,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="Load it, and measure max |x| and what 16 bits and compile change."),
    ] = False,
    weights: Annotated[str, typer.Option(help="With --measure: hub, random:<seed> or a path.")] = "hub",
    device: Annotated[str, typer.Option(help="With --measure: auto, cpu or cuda:<n>.")] = "auto",
    verbose: Verbose = False,
) -> None:
    """Show what an encoder declares, without its weights unless it is measured."""

    def body(console: Console) -> int:
        from ..extract.encoders.listing import info

        return info(
            name.removeprefix("encoder="),
            console,
            as_json=as_json,
            measured=measure,
            weights=weights.removeprefix("weights="),
            device=device.removeprefix("device="),
        )

    leave(ctx, body, verbose)


@words_command(
    extract,
    "plan",
    ExtractConfig,
    "strata extract plan shards=shards store=feats.zarr encoder=dinov2_base grid=[28,37]",
)
def extract_plan(config: ExtractConfig, console: Console) -> int:
    """Say what an extraction would compute and write, and whether it fits."""
    from ..extract.plan_command import plan

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
    from ..extract.run import run

    return run(config, console)


StorePath = Annotated[str, typer.Argument(metavar="PATH", help="The store, a folder that ends in .zarr.")]


@store.command("ls")
def store_ls(ctx: typer.Context, path: StorePath, verbose: Verbose = False) -> None:
    """List the features of a store."""

    def body(console: Console) -> int:
        from ..store.listing import ls

        return ls(path.removeprefix("store="), console)

    leave(ctx, body, verbose)


@store.command("info")
def store_info(ctx: typer.Context, path: StorePath, verbose: Verbose = False) -> None:
    """Show keys, layers, scenes, sizes and what is missing."""

    def body(console: Console) -> int:
        from ..store.listing import info

        return info(path.removeprefix("store="), console)

    leave(ctx, body, verbose)
