"""Encoders that a training left: a folder with `encoder.yaml` and `model.safetensors`.

`encoder.yaml` is a preset (see `presets.py`) that also has a name. Wherever an encoder is named, the folder
may be given instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import EncoderError
from ...store.atomic import whole_file, write_atomic
from .base import EncoderInfo
from .presets import Preset, parse_preset

if TYPE_CHECKING:
    from torch import Tensor

PRESET, WEIGHTS = "encoder.yaml", "model.safetensors"


def is_exported(name: str) -> bool:
    """Whether the name is that of such a folder."""
    return (Path(name).expanduser() / PRESET).is_file()


def check_folder(name: str) -> None:
    """Nothing, if this unknown name does not look like a path.

    Raises:
        EncoderError: it does.
    """
    path = Path(name).expanduser()
    if not path.is_dir() and len(path.parts) < 2:
        return
    inside = path / "encoder"
    raise EncoderError(
        f"{name} is not the folder of an encoder.",
        where="encoder",
        why=f"it has no {PRESET}" if path.is_dir() else "there is no such folder",
        fix=f"give encoder={inside}"
        if is_exported(str(inside))
        else "give the folder `encoder` that a training left, or hf:<folder> for a model of transformers",
    )


def load_exported(name: str) -> Preset:
    """What the folder says of its encoder.

    Raises:
        EncoderError: the file cannot be read, or says too little.
    """
    path = Path(name).expanduser() / PRESET
    try:
        return parse_preset(path.read_text(encoding="utf-8"))
    except Exception as error:  # of the file system, of YAML, or for a field that is missing or unknown
        raise EncoderError(
            f"{PRESET} does not say what the encoder is.",
            where=path,
            why=f"{type(error).__name__}: {error}",
            fix="copy the folder again, or run the training's command again: it exports the encoder anew",
        ) from error


def exported_weights(name: str, weights: str) -> str:
    """The folder's own weights for `hub`, else those that are asked for."""
    return str(Path(name).expanduser() / WEIGHTS) if weights == "hub" else weights


def export_encoder(preset: Preset, name: str, state: Mapping[str, Tensor], folder: Path) -> EncoderInfo:
    """Write an encoder under a new name, as a folder.

    Args:
        preset: of what the weights belong to.
        name: of the new encoder.
        state: all weights of its model.
        folder: an encoder that is there already is replaced.

    Returns:
        What the new encoder declares.

    Raises:
        StoreError: the place cannot be written, or the disk is full.
    """
    from safetensors.torch import save_file

    info = replace(preset.info, name=name)
    # The preset is written last: without it the folder is no encoder.
    (folder / PRESET).unlink(missing_ok=True)
    with whole_file(folder / WEIGHTS) as partial:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}, partial)
    write_atomic(folder / PRESET, _text(replace(preset, info=info)).encode())
    return info


def _text(preset: Preset) -> str:
    from omegaconf import OmegaConf

    declared = {
        name: list(value) if isinstance(value, tuple) else value
        for name, value in asdict(preset.info).items()
        if name != "needs"  # an encoder that can be trained looks at images alone
    }
    fields = {"family": preset.family, "model": preset.model, **declared}
    return OmegaConf.to_yaml(OmegaConf.create(fields))
