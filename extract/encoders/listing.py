"""`strata encoders ls|info`: what there is to extract with, told before any weight is loaded."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from ...configs.schema import ExtractConfig
from ...errors import EncoderError
from ...progress import Progress
from ...store.key import Preprocess
from ...store.layers import resolve_layers
from .base import Encoder, EncoderInfo
from .exported import is_exported, load_exported
from .presets import load_preset, preset_names
from .registry import create, describe, encoder_names

_LANDSCAPE = (4, 3)  # width : height of the view whose bytes are told
_F16_BYTES = 2
_COLUMNS = ("name", "family", "patch", "depth", "width", "MB/view", "licence", "weights")
_NUMBERS = ("patch", "depth", "width", "MB/view")


def ls(console: Console, *, as_json: bool = False, as_markdown: bool = False) -> int:
    """Print all registered encoders; 1 if one of them does not say what it is."""
    infos: list[EncoderInfo] = []
    faults: list[EncoderError] = []
    for name in encoder_names():
        try:
            infos.append(describe(name))
        except EncoderError as error:  # a third party's package; the others are listed all the same
            faults.append(error)
    if as_json:
        print(json.dumps([facts(info) for info in infos], indent=2))
    elif as_markdown:
        print(markdown(infos), end="")
    else:
        _show(infos, console)
    for fault in faults:
        Console(stderr=True).print(str(fault), markup=False, highlight=False)
    return int(bool(faults))


def info(
    name: str,
    console: Console,
    *,
    as_json: bool = False,
    measured: bool = False,
    weights: str = "hub",
    device: str = "auto",
) -> int:
    """Print what one encoder declares, and with `measured` what its numbers are like.

    Raises:
        EncoderError: the name is unknown; or it cannot be measured, with these weights, here.
    """
    told = {**facts(describe(name)), "family": family(name)}
    layers = _measured(name, weights, device, Console(stderr=True)) if measured else []
    if as_json:
        print(json.dumps({**told, **({"layers": layers} if measured else {})}, indent=2))
        return 0
    _show_facts(told, console)
    if measured:
        _show_layers(layers, console)
    return 0


def _measured(name: str, weights: str, device: str, console: Console) -> list[dict[str, Any]]:
    from ..run import resolve_device
    from .measure import measure, passes

    on, encoder = resolve_device(device), _created(name, weights)
    with Progress(console, f"measure {name}", len(passes(encoder)), "runs") as progress:
        found = measure(encoder, on, done=progress.advance, note=progress.note)
        return [asdict(layer) for layer in found]


def _created(name: str, weights: str) -> Encoder:
    """As `create`; what an error tells to give is spelled as this command takes it."""
    try:
        return create(name, weights)
    except EncoderError as error:
        random = f"`strata encoders info {name} --measure --weights random:0`"
        fix = error.fix.replace("weights=random:0", random).replace("weights=", "--weights ")
        raise EncoderError(
            error.what, where=error.where, why=error.why, fix=fix.replace("encoder=", "")
        ) from error


def _show_layers(layers: list[dict[str, Any]], console: Console) -> None:
    ways = list(layers[0]["deviation"])
    names = ("layer", "max |x|", "storage", *ways)
    columns = [Column(name, justify="left" if name in ("layer", "storage") else "right") for name in names]
    table = Table(*columns, box=None, pad_edge=False)
    for row in layers:
        deviations = (_deviation(row["deviation"][way]) for way in ways)
        table.add_row(row["layer"], f"{row['largest']:,.1f}", row["storage"], *deviations)
    console.print()
    console.print(table, markup=False, highlight=False)
    console.print("16 bits and compile: relative deviation from float32", style="dim", soft_wrap=True)


def _deviation(value: float | None) -> str:
    return "overflows" if value is None else f"{value:.1e}"


def _show_facts(told: dict[str, Any], console: Console) -> None:
    table = Table(box=None, show_header=False, pad_edge=False)
    for field, value in told.items():
        text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
        table.add_row(field, text if value not in ("", None, []) else "-")
    console.print(table, markup=False, highlight=False)


def facts(info: EncoderInfo) -> dict[str, Any]:
    """What an encoder declares, its family, and what its default layers are and weigh, as JSON has it."""
    layers = default_layers(info)
    rows, cols = _grid(info)
    return {
        "name": info.name,
        "family": family(info.name),
        **{name: _jsonable(value) for name, value in asdict(info).items()},
        "default_layers": list(layers),
        "grid": [rows, cols],
        "bytes_per_view": len(layers) * rows * cols * info.width * _F16_BYTES or None,
    }


def default_layers(info: EncoderInfo) -> tuple[str, ...]:
    """The layers that an extraction takes when none are named."""
    kind = "global" if info.context == "set" and info.depth else "block"
    blocks = (f"{kind}{k}" for k in range(info.depth))
    return resolve_layers(_defaults().layers, ("patch_embed", *blocks, "norm"), info.depth)


def family(name: str) -> str:
    """Where it comes from: timm, transformers, dinov2, oracle or entry point."""
    if name in preset_names() or is_exported(name):
        preset = load_preset(name) if name in preset_names() else load_exported(name)
        return {"vit": "timm", "hf": "transformers"}.get(preset.family, preset.family)
    if name in encoder_names():
        return "entry point"
    return "transformers" if name.startswith("hf:") else "timm"


def markdown(infos: Iterable[EncoderInfo]) -> str:
    """The table as the README has it."""
    rows = [_COLUMNS, *(_cells(info) for info in infos)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rules = [
        "-" * (width - 1) + ":" if name in _NUMBERS else "-" * width
        for name, width in zip(_COLUMNS, widths, strict=True)
    ]
    lines = [rows[0], rules, *rows[1:]]
    return "".join(f"| {' | '.join(_padded(line, widths))} |\n" for line in lines)


def _padded(line: Iterable[str], widths: Iterable[int]) -> list[str]:
    return [
        text.rjust(width) if name in _NUMBERS else text.ljust(width)
        for name, text, width in zip(_COLUMNS, line, widths, strict=True)
    ]


def _cells(info: EncoderInfo) -> tuple[str, ...]:
    told = facts(info)
    bytes_per_view = told["bytes_per_view"]
    return (
        info.name,
        told["family"],
        str(info.patch_size),
        str(info.depth or "-"),
        str(info.width or "-"),
        f"{bytes_per_view / 1e6:,.2f}" if bytes_per_view else "-",
        info.licence or "-",
        info.source.removeprefix("https://") or "-",
    )


def _show(infos: Iterable[EncoderInfo], console: Console) -> None:
    columns = [Column(name, justify="right" if name in _NUMBERS else "left") for name in _COLUMNS]
    table = Table(*columns, box=None, pad_edge=False)
    for info in infos:
        table.add_row(*_cells(info))
    console.print(table, markup=False, highlight=False)
    console.print(
        "Any ViT of timm (timm:<model name>) and DINOv2, DINOv3, CLIP, MAE, ViT, I-JEPA and SigLIP of "
        "transformers (hf:<repository or folder>) work too.",
        style="dim",
        soft_wrap=True,
    )


def _grid(info: EncoderInfo) -> tuple[int, int]:
    return Preprocess(grid=_defaults().grid).resolve_grid(*_LANDSCAPE, info.patch_size)


def _defaults() -> ExtractConfig:
    return ExtractConfig(shards="", store="", encoder="")


def _jsonable(value: Any) -> Any:
    return (
        sorted(value) if isinstance(value, frozenset) else list(value) if isinstance(value, tuple) else value
    )
