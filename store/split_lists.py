"""Splits: named lists of scene ids, and the files they lie in.

A file is `.json`, `.txt`, or an object `.npy` as datasets have it, which is read without trusting it.
"""

from __future__ import annotations

import ast
import io
import json
import pickle
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import SceneError, SelectionError, did_you_mean
from .atomic import write_atomic
from .record_fields import check_scene_id

SUFFIXES = (".json", ".txt", ".npy")


@dataclass(frozen=True, kw_only=True)
class Split:
    """A named list of scene ids."""

    name: str
    scenes: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        return {"format": "strata-split", "version": 1, "name": self.name, "scenes": list(self.scenes)}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Split:
        return cls(name=str(value["name"]), scenes=tuple(map(check_scene_id, value["scenes"])))


def split_scenes(split: str, splits: Mapping[str, Iterable[str]], where: object) -> set[str]:
    """Scene ids of a split.

    Args:
        split: `test/eth3d`, or `test` for the test splits of all datasets, or a .json or .txt file.
        splits: those that are known.
        where: what the error calls the place that knows them.

    Raises:
        SelectionError: there is no such split.
        SceneError: the file cannot be read.
    """
    if is_list_file(split):
        return set(read_names(Path(split)))
    found = [set(ids) for name, ids in splits.items() if name == split or name.startswith(f"{split}/")]
    if not found:
        raise SelectionError(
            f"there is no split {split!r}.",
            where=where,
            why="a split comes with the dataset's metadata, or is a .json or .txt file of scene ids",
            fix=did_you_mean(split, {*splits, *(name.partition("/")[0] for name in splits)}),
        )
    return set.union(*found)


def is_list_file(split: str) -> bool:
    """Whether the word for a split names a file."""
    return Path(split).suffix in (".json", ".txt")


def read_names(path: Path) -> list[str]:
    """The names in a list file.

    `.txt` has one a line (# begins a comment), `.json` is a list or an object with a list `scenes`,
    `.npy` a 1-D array of strings.

    Raises:
        SceneError: the file is unreadable, or holds anything but strings.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SceneError(
            f"the list of scenes cannot be read: {error.strerror}.",
            where=path,
            fix="name a file that is there",
        ) from None
    read = {".json": _from_json, ".txt": _from_text, ".npy": _from_npy}.get(path.suffix)
    try:
        if read is None:
            raise ValueError(f"it ends in {path.suffix or 'nothing'}, not in {', '.join(SUFFIXES)}")
        names = read(data)
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ValueError("it holds something else than a list of strings")
    except Exception as error:  # a hostile pickle can make the decoder raise anything
        raise SceneError(
            "the list of scenes cannot be read.",
            where=path,
            why=f"{error}" or type(error).__name__,
            fix="write it as .txt with one scene a line, or as a JSON list",
        ) from None
    return names


def write_names(names: list[str], split: str, dataset: str, root: Path) -> None:
    """The list of a split, where WAI looks for it: as JSON, and as .npy of fixed-length text."""
    stem = root / "metadata" / split / f"{dataset}_scene_list_{split}"
    array = io.BytesIO()
    np.save(array, np.array(names))
    write_atomic(stem.with_name(f"{stem.name}.json"), json.dumps(names).encode() + b"\n")
    write_atomic(stem.with_name(f"{stem.name}.npy"), array.getvalue())


def _from_json(data: bytes) -> Any:
    value = json.loads(data)
    return value.get("scenes") if isinstance(value, dict) else value


def _from_text(data: bytes) -> list[str]:
    lines = (line.partition("#")[0].strip() for line in data.decode().splitlines())
    return [line for line in lines if line]


def _from_npy(data: bytes) -> list[str]:
    if data[:8] != b"\x93NUMPY\x01\x00":
        raise ValueError("it is not a .npy file of version 1")
    end = 10 + struct.unpack_from("<H", data, 8)[0]
    header = ast.literal_eval(data[10:end].decode("latin-1"))
    if header["descr"] == "|O":
        return _Names(io.BytesIO(data[end:])).load().items
    if np.dtype(header["descr"]).kind != "U":
        raise ValueError(f"it is an array of {header['descr']}, not of strings")
    return np.frombuffer(data, header["descr"], offset=end).tolist()


class _Inert:
    """Stands for numpy's array and dtype while a pickle is read, and does nothing but keep the items."""

    def __init__(self, *_: object) -> None:
        self.items: Any = None

    def __setstate__(self, state: tuple) -> None:
        # An object array's state is (version, shape, dtype, order, items).
        self.items = state[-1]


class _Names(pickle._Unpickler):
    """Reads a pickled object array of strings; calls nothing but `_Inert`.

    It is the unpickler written in Python, whose memo is a dict: the C one allocates as much as a
    hostile file says.
    """

    allowed = frozenset(
        {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("numpy.core.multiarray", "_reconstruct"),
        }
    )

    def find_class(self, module: str, name: str) -> type[_Inert]:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it wants to load {module}.{name}; only strings are read")
        return _Inert

    def persistent_load(self, pid: object) -> object:
        raise pickle.UnpicklingError(f"it refers to {pid!r} outside of the file")
