"""Weights: what they are called on the command line, how they are read, and their digest."""

from __future__ import annotations

import hashlib
import pickle
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import EncoderError, first_few
from ...store.key import canonical_json

_NESTED = ("state_dict", "model")
_OTHER_WEIGHTS = "give the checkpoint of this very architecture, or the encoder that it belongs to"


def random_seed(weights: str) -> int | None:
    """The seed of `random:<seed>`; None for any other source of weights.

    Raises:
        EncoderError: it begins with `random` but has no seed.
    """
    match = re.fullmatch(r"random:(0|[1-9][0-9]{0,8})", weights)
    if match:
        return int(match[1])
    if weights.partition(":")[0] == "random" and not Path(weights).exists():
        raise EncoderError(
            f"weights={weights} has no seed.",
            where="weights",
            why="random weights are named by their seed, so that they can be made again",
            fix="write weights=random:0",
        )
    return None


def state_digest(state: Mapping[str, Tensor]) -> str:
    """sha256 over the tensors in name order, 64 hex digits.

    Each tensor adds the canonical JSON of [name, dtype, shape] and its bytes (row-major, little-endian),
    so the digest does not depend on the device, on strides or on the order of the mapping.
    """
    sha = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        sha.update(canonical_json([name, dtype, list(tensor.shape)]).encode())
        # As bytes, because NumPy has no bfloat16.
        sha.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha.hexdigest()


def load_state(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file or of a torch checkpoint, by name, on the CPU.

    A state dict under the key `state_dict` or `model` of a checkpoint is found. Nothing but tensors
    and plain containers is ever unpickled.

    Raises:
        EncoderError: there is no such file, it cannot be read, or it holds no state dict.
    """
    path = Path(path)
    if not path.is_file():
        raise EncoderError(
            f"weights={path} is not there.",
            where=path,
            why="hub, random:<seed> or the path of a .safetensors or torch checkpoint is expected",
            fix="check the path; weights=random:0 needs no file",
        )
    state = _unnested(_read(path))
    if not state or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise EncoderError(
            "the checkpoint holds no state dict.",
            where=path,
            why=f"a mapping of names to tensors is expected, at its top or under {' or '.join(_NESTED)}",
            fix="save model.state_dict() alone, best as .safetensors",
        )
    return state


def check_state(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], where: object, *, fix: str = _OTHER_WEIGHTS
) -> None:
    """Nothing, if the state has exactly the expected names and shapes.

    Raises:
        EncoderError: it does not; the message lists the first few differences.
    """
    shapes = [
        f"{name} {list(state[name].shape)} instead of {list(tensor.shape)}"
        for name, tensor in expected.items()
        if name in state and state[name].shape != tensor.shape
    ]
    faults = (
        _listed("missing", [name for name in expected if name not in state]),
        _listed("unexpected", [name for name in state if name not in expected]),
        _listed("of another shape", shapes),
    )
    why = "\n".join(fault for fault in faults if fault)
    if why:
        raise EncoderError(
            "the weights do not fit the model.",
            where=where,
            why=why,
            fix=fix,
        )


def _read(path: Path) -> Any:
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError) as error:
        raise EncoderError(
            "the checkpoint is damaged, or holds more than tensors.",
            where=path,
            why=str(error).partition("\n")[0],
            fix="copy the file again; if it is whole, save model.state_dict() alone, best as .safetensors",
        ) from error
    except Exception as error:  # safetensors raises a type of its own, torch RuntimeError and others
        raise EncoderError(
            "the checkpoint cannot be read.",
            where=path,
            why=str(error),
            fix="copy or download the file again",
        ) from error


def _unnested(loaded: Any) -> dict[str, Any]:
    if not isinstance(loaded, dict):
        return {}
    inner = next((loaded[key] for key in _NESTED if isinstance(loaded.get(key), dict)), None)
    return loaded if inner is None else _unnested(inner)


def _listed(kind: str, names: Iterable[str]) -> str:
    names = list(names)
    return f"{len(names)} {kind}: {first_few(names)}" if names else ""
