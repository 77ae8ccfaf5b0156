"""Fixtures that tests of several packages share."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest
from rich.console import Console

# Read when torch is first imported, by whichever test does so: tests run beside other work.
os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared() -> Path:
    """`shared/` beside the checkout: golden data and real scenes."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(
            f"there is no {folder.name}/ beside the checkout, which holds golden data and real scenes"
        )
    return folder


@pytest.fixture(scope="session")
def real_scenes(shared: Path) -> Path:
    """A root of real WAI scenes; read-only."""
    folder = shared / "scenes"
    if not folder.is_dir():
        pytest.skip("shared/ holds no scenes/")
    return folder


@pytest.fixture
def console() -> Console:
    """A console that is no terminal; `console.file.getvalue()` is what was printed."""
    return Console(file=io.StringIO(), width=120, force_terminal=False)
