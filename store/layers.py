"""The layer grammar: names of what a backbone puts out.

`block11`             raw output of block 11, counted from 0
`block11.attn`        a tap inside the block: attn, mlp, keys or norm
`norm` (= `last`)     the last block after the final norm
`patch_embed`         tokens before the first block
`frame7`, `global7`   alternating attention of set encoders
`block5+norm`         channels of several layers side by side, of derived features
`k/m`                 a share of the depth n: block max(1, floor(k*n/m + 0.5)) - 1, of set encoders
                      the global attention of that number
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..errors import LayerError, did_you_mean

_ONE = r"((block|frame|global)(0|[1-9][0-9]*)(\.(attn|mlp|keys|norm))?|norm|patch_embed)"
_NAME = re.compile(rf"{_ONE}(\+{_ONE})*")
_SHARE = re.compile(r"([1-9][0-9]*)/([1-9][0-9]*)")
_STORED = re.compile(r"(?P<layer>.+?)(@(?P<storage>u8|bf16|f32))?")

STORAGES = ("f32", "f16", "bf16", "u8")


def resolve_layers(
    wanted: Iterable[str], available: Iterable[str], depth: int, whose: str = "the encoder"
) -> tuple[str, ...]:
    """Layer names for what was asked, in the order asked, duplicates dropped.

    Args:
        wanted: names, shares such as `1/2`, or `last`.
        available: the names that the encoder has; no more of them are asked for than it takes.
        depth: its number of blocks; 0 = none, then shares resolve to `norm`.
        whose: what the error says the layers belong to.

    Raises:
        LayerError: a name is outside the grammar or the encoder does not have it.
    """
    wanted, left = (wanted,) if isinstance(wanted, str) else tuple(wanted), iter(available)
    have = list(left) if any("/" in name for name in wanted) else []
    kind = "global" if any(name.startswith("global") for name in have) else "block"
    resolved = [_resolve(name.strip(), depth, kind) for name in wanted]
    for asked, name in zip(wanted, resolved, strict=True):
        # A store that names its layers bundle by bundle is not looked through once all were found.
        while name not in have and (more := next(left, None)) is not None:
            have.append(more)
        if name not in have:
            raise LayerError(
                f"{whose} has no layer {asked!r}.",
                where="layers",
                why=f"it has {layers_told(tuple(have))}",
                fix=did_you_mean(name, have),
            )
    return tuple(dict.fromkeys(resolved))


def _resolve(name: str, depth: int, kind: str) -> str:
    if name == "last":
        return "norm"
    share = _SHARE.fullmatch(name)
    if not share:
        return name
    k, m = int(share[1]), int(share[2])
    if k > m:
        raise LayerError(
            f"layer {name!r} lies beyond the last block.",
            where="layers",
            why="a share of the depth is at most 1",
            fix="write 1/4, 1/2, 3/4 or last",
        )
    return f"{kind}{max(1, (2 * k * depth + m) // (2 * m)) - 1}" if depth else "norm"


def check_layer(name: str) -> str:
    """The name itself, if it is in the grammar.

    Raises:
        LayerError: it is not.
    """
    if not _NAME.fullmatch(name):
        raise LayerError(
            f"{name!r} is not a layer name.",
            where="layers",
            why="names are block<k>, block<k>.attn|mlp|keys|norm, norm, patch_embed, frame<k>, global<k>",
            fix="`strata store info PATH` lists the layers that are stored",
        )
    return name


def stored_name(layer: str, storage: str) -> str:
    """The folder of a layer: `block5`, or `block5@u8` for a storage other than f16."""
    return layer if storage == "f16" else f"{layer}@{storage}"


def layer_text(layer: str, storages: Sequence[str]) -> str:
    """For people: `block5`, or with a storage other than f16 `block5 u8`, `block5 f16+u8`."""
    return layer if list(storages) == ["f16"] else f"{layer} {'+'.join(storages)}"


def split_stored(folder: str) -> tuple[str, str]:
    """(layer, storage) of a folder that `stored_name` made."""
    match = _STORED.fullmatch(folder)
    assert match is not None
    return check_layer(match["layer"]), match["storage"] or "f16"


def layer_order(name: str) -> tuple[int, int, str]:
    """Sort key: patch_embed, blocks by depth, norm last."""
    number = re.search(r"[0-9]+", name)
    rank = {"patch_embed": 0, "norm": 2}.get(name, 1)
    return rank, int(number[0]) if number else 0, name


def layers_told(names: Sequence[str]) -> str:
    """For people: `block0 to block11 (each also .attn, .keys), norm`; with gaps all names."""
    told = []
    for kind in ("block", "frame", "global"):
        found = {int(m[1]): m[0] for name in names if (m := re.fullmatch(rf"{kind}([0-9]+)", name))}
        if len(found) > 1 and set(found) == set(range(len(found))):
            told.append(f"{kind}0 to {kind}{len(found) - 1}{_taps(names, kind, len(found))}")
        else:
            told += [name for name in names if name.startswith(kind)]
    return ", ".join([*told, *(name for name in names if name in ("norm", "patch_embed"))])


def _taps(names: Sequence[str], kind: str, blocks: int) -> str:
    taps = sorted({name.partition(".")[2] for name in names if name.startswith(kind) and "." in name})
    whole = [f".{tap}" for tap in taps if all(f"{kind}{k}.{tap}" in names for k in range(blocks))]
    return f" (each also {', '.join(whole)})" if whole else ""


def best_storage(storages: Sequence[str]) -> str:
    """The most exact storage of a layer: f32, f16, bf16, u8."""
    return min(storages, key=STORAGES.index)
