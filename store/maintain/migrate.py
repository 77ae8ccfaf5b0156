"""`strata store migrate`: a store of an older version becomes one of this version, in place.

A step turns one version into the next. It replaces files one by one, each whole, and can be done again over
what it did; the version in the store's own `zarr.json` is raised when all is done. So a migration that was
stopped is continued by the same command, and until then no reader takes the store for one of either version.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console

from ...errors import StoreError
from ...progress import Progress
from ..atomic import json_text, read_json, write_atomic
from ..disk_faults import disk_faults
from ..documents import stamped, write_document
from ..feature_store import FeatureStore
from ..inside import check_folders
from ..kept_lists import kept_lists
from ..schema import VERSION
from ..version import check_version, root_document, stored_version
from ..view_sets import sets_text

Step = Callable[[Path, Progress], None]


def migrate(path: str, console: Console) -> int:
    """The command.

    Raises:
        StoreError: this is no store, or one of a newer version.
    """
    root = Path(path)
    if not (root / "zarr.json").is_file():
        FeatureStore.open(root)
    found = stored_version(root)
    if found == VERSION:
        console.print(f"the store is of version {VERSION} already", highlight=False)
        return 0
    if not isinstance(found, int) or found not in STEPS:
        check_version(root)
        raise AssertionError("another version is refused")
    check_folders(root)
    with disk_faults(root):
        for version in range(found, VERSION):
            documents = _documents(root)
            title = f"version {version} to {version + 1}"
            with Progress(console, title, len(documents), unit="documents") as progress:
                STEPS[version](root, progress)
        write_document(root / "zarr.json", root_document(kept_lists(root)))
    console.print(f"the store is of version {VERSION} now", highlight=False)
    return 0


def _checksums(root: Path, progress: Progress) -> None:
    """0 to 1: documents carry checksums."""
    for path in _documents(root):
        text: Callable[[Any], str] = sets_text if path.parent == root / "sets" else json_text
        document = read_json(path)
        if not isinstance(document, dict):
            raise StoreError("a document of the store is damaged.", where=path, fix="restore the file")
        after = text(stamped(document)).encode()
        if path.read_bytes() != after:
            write_atomic(path, after)
        progress.advance()


def _documents(root: Path) -> list[Path]:
    """Every document but the store's own and the records of runs."""
    names = [*root.glob("catalog/*.json"), *root.glob("splits/*.json"), *root.glob("sets/*.json")]
    arrays = [path for path in root.rglob("zarr.json") if path.parent != root]
    return sorted(path for path in {*names, *arrays} if path.is_file() and not path.is_symlink())


STEPS: dict[int, Step] = {0: _checksums}
