"""Nothing is written beside a store: not behind a link that came with it, not where its disk was mounted."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import StoreError

PARTS = ("features", "pixels", "points")
FOLDERS = (*PARTS, "catalog", "splits", "sets", "runs")


def check_there(root: Path) -> None:
    """A store that is being written to is still where it was.

    Without this, the folders of a store whose disk was unmounted would be made anew on the disk below.

    Raises:
        StoreError: it is not.
    """
    if not (root / "zarr.json").exists():
        raise StoreError(
            "the store is not there any more.",
            where=root,
            why="its disk was unmounted, or it was moved or removed, while it was written to",
            fix="bring it back and run the same command again; it continues",
        )


def check_inside(root: Path, folder: Path) -> None:
    """What is written into `folder` stays in the store.

    Raises:
        StoreError: a symbolic link leads out of it.
    """
    home, real = os.path.realpath(root), os.path.realpath(folder)
    if real != home and not real.startswith(home + os.sep):
        raise StoreError(
            "a folder of the store leads out of it.",
            where=folder,
            why=f"behind a symbolic link it is {real}, and nothing is written outside a store",
            fix="remove the link; where a store is to lie on several disks, join them below the file system",
        )


def check_folders(root: Path) -> None:
    """`check_inside` of the store's own folders and of those in them that are made before the first shard.

    Raises:
        StoreError: a symbolic link leads out of the store.
    """
    for name in FOLDERS:
        check_inside(root, root / name)
    for part in PARTS:
        for folder in (root / part).glob("*@*"):
            check_inside(root, folder)
