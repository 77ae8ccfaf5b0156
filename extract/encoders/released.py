"""Weights that their authors released as a file of their own: from torch's cache, else one download."""

from __future__ import annotations

import urllib.request
from pathlib import Path, PurePosixPath
from urllib.parse import urlparse

from ...errors import EncoderError
from ...store.atomic import write_atomic

TIMEOUT_S = 10
_CHUNK_BYTES = 1 << 20


def released_file(url: str) -> Path:
    """The local copy of a released file, in torch's cache of checkpoints; downloaded if it is not there.

    Raises:
        EncoderError: it is not there and cannot be downloaded.
    """
    import torch

    name = PurePosixPath(urlparse(url).path).name
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        try:
            _download(url, path)
        except OSError as error:
            raise EncoderError(
                f"{name} could not be downloaded.",
                where=url,
                why=f"{type(error).__name__}: {error}",
                fix=f"where there is a network, run\n  curl -LO {url}\n"
                f"copy {name} here and give weights={name}, or copy it to {path};\n"
                "weights=random:0 needs no download",
            ) from error
    return path


def _download(url: str, path: Path) -> None:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
        write_atomic(path, iter(lambda: answer.read(_CHUNK_BYTES), b""))
