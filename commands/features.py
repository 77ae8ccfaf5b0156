"""`strata encoders`, `strata extract` and `strata store`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..configs.schema import ExportConfig, ExtractConfig, ListConfig, PullConfig, PushConfig
from .command import AsJson, Preset, Verbose, Words, config_of, group, help_class, leave, words_command

if TYPE_CHECKING:
    from rich.console import Console

encoders, extract = group("List and measure models to extract with."), group("Plan and run extractions.")
store = group("Query, export, copy and check stores.")


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
    from ..extract.check_words import check_words

    check_words(config)  # before what is heavy is imported
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
    from ..extract.check_words import check_words

    check_words(config)  # before what is heavy is imported
    from ..extract.run import run

    return run(config, console)


StorePath = Annotated[
    str, typer.Argument(metavar="PATH", help="The store: a folder that ends in .zarr, or a URL.")
]
PathAndWords = Annotated[
    list[str], typer.Argument(metavar="PATH [NAME=VALUE...]", help="The store, a folder or a URL; words.")
]


@store.command("ls", cls=help_class(ListConfig, "strata store ls feats.zarr encoder=dinov2* layer=block5"))
def store_ls(
    ctx: typer.Context,
    path: StorePath,
    words: Words = None,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """List the features of a store."""

    def body(console: Console) -> int:
        from ..store.listing import ls

        config = config_of(ListConfig, words or [])
        return ls(path.removeprefix("store="), console, config, as_json=as_json)

    leave(ctx, body, verbose)


@store.command("info")
def store_info(ctx: typer.Context, path: StorePath, verbose: Verbose = False) -> None:
    """Show keys, layers, scenes, sizes and what is missing."""

    def body(console: Console) -> int:
        from ..store.listing import info

        return info(path.removeprefix("store="), console)

    leave(ctx, body, verbose)


@words_command(
    store,
    "export",
    ExportConfig,
    "strata store export store=feats.zarr encoder=dinov2_base layers=norm format=safetensors out=features",
)
def store_export(config: ExportConfig, console: Console) -> int:
    """Write features as files of other programs. Run it again to resume."""
    from ..extract.export.command import export

    return export(config, console)


@store.command(
    "pull",
    cls=help_class(
        PullConfig, "strata store pull s3://bucket/feats.zarr out=part.zarr layers=last scene=eth3d/*"
    ),
)
def store_pull(
    ctx: typer.Context, path: PathAndWords, preset: Preset = None, verbose: Verbose = False
) -> None:
    """Copy a part of a store into a folder, which is a store itself. Run it again to resume."""

    def body(console: Console) -> int:
        from ..store.remote.commands import pull

        return pull(path[0].removeprefix("store="), config_of(PullConfig, path[1:], preset), console)

    leave(ctx, body, verbose)


@store.command(
    "push", cls=help_class(PushConfig, "strata store push feats.zarr to=s3://bucket/feats.zarr layers=last")
)
def store_push(
    ctx: typer.Context, path: PathAndWords, preset: Preset = None, verbose: Verbose = False
) -> None:
    """Copy a part of a store to where others read it. Run it again to resume, or to bring what is new."""

    def body(console: Console) -> int:
        from ..store.remote.commands import push

        return push(path[0].removeprefix("store="), config_of(PushConfig, path[1:], preset), console)

    leave(ctx, body, verbose)


@store.command("contents")
def store_contents(ctx: typer.Context, path: StorePath, verbose: Verbose = False) -> None:
    """Write contents.json into a store that a web server is to show."""

    def body(console: Console) -> int:
        from ..store.remote.commands import write_contents

        return write_contents(path.removeprefix("store="), console)

    leave(ctx, body, verbose)
