"""Weights of a VGGT: read from the hub, a folder or a file, checked name by name, and written.

A folder is `model.safetensors` and `config.json`; a single safetensors file has the config in its
metadata. What has no config is taken for the released model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ....errors import EncoderError
from ....store.atomic import whole_file, write_json
from ..base import Encoder
from ..config_file import read_config
from ..hub import find_on_hub, hub_file
from ..weights import check_state, load_state
from .build import with_encoder
from .config import RegisteredConfig, VGGTConfig
from .registered import RegisteredPatchEmbed

if TYPE_CHECKING:
    from .model import VGGT

CONFIG, WEIGHTS = "config.json", "model.safetensors"
_WEIGHT_FILES = (WEIGHTS, "model.pt")
_METADATA = "strata.vggt"
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_OF_ENCODER = ("aggregator.patch_embed.", "aggregator.projection.")
_FIX = (
    "give config= of the model that was saved, as far as it differs from the config found with the weights;\n"
    "a head that the checkpoint does not have is left out with config={'track_head': None} and the like;\n"
    "of a training give <out>/model, where the config lies beside the weights"
)
_INSTEAD = "model=FOLDER (in Python from_pretrained('FOLDER'))"
_HEADS = ("camera_head", "depth_head", "point_head", "track_head")


def read_model(
    kind: type[VGGT],
    source: str,
    changes: Mapping[str, Any],
    encoder: str | Mapping[str, Any] | Encoder | None,
) -> VGGT:
    """`VGGT.from_pretrained`."""
    weights, written = find_weights(source)
    config = _merged(written, changes, encoder)
    given = encoder if isinstance(encoder, Encoder) else None
    # Its own encoder's weights are in the checkpoint; those of another are wherever they came from.
    swapped = not _same_encoder(VGGTConfig.from_dict(written), config)
    model = _empty(kind, config, given, swapped)
    expected, state = model.state_dict(), load_state(weights)
    fresh = {name: tensor for name, tensor in expected.items() if swapped and name.startswith(_OF_ENCODER)}
    read = {name: tensor for name, tensor in state.items() if not _left_out(name, model, swapped)}
    check_state({**fresh, **read}, expected, weights, fix=_FIX)
    model.load_state_dict({**fresh, **read}, assign=True)
    model.weights = source
    return model.eval()


def write_model(model: VGGT, path: Path) -> Path:
    """`VGGT.save`."""
    from safetensors.torch import save_file

    config = _with_digest(model).to_dict()
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    file = path if path.suffix == ".safetensors" else path / WEIGHTS
    with whole_file(file) as partial:
        # One entry alone: several are written in an order that changes from call to call.
        save_file(state, partial, metadata={_METADATA: json.dumps(config)})
    if file != path:
        write_json(path / CONFIG, config)
    return path


def find_weights(source: str, instead: str = _INSTEAD) -> tuple[Path, dict[str, Any]]:
    """The file of weights of a repository, folder or file, and the config that comes with it.

    Args:
        instead: see `hub_file`.

    Raises:
        EncoderError: there is none, or it is out of reach.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        weights = next((path / name for name in _WEIGHT_FILES if (path / name).is_file()), None)
        if weights is None:
            raise EncoderError(
                f"the folder has no {' and no '.join(_WEIGHT_FILES)}.",
                where=path,
                fix="give a folder that `save` wrote, or the file itself",
            )
        config = path / CONFIG
        return weights, read_config(config) if config.is_file() else _metadata(weights)
    if path.suffix in _SUFFIXES or path.is_file():
        return path, _metadata(path)
    if "/" not in source:
        raise EncoderError(
            f"there are no weights {source!r}.",
            where=path,
            why="it is no folder and no file, and repositories of the hub are called owner/name",
            fix="check the path; the released weights are facebook/VGGT-1B, or weights=hub of an encoder",
        )
    weights = hub_file(source, *_WEIGHT_FILES, instead=instead)
    try:
        config = find_on_hub(source, CONFIG, instead=instead)
    except EncoderError:  # the weights were fetched alone; whether they fit the released config is checked
        config = None
    return weights, _metadata(weights) if config is None else read_config(config)


def _metadata(path: Path) -> dict[str, Any]:
    """The config in the metadata of a file; empty where there is none, or no such file."""
    if path.suffix != ".safetensors" or not path.is_file():
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            return json.loads((file.metadata() or {}).get(_METADATA, "{}"))
    except (SafetensorError, ValueError):
        return {}  # reading the weights will say what is wrong with the file


def _merged(
    written: Mapping[str, Any], changes: Mapping[str, Any], encoder: str | Mapping[str, Any] | Encoder | None
) -> VGGTConfig:
    """The checkpoint's config with the changes in it.

    Sections are changed name by name, but an encoder that names itself or its type replaces the other.
    """
    given = encoder if isinstance(encoder, Encoder) else None
    if given is None and encoder is not None:
        changes = {**changes, "encoder": encoder}
    elif given is not None and not _is_named(written, given):
        changes = {"encoder": {"name": given.info.name}, **changes}
    values = dict(written)
    for name, change in changes.items():
        before = values.get(name)
        if isinstance(change, Mapping) and isinstance(before, Mapping) and not {"type", "name"} & set(change):
            change = {**before, **change}
        values[name] = change
    if "encoder" in changes and "patch_size" not in changes:
        settled = VGGTConfig.from_dict(values)
        if isinstance(settled.encoder, RegisteredConfig):
            values.pop("patch_size", None)
    return with_encoder(VGGTConfig.from_dict(values), given)


def _is_named(written: Mapping[str, Any], encoder: Encoder) -> bool:
    """Whether the checkpoint's config names this very encoder; timm's names may lack their tag."""
    before = VGGTConfig.from_dict(written).encoder
    return isinstance(before, RegisteredConfig) and before.name in (
        encoder.info.name,
        encoder.info.name.partition(".")[0],
    )


def _same_encoder(written: VGGTConfig, config: VGGTConfig) -> bool:
    """Whether the checkpoint's encoder is kept; one that is part of the model always is."""
    before, now = written.encoder, config.encoder
    if not isinstance(now, RegisteredConfig):
        return True
    if not isinstance(before, RegisteredConfig):
        return False
    return (before.name, before.layer, before.frozen) == (now.name, now.layer, now.frozen)


def _empty(kind: type[VGGT], config: VGGTConfig, encoder: Encoder | None, swapped: bool) -> VGGT:
    """The model without memory for its weights, except for those that come with another encoder."""
    own = config.encoder
    if isinstance(own, RegisteredConfig) and not own.frozen and encoder is None:
        from ..registry import create

        encoder = create(own.name, own.weights)
    with torch.device("meta"):
        model = kind(config, encoder=encoder)
    projection = model.aggregator.projection
    if swapped and projection is not None:
        model.aggregator.projection = nn.Linear(projection.in_features, projection.out_features)
    return model


def _left_out(name: str, model: VGGT, swapped: bool) -> bool:
    """Whether a tensor of the checkpoint belongs to what this model was asked to be without."""
    if name.startswith(_OF_ENCODER):
        return swapped
    head = name.partition(".")[0]
    return head in _HEADS and getattr(model, head) is None


def _with_digest(model: VGGT) -> VGGTConfig:
    """The config, and of a frozen registered encoder, which is not saved, the digest of its weights."""
    patch_embed, encoder = model.aggregator.patch_embed, model.config.encoder
    if not isinstance(encoder, RegisteredConfig) or not isinstance(patch_embed, RegisteredPatchEmbed):
        return model.config
    if not encoder.frozen or not patch_embed.built:
        return model.config
    return replace(model.config, encoder=replace(encoder, digest=patch_embed.encoder.weights_digest()))
