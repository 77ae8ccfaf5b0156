"""Removing what is not as it was written, so that the next extraction writes just that anew."""

from __future__ import annotations

import os
from pathlib import Path

from ..atomic import fsync_folder
from ..disk_faults import disk_faults
from ..documents import write_document
from ..inside import check_folders
from ..kept_lists import LISTS, kept_lists
from ..version import root_document
from .report import Fault, Report


def repair(report: Report) -> list[Fault]:
    """Remove the files that faults name; returns the faults that only a person can judge.

    A group is made invisible before a file of it is removed, so readers see whole layers or none. The
    store's own document says nothing that is not known, and is written at once: it then names the splits and
    the view sets that are left.

    Raises:
        StoreError: a file cannot be removed, or a link leads out of the store.
    """
    check_folders(report.root)
    left, root_differs = [], False
    with disk_faults(report.root):
        for fault in report.faults:
            root_differs |= fault.path == "zarr.json" or fault.path.partition("/")[0] in LISTS
            if fault.path == "zarr.json":
                continue
            if fault.drop:
                _drop([report.root / path for path in fault.drop])
            elif fault.kind != "missing":
                left.append(fault)
        if root_differs:
            write_document(report.root / "zarr.json", root_document(kept_lists(report.root)))
    return left


def _drop(paths: list[Path]) -> None:
    for path in paths:
        if os.path.lexists(path):
            path.unlink()
            fsync_folder(path.parent)
