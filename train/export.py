"""What a finished training leaves for others: the model, and the encoder in it where that was trained."""

from __future__ import annotations

from pathlib import Path

from rich.console import Console
from torch import nn

from ..configs.schema import TrainVGGTConfig
from ..extract.encoders.exported import export_encoder
from ..extract.encoders.presets import Preset
from ..extract.encoders.registry import origin
from ..extract.encoders.vggt.dino_encoder import dino_preset
from ..extract.encoders.vggt.model import VGGT
from ..extract.encoders.vggt.patch_embed import DinoPatchEmbed
from ..extract.encoders.vggt.registered import RegisteredPatchEmbed
from .checkpoint import load_model
from .fit import Fitted


def export(model: VGGT, fitted: Fitted, config: TrainVGGTConfig, console: Console) -> None:
    """Write the model after the last epoch, and that of the best epoch where there is one.

    Leaves `<out>/model`, `<out>/best` for `VGGT.from_pretrained`, and where the encoder was trained too
    `<out>/encoder`, `<out>/best_encoder`, each the folder of an encoder.

    Raises:
        StoreError: a folder cannot be written, or the disk is full.
    """
    _export(model, config, "model", "encoder", "", console)
    if fitted.best_checkpoint is not None:
        load_model(fitted.best_checkpoint, model)
        _export(model, config, "best", "best_encoder", "-best", console)


def _export(
    model: VGGT,
    config: TrainVGGTConfig,
    model_folder: str,
    encoder_folder: str,
    suffix: str,
    console: Console,
) -> None:
    out = Path(config.out)
    lines = [f"{model.save(out / model_folder)}: for strata.VGGT.from_pretrained"]
    trained = _trained_encoder(model)
    if trained is not None:
        preset, module = trained
        name = (config.export_name or _default_name(preset, out)) + suffix
        export_encoder(preset, name, module.state_dict(), out / encoder_folder)
        lines.append(f"{out / encoder_folder}: the encoder {name}, for encoder=")
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _trained_encoder(model: VGGT) -> tuple[Preset, nn.Module] | None:
    """The encoder that was trained as a part of the model: what it is, and its own module.

    None where it was frozen, where it is a single convolution, or where another package knows how it is made.
    """
    patch_embed = model.aggregator.patch_embed
    if not any(parameter.requires_grad for parameter in patch_embed.parameters()):
        return None
    if isinstance(patch_embed, DinoPatchEmbed):
        return dino_preset(model.config, patch_embed), patch_embed
    if not isinstance(patch_embed, RegisteredPatchEmbed):
        return None
    preset = origin(patch_embed.config.name, patch_embed.config.weights)
    return None if preset is None else (preset, patch_embed.model)


def _default_name(preset: Preset, out: Path) -> str:
    """`dinov2_base-rooms` of `dinov2_base` and `runs/rooms`; of the hub's names without their owner."""
    return f"{preset.info.name.removeprefix('hf:').rpartition('/')[2]}-{out.resolve().name}"
