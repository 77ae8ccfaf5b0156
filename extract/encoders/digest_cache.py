"""Digests of weights that came from a file, remembered between runs: hashing gigabytes takes seconds.

A digest is that of the state a model was filled with. It is remembered under everything that decides it:
the file by path, size and time of its last change, the names and shapes of the model's tensors, what the
adapter says beside them, and the versions of the code that turns the one into the other.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from torch import Tensor

from ...errors import StrataError
from ...store.atomic import write_atomic
from ...store.key import digest
from ..stage import code_digest

_LIBRARIES = ("torch", "timm", "transformers")
_SMALL = 4096
WORTH_BYTES = 64_000_000
"""Smaller files are hashed each time, in less than a tenth of a second."""


def cached_digest(file: Path, state: Mapping[str, Tensor], compute: Callable[[], str]) -> str:
    """The digest of a state that was filled from a file, computed unless it is remembered.

    What cannot be written is not remembered; a damaged note is written anew.
    """
    if file.stat().st_size < WORTH_BYTES:
        return compute()
    note = _folder() / f"{_identity(file, state)}.json"
    try:
        remembered = json.loads(note.read_text(encoding="utf-8"))
        if isinstance(remembered, str) and len(remembered) == 64:
            return remembered
    except (OSError, ValueError):  # not there, or damaged
        pass
    found = compute()
    with suppress(StrataError):
        write_atomic(note, json.dumps(found).encode())
    return found


def _identity(file: Path, state: Mapping[str, Tensor]) -> str:
    stat = file.stat()
    tensors = [[name, str(t.dtype), list(t.shape), _value(t)] for name, t in sorted(state.items())]
    versions = [code_digest(), *(_version(name) for name in _LIBRARIES)]
    return digest([str(file.resolve()), stat.st_size, stat.st_mtime_ns, tensors, versions])


def _value(tensor: Tensor) -> list | None:
    """Of small tensors of whole numbers: settings that an adapter adds, which no file decides."""
    settings = not tensor.is_floating_point() and tensor.numel() <= _SMALL
    return tensor.flatten().tolist() if settings else None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _folder() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "strata" / "digests"
