"""`strata store verify`, `gc` and `migrate`: what keeps a store healthy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ..configs.schema import VerifyConfig
from .command import AsJson, Verbose, Words, config_of, help_class, leave

if TYPE_CHECKING:
    from rich.console import Console

VERIFY = "strata store verify feats.zarr --recompute 8 shards=shards"

StoreFolder = Annotated[
    str, typer.Argument(metavar="PATH", help="The store: a folder that ends in .zarr, on this machine.")
]

upkeep = typer.Typer()


@upkeep.command("verify", cls=help_class(VerifyConfig, VERIFY))
def store_verify(
    ctx: typer.Context,
    path: StoreFolder,
    words: Words = None,
    recompute: Annotated[
        int, typer.Option(min=0, metavar="N", help="Make N views of each key again and compare.")
    ] = 0,
    repair: Annotated[
        bool, typer.Option("--repair", help="Drop what is bad, so that extracting again writes it anew.")
    ] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """Read every byte of a store and name what is not as it was written. Exits with 1 on a fault."""

    def body(console: Console) -> int:
        from ..extract.verify_command import run

        config = config_of(VerifyConfig, words or [])
        store = _folder(path, "verify")
        return run(store, config, console, recompute=recompute, repair=repair, as_json=as_json)

    leave(ctx, body, verbose)


@upkeep.command("gc")
def store_gc(
    ctx: typer.Context,
    path: StoreFolder,
    older_than: Annotated[
        str, typer.Option(metavar="AGE", help="Leave what changed since: 7d, 12h, 30m.")
    ] = "7d",
    yes: Annotated[bool, typer.Option("--yes", help="Remove it; without, it is only listed.")] = False,
    as_json: AsJson = False,
    verbose: Verbose = False,
) -> None:
    """List what nobody needs: temporary files, unfinished layers, old versions, unused views."""

    def body(console: Console) -> int:
        from ..store.maintain.gc import gc

        store = _folder(path, "gc")
        return gc(store, console, older_than=older_than, delete=yes, as_json=as_json)

    leave(ctx, body, verbose)


@upkeep.command("migrate")
def store_migrate(ctx: typer.Context, path: StoreFolder, verbose: Verbose = False) -> None:
    """Turn a store of an older version into one of this version, in place. Run it again to resume."""

    def body(console: Console) -> int:
        from ..store.maintain.migrate import migrate

        return migrate(_folder(path, "migrate"), console)

    leave(ctx, body, verbose)


def _folder(path: str, verb: str) -> str:
    from ..store.remote.path import local_folder

    return local_folder(path.removeprefix("store="), verb)
