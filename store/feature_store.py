"""A store: opening it, on disk or elsewhere, what keys it has, and the way to a selection."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError, SelectionError, StoreError, counted, did_you_mean, first_few
from .arrays import group_document
from .atomic import is_partial, read_json, remove_abandoned
from .catalog import Catalog
from .checks import CHECKS
from .group import StoredGroup
from .inside import check_folders
from .key import FeatureKey, Preprocess, canonical_json
from .layout import pixels_folder, points_folder
from .remote.cache import BlockCache
from .remote.path import Place, RemotePath, place_of, written
from .schema import ViewSet
from .shard_io import OpenShards
from .split_lists import Split
from .stored_key import StoredKey, choose_key, read_key
from .version import check_version, root_document
from .view_sets import read_sets
from .writer import write_if_changed

if TYPE_CHECKING:
    from .selection import Selection


_LOG = logging.getLogger(__name__)


class FeatureStore:
    """A store of features, views and points.

    >>> store = FeatureStore.open("feats.zarr")
    >>> features = store.select(encoder="dinov2_base", layers=["block5"], scene="eth3d/*").load()

    Args:
        root: where the store is; use `open` or `create`.
        check: verify checksums `always`, at the `first` touch of a chunk, or `never`; what comes from
            elsewhere is verified always.

    Raises:
        ConfigError: the check is unknown.
    """

    def __init__(self, root: Place, check: str = "first") -> None:
        if check not in CHECKS:
            raise ConfigError(f"check={check} is not known.", where="check", fix=did_you_mean(check, CHECKS))
        self.root, self.check = root, check
        self._shards = OpenShards()
        self._groups: dict[Place, StoredGroup] = {}
        self._u8_logged: set[str] = set()

    @classmethod
    def open(
        cls,
        path: str | Place,
        check: str = "first",
        *,
        storage_options: Mapping[str, Any] | None = None,
        cache: BlockCache | None = None,
        whole_files: bool = False,
    ) -> FeatureStore:
        """An existing store.

        Args:
            path: its folder, or a URL that fsspec knows: `s3://bucket/feats.zarr`, `https://...`. A store
                elsewhere is seen as it was when it was opened.
            check: see the class.
            storage_options: for fsspec, such as `{"endpoint_url": ..., "anon": True}`.
            cache: keeps what was read from elsewhere; None = STRATA_CACHE, of STRATA_CACHE_BYTES.
            whole_files: parts of files will not be asked for, so that any web server will do.

        Raises:
            StoreError: there is none, it is of another version, or its web server has no byte ranges.
            RemoteError: the place cannot be reached, or refuses.
            ConfigError: the URL is of a kind that is not installed.
        """
        root = place_of(path, storage_options, cache)
        if not (root / "zarr.json").is_file():
            raise StoreError(
                "this is not a store.",
                where=root,
                why="a store is a folder with a zarr.json" if root.exists() else _nothing_at(root),
                fix="give the path that `strata extract run store=` wrote to",
            )
        check_version(root)
        if isinstance(root, RemotePath) and not whole_files:
            root.place.check_ranges()
        return cls(root, check)

    @classmethod
    def create(cls, path: str | Place) -> FeatureStore:
        """The store at `path`, made when it is not there.

        Raises:
            StoreError: the folder holds something else, a store of another version, or links that lead out.
        """
        root = written(path)
        if (root / "zarr.json").exists():
            check_folders(root)
            return cls.open(root)
        remove_abandoned(root)
        if root.exists() and (not root.is_dir() or any(not is_partial(path.name) for path in root.iterdir())):
            raise StoreError(
                "the path is taken by something that is no store.",
                where=root,
                fix="give store= a new path, such as feats.zarr",
            )
        write_if_changed(root / "zarr.json", root_document())
        return cls(root)

    def __repr__(self) -> str:
        names = first_few(key.name for key in self.keys())
        return f"FeatureStore({str(self.root)!r}, {counted(len(self.catalog.rows), 'scene')}, keys: {names})"

    def _repr_html_(self) -> str:
        from .notebook import store_html

        return store_html(self)

    @cached_property
    def catalog(self) -> Catalog:
        """The catalog as it was when first asked for; open the store again to see later changes."""
        return Catalog.read(self.root / "catalog")

    def group(self, folder: Place) -> StoredGroup:
        """The reader of a group, one for all who ask."""
        return self._groups.setdefault(folder, StoredGroup(folder, self.check, self._shards))

    def keys(self) -> list[StoredKey]:
        """All keys with at least one committed layer, in order of name and id.

        Raises:
            StoreError: a key's document is damaged.
        """
        found = [_key_of(path.parent) for path in self.root.glob("features/*/zarr.json")]
        return sorted((key for key in found if key and key.bundles), key=lambda key: key.name)

    def declare_key(self, key: FeatureKey, patch_size: int, depth: int) -> None:
        """Put the key's document in the store, and the documents of the folders above it."""
        root = written(self.root)
        for top in ("features", "pixels", "points"):
            write_if_changed(root / top / "zarr.json", group_document({}))
        attributes = {
            "feature_key": canonical_json(key.to_dict()),
            "patch_size": patch_size,
            "depth": depth,
        }
        write_if_changed(root / "features" / key.folder / "zarr.json", group_document(attributes))

    def declare_preprocess(self, preprocess: Preprocess, patch_size: int, stride: int | None = None) -> None:
        """Put the documents of a preprocessing's folders in the store."""
        root = written(self.root)
        attributes: dict[str, Any] = {"preprocess": canonical_json(preprocess.to_dict())}
        patches = {"patch_size": patch_size, **({"stride": stride} if stride else {})}
        points = points_folder(preprocess, patch_size, stride)
        pixels = pixels_folder(preprocess, patch_size, stride)
        of_points = {**attributes, **(patches if stride else {})}
        write_if_changed(root / points / "zarr.json", group_document(of_points))
        write_if_changed(root / pixels / "zarr.json", group_document({**attributes, **patches}))

    def select(self, encoder: str, **options: Any) -> Selection:
        """A lazy selection of one key's features; see `select.select`.

        What is read as u8 because nothing more exact is stored is logged once, so that nobody measures
        it unknowingly.
        """
        from .select import select

        selection = select(self, encoder, **options)
        if options.get("storage") is None:
            self._log_u8(selection)
        return selection

    def _log_u8(self, selection: Selection) -> None:
        layers = [layer for layer, storages in selection.storages.items() if "u8" in storages]
        name = selection.stored_key.name
        if layers and name not in self._u8_logged:
            self._u8_logged.add(name)
            _LOG.warning(
                "%s: stored in 8 bits alone, so read as u8: %s (1 - cos to the exact token is about 3e-5)",
                name,
                ", ".join(layers),
            )

    def stored_key(self, encoder: str, **fields: Any) -> StoredKey:
        """The one key of that encoder.

        Args:
            encoder: a name, or `name@` and the first digits of the key.
            fields: fields of the key that narrow it, such as `grid="aspect:24"`.

        Raises:
            ConfigError: a key has no such field.
            SelectionError: no key has that name, or several do.
            StoreMismatchError: keys have that name, but none has those fields.
        """
        return choose_key(self.keys(), self.root, encoder, fields)

    def set_names(self) -> list[str]:
        """Names of the view sets kept in the store, one for each choice of sampling options."""
        return sorted(path.stem for path in self.root.glob("sets/*.json"))

    def view_sets(self, name: str | None = None) -> list[ViewSet]:
        """The sets kept under a name, or those of the only name there is.

        Raises:
            SelectionError: there are none of that name, or several names and none was given.
        """
        names = self.set_names()
        if name is None and len(names) == 1:
            name = names[0]
        if name not in names:
            raise SelectionError(
                f"the store has no view sets {name}."
                if name
                else f"the store has {len(names)} choices of view sets.",
                where=self.root / "sets",
                why=f"it has {first_few(names) or 'none'}",
                fix="extract with these set_ options, or give sets=FILE, as `strata sets make` writes it",
            )
        return read_sets(self.root / "sets" / f"{name}.json")

    def splits(self) -> dict[str, Split]:
        """The splits kept in the store, by name.

        Raises:
            StoreError: one is damaged.
        """
        found = [read_split(path) for path in sorted(self.root.glob("splits/*.json"))]
        return {split.name: split for split in found}


def _key_of(folder: Place) -> StoredKey | None:
    """The key of a folder; None where `store gc` removed it after it was listed."""
    try:
        return read_key(folder)
    except (StoreError, FileNotFoundError):
        if (folder / "zarr.json").exists():
            raise
        return None


def read_split(path: Place) -> Split:
    """The split of a file.

    Raises:
        StoreError: it is damaged.
    """
    document = read_json(path)
    try:
        return Split.from_dict(document)
    except (KeyError, TypeError, StoreError) as error:
        text = error.what if isinstance(error, StoreError) else f"{type(error).__name__}: {error}"
        raise StoreError(
            "a split is damaged.", where=path, why=text, fix="remove it and run the extraction again"
        ) from None


def _nothing_at(root: Place) -> str:
    return "there is no such folder" if isinstance(root, Path) else "there is no such bucket or folder"
