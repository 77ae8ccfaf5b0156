"""What all commands share: words become a config, errors become a message and an exit code.

Exit codes: 0 done, 1 done in part, 2 the input or the options are wrong, 3 a fault of the program,
130 stopped by Ctrl-C.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperCommand

from ..errors import StrataError

if TYPE_CHECKING:
    from rich.console import Console

Config = TypeVar("Config")
Body = Callable[[Config, "Console"], int]

VERBOSE = "strata.verbose"
# A pipe has no width; 80 columns would cut scene names that a script is to read.
PIPE_WIDTH = 200

Words = Annotated[list[str] | None, typer.Argument(metavar="NAME=VALUE...", help="The words above.")]
Preset = Annotated[
    Path | None,
    typer.Option(
        help="YAML file with values by name, a dataset (eth3d) or a training (train_vggt); words override it."
    ),
]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Show tracebacks.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]


def group(about: str) -> typer.Typer:
    """An empty group of commands."""
    return typer.Typer(help=about, no_args_is_help=True, rich_markup_mode=None)


def words_command(
    app: typer.Typer, name: str, schema: type[Config], example: str, *, echo: bool = False
) -> Callable[[Body[Config]], Body[Config]]:
    """Register `body(config, console)` as a command whose words fill `schema`.

    Args:
        app: the command group it belongs to.
        name: its word.
        schema: a dataclass of `configs/schema/`.
        example: a whole command, for `--help`.
        echo: print the resolved config first, for commands that take long.
    """

    def register(body: Body[Config]) -> Body[Config]:
        @app.command(name, cls=help_class(schema, example), help=body.__doc__)
        def command(
            ctx: typer.Context, words: Words = None, preset: Preset = None, verbose: Verbose = False
        ) -> None:
            def parsed(console: Console) -> int:
                config = config_of(schema, words or [], preset)
                if echo:
                    _echo(config, console)
                return body(config, console)

            leave(ctx, parsed, verbose)

        return body

    return register


def config_of(schema: type[Config], words: list[str], preset: Path | None = None) -> Config:
    """`configs.load.load`, imported when the first command runs."""
    from ..configs.load import load

    return load(schema, words, preset)


def help_class(schema: type, example: str) -> type[TyperCommand]:
    """A command class whose `--help` also lists the options of `schema` and an example."""

    class WordsCommand(TyperCommand):
        def format_options(self, ctx: Any, formatter: Any) -> None:
            from ..configs.load import describe

            rows = [
                (name, f"{doc}  [{kind}, {f'default {default}' if default else 'required'}]")
                for name, kind, default, doc in sorted(describe(schema), key=lambda row: row[2] != "")
            ]
            with formatter.section("Words (name=value)"):
                formatter.write_dl(rows)
            with formatter.section("Example"):
                formatter.write(f"  {example}\n")
            super().format_options(ctx, formatter)

    return WordsCommand


def leave(ctx: typer.Context, body: Callable[[Console], int], verbose: bool) -> NoReturn:
    """Run a command's body and leave with its exit code."""
    from rich.console import Console

    console = Console(width=None if sys.stdout.isatty() else PIPE_WIDTH)
    raise typer.Exit(guarded(lambda: body(console), verbose or ctx.meta.get(VERBOSE, False)))


def guarded(body: Callable[[], int], verbose: bool) -> int:
    """The exit code of `body`; what it raises is told on stderr."""
    try:
        code = body()
        sys.stdout.flush()
        return code
    except StrataError as error:
        return _told(f"{type(error).__name__}: {error}", 2, verbose)
    except KeyboardInterrupt:
        return _told("Stopped. The same command continues where this one was.", 130, verbose=False)
    except BrokenPipeError:
        # The reader has left, as `head` does; Python would complain again when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if (refusal := _refusal(error)) is not None:
            return _told(f"{type(refusal).__name__}: {refusal}", 2, verbose)
        hint = "" if verbose else "\n  fix     run it again with -v to see where; this is a fault of strata"
        return _told(f"unexpected {type(error).__name__}: {error}{hint}", 3, verbose)


def _refusal(error: Exception) -> StrataError | None:
    """The error of ours for a disk that is full or may not be used; None for any other fault."""
    from ..store.disk_faults import refusal

    return refusal(error) if isinstance(error, OSError) else None


def _told(message: str, code: int, verbose: bool) -> int:
    if verbose:
        traceback.print_exc()
    print(message, file=sys.stderr)
    return code


def _echo(config: Any, console: Console) -> None:
    from ..configs.load import words_of

    console.print(shlex.join(words_of(config)), style="dim", markup=False, highlight=False)
