"""`strata store pull`, `push` and `contents`: parts of stores between here and elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from ...errors import ConfigError, StoreError, did_you_mean, first_few
from ...progress import Progress
from ..atomic import write_atomic
from ..catalog import Catalog
from ..feature_store import FeatureStore
from . import contents
from .cache import BlockCache
from .path import Place, RemotePath, place_of, written
from .subset import VIEWS, Part, all_files, commit_order, part_files
from .transfer import copy_groups

if TYPE_CHECKING:
    from ...configs.schema import PartOptions, PullConfig, PushConfig

# What is copied is read once: keeping blocks of it would push out what is read often.
_NO_CACHE = BlockCache("", 0)


def pull(source: str, config: PullConfig, console: Console) -> int:
    """Copy a part of a store into a folder, which is a store itself. Run it again to resume."""
    _copy(place_of(source, cache=_NO_CACHE), written(config.out), _part(config), "pull", console)
    return 0


def push(source: str, config: PushConfig, console: Console) -> int:
    """Copy a part of a store to where others read it, with its contents. Run it again to resume."""
    target = place_of(config.to, cache=_NO_CACHE)
    _copy(written(source), target, _part(config), "push", console)
    return write_contents(config.to, console)


def write_contents(where: str, console: Console) -> int:
    """Write `contents.json` beside a store, which readers of a web server need."""
    store = FeatureStore.open(where, cache=_NO_CACHE)
    files = [path for path in all_files(store.root) if path != contents.NAME and not path.startswith("runs/")]
    sizes = {path: (store.root / path).stat().st_size for path in files}
    documents = {path: (store.root / path).read_bytes() for path in filter(contents.is_document, files)}
    data = contents.contents_bytes(sizes, documents)
    if isinstance(store.root, RemotePath):
        store.root.place.upload_bytes(data, contents.NAME)
    else:
        write_atomic(store.root / contents.NAME, data)
    console.print(f"{store.root / contents.NAME}: {len(files):,} files", highlight=False, soft_wrap=True)
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


def _copy(source: Place, target: Place, part: Part, title: str, console: Console) -> None:
    store = FeatureStore.open(source)
    if (target / "zarr.json").is_file():
        _check_versions(store, FeatureStore.open(target))
    elif isinstance(target, Path) and target.exists() and not target.is_dir():
        raise StoreError("the path is taken by something that is no store.", where=target, fix="name another")
    paths = part_files(store, part)
    with Progress(console, title, total=len(paths), unit="files") as progress:
        copied = copy_groups(source, target, commit_order(paths), progress)
    size = sum((source / path).stat().st_size for path in paths)
    console.print(
        f"{target}: {len(paths):,} files, {size / 1e6:,.1f} MB; {copied / 1e6:,.1f} MB of them copied now",
        highlight=False,
        soft_wrap=True,
    )


def _check_versions(source: FeatureStore, target: FeatureStore) -> None:
    if scenes := differing_versions(target.catalog, source.catalog):
        raise StoreError(
            f"both places have versions of {first_few(scenes)} that do not go together.",
            where=f"{source.root} and {target.root}",
            why="these scenes were packed anew, or mended, at one of them since",
            fix="copy into a new place",
        )


def _part(options: PartOptions) -> Part:
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
