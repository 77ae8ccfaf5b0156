"""`strata store pull`, `push` and `contents`: parts of stores between here and elsewhere."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ...errors import ConfigError, StoreError, counted, did_you_mean, first_few
from ...progress import Progress
from ..atomic import write_atomic
from ..catalog import Catalog
from ..feature_store import FeatureStore
from ..kept_lists import declare_lists
from . import contents
from .cache import BlockCache
from .part_files import PartFiles, all_files, commit_order, part_files
from .path import Place, RemotePath, place_of, written
from .subset import VIEWS, Part
from .transfer import copy_groups

if TYPE_CHECKING:
    from ...configs.schema import PartOptions, PullConfig, PushConfig

# What is copied is read once: keeping blocks of it would push out what is read often.
_NO_CACHE = BlockCache("", 0)


def pull(source: str, config: PullConfig, console: Console) -> int:
    """Copy a part of a store into a folder, which is a store itself. Run it again to resume.

    Returns:
        1 if something that was asked for was left out, else 0.
    """
    target = written(config.out)
    copied = _copy(place_of(source, cache=_NO_CACHE), target, part_of(config), "pull", console)
    declare_lists(target)  # its document came from the source, which knows nothing of lists that were here
    return 1 if copied.left_out else 0


def push(source: str, config: PushConfig, console: Console) -> int:
    """Copy a part of a store to where others read it, with its contents. Run it again to resume.

    Returns:
        1 if something that was asked for was left out, else 0.
    """
    _check_outlasts(config.to)
    return push_part(source, config.to, part_of(config), console)


def push_part(source: str, to: str, part: Part, console: Console) -> int:
    """`push` to any place, also one that ends with this process."""
    copied = _copy(written(source), place_of(to, cache=_NO_CACHE), part, "push", console)
    write_contents(to, console)
    return 1 if copied.left_out else 0


def write_contents(where: str, console: Console) -> int:
    """Write `contents.json` into a store, which readers of a web server need."""
    store = FeatureStore.open(where, cache=_NO_CACHE)
    files = [path for path in all_files(store.root) if path != contents.NAME and not path.startswith("runs/")]
    sizes = {path: (store.root / path).stat().st_size for path in files}
    documents = {path: (store.root / path).read_bytes() for path in filter(contents.is_document, files)}
    data = contents.contents_bytes(sizes, documents)
    if isinstance(store.root, RemotePath):
        store.root.place.upload_bytes(data, contents.NAME)
    else:
        write_atomic(store.root / contents.NAME, data)
    console.print(
        f"{store.root / contents.NAME}: {counted(len(files), 'file')}", highlight=False, soft_wrap=True
    )
    return 0


def differing_versions(mine: Catalog, theirs: Catalog) -> list[str]:
    """Scenes that two catalogs know under the same generation, but with other images or another geometry."""
    return sorted(
        scene
        for scene in mine.rows.keys() & theirs.rows.keys()
        if any(
            one.generation == other.generation
            and (one.digest, one.geometry) != (other.digest, other.geometry)
            for _, one in mine.rows[scene]
            for _, other in theirs.rows[scene]
        )
    )


def _copy(source: Place, target: Place, part: Part, title: str, console: Console) -> PartFiles:
    store = FeatureStore.open(source, whole_files=True)
    if (target / "zarr.json").is_file():
        _check_versions(store, FeatureStore.open(target))
    elif isinstance(target, Path) and target.exists() and not target.is_dir():
        raise StoreError("the path is taken by something that is no store.", where=target, fix="name another")
    files = part_files(store, part)

    def say(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    if files.beside:
        say(_along(files))
    with Progress(console, title, total=len(files.paths), unit="files") as progress:
        copied = copy_groups(source, target, commit_order(files.paths), progress)
    for one in files.left_out:
        say(str(one))
    say(f"{target}: {_counted(files)}; {copied / 1e6:,.1f} MB of them copied now")
    return files


def _along(files: PartFiles) -> str:
    """What comes with the scenes that were asked for, and why."""
    asked, more = counted(len(files.scenes), "scene"), f"{len(files.beside):,} more"
    return (
        f"with the {asked} asked for come {more}, which weigh about {files.beside_bytes / 1e6:,.1f} of "
        f"{files.bytes / 1e6:,.1f} MB: {first_few(files.beside)}; "
        "they lie in the same bundles, which are copied whole"
    )


def _counted(files: PartFiles) -> str:
    scenes = counted(len(files.scenes) + len(files.beside), "scene")
    keys, names = counted(files.keys, "key"), {one.key for one in files.left_out}
    out = f" ({counted(len(names), 'key')} left out, in whole or in part)" if names else ""
    return f"{keys}{out}, {scenes}, {counted(len(files.paths), 'file')}, {files.bytes / 1e6:,.1f} MB"


def _check_outlasts(to: str) -> None:
    """Raises ConfigError for a place that ends with this process."""
    if "memory" in re.split(r"://|::", to):
        raise ConfigError(
            "a store in the memory of this process can be read by nobody.",
            where=f"to={to}",
            why="it is gone as soon as the command ends",
            fix="give a URL that others reach, such as s3://bucket/feats.zarr, or a folder",
        )


def _check_versions(source: FeatureStore, target: FeatureStore) -> None:
    if scenes := differing_versions(target.catalog, source.catalog):
        raise StoreError(
            f"both places have versions of {first_few(scenes)} that do not go together.",
            where=f"{source.root} and {target.root}",
            why="these scenes were packed anew, or mended, at one of them since",
            fix="copy into a new place",
        )


def part_of(options: PartOptions) -> Part:
    """The part that the words of a command mean.

    Raises:
        ConfigError: a word is not known.
    """
    if options.views not in VIEWS:
        fix = did_you_mean(options.views, VIEWS)
        raise ConfigError(f"views={options.views} is not known.", where="views", fix=fix)
    return Part(
        encoder=None if options.encoder is None else tuple(options.encoder),
        layers=None if options.layers is None else tuple(options.layers),
        scene=options.scene,
        dataset=options.dataset,
        split=options.split,
        views=options.views,
    )
