"""The page of `strata scenes check`: one self-contained file with pictures."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path

from ...errors import counted
from ...pages import render
from ...store.atomic import write_atomic
from .check_report import Section

NAME = "check.html"


def write_page(sections: Sequence[Section], out: Path) -> Path:
    """Writes the page to `out`, a file that ends in .html or a folder.

    Returns:
        The page's path.

    Raises:
        StoreError: it cannot be written.
    """
    path = out if out.suffix == ".html" else out / NAME
    write_atomic(path, page(sections).encode())
    return path


def page(sections: Sequence[Section]) -> str:
    """HTML without scripts and without links that leave it."""
    return render(
        __package__ or "strata.extract.scenes",
        NAME,
        {"data_uri": _data_uri, "counted": counted},
        sections=sections,
        faults=sum(len(section.report.faults) for section in sections),
        broken=sum(bool(section.report.faults) for section in sections),
    )


def _data_uri(webp: bytes) -> str:
    return f"data:image/webp;base64,{base64.b64encode(webp).decode()}"
