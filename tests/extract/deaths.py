"""Extractions that are killed, and processes beside them; `test_extract_killed.py` runs this file as a script.

One process loads everything and forks those that are killed: each starts in a moment. A step is what a
process does to the disk: part of a file written, a file synced, renamed, removed, a folder made or synced.
Processes die before a step, or at once after it.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import random
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch
from rich.console import Console
from strata.configs.schema import ExtractConfig
from strata.errors import StoreError
from strata.extract.run import extract, open_plan
from strata.store import atomic
from strata.store.feature_store import FeatureStore
from strata.store.maintain.gc import remove
from strata.store.maintain.garbage import find_garbage

WORDS = {"layers": ["block0", "norm"], "grid": "aspect:6", "unit_views": 2, "batch": 2}


def _conftest() -> ModuleType:
    path = Path(__file__).resolve().parents[1] / "conftest.py"
    spec = importlib.util.spec_from_file_location("strata_tests_conftest", path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Steps:
    """Counts what the process does to the disk, and kills it at one of the steps."""

    def __init__(self, at: int | None = None, after: bool = False) -> None:
        self.count, self._at, self._after = 0, at, after
        self._lock = threading.Lock()
        self._real = {name: getattr(os, name) for name in ("replace", "fsync", "mkdir", "unlink")}

    def install(self) -> None:
        for name in self._real:
            setattr(os, name, self._stepping(name))
        atomic.write_part = self._writing

    def _stepping(self, name: str) -> Callable:
        def call(*args, **words):
            with self._step():
                # What the kernel has survives a kill, and disks are slow.
                return None if name == "fsync" else self._real[name](*args, **words)

        return call

    def _writing(self, file: io.BufferedWriter, part: bytes) -> None:
        for half in (part[: len(part) // 2], part[len(part) // 2 :]):
            with self._step():
                file.write(half)
                file.flush()

    def _step(self) -> Steps:
        return self

    def __enter__(self) -> None:
        self._lock.acquire()
        self.count += 1
        if self.count == self._at and not self._after:
            os.kill(os.getpid(), signal.SIGKILL)

    def __exit__(self, *_: object) -> None:
        if self.count == self._at:
            os.kill(os.getpid(), signal.SIGKILL)
        self._lock.release()
