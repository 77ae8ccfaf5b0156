"""Kernels in Triton's interpreter, for tests.

Triton decides when it is imported whether kernels are compiled or interpreted. Tests of kernels on a
CPU therefore live in files that are not collected by name, and run in a process of their own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.fixture
def run_interpreted(root: Path) -> Callable[[str], None]:
    """Runs all tests of `tests/kernels/<name>` under TRITON_INTERPRET=1 and fails as they do."""
    pytest.importorskip("triton")

    def run(name: str) -> None:
        file = root / "tests" / "kernels" / name
        # Without conftest: what other tests share need not be imported.
        command = [sys.executable, "-m", "pytest", "--noconftest", "-p", "no:cacheprovider", str(file)]
        ended = subprocess.run(
            command,
            cwd=root,
            env={**os.environ, "TRITON_INTERPRET": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert ended.returncode == 0, ended.stdout

    return run
