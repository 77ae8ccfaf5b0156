"""Values that decide which features are meant: digests, the preprocessing and the feature key.

Two requests that would give other numbers have other keys; two that would give the same numbers
have the same key. So a key holds declarations only: no paths, times, code or storage types.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import ConfigError, did_you_mean

FITS = ("crop", "pad", "stretch")
ORIENTS = ("view", "scene")
FILTERS = ("auto", "lanczos", "bicubic", "bilinear", "nearest")
COMPUTES = ("float32", "bfloat16", "float16")

Size = tuple[int, int]


def canonical_json(value: Any) -> str:
    """The one JSON text of a value: sorted keys, no spaces, UTF-8, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: Any) -> str:
    """sha256 of the canonical JSON of `value`, 64 hex digits."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def readable(words: str, identity: str) -> str:
    """A folder name `<words>@<identity>`; only the part after the last `@` is identity."""
    safe = re.sub(r"[^A-Za-z0-9_.+-]", "-", words)[:64]
    return f"{safe}@{identity}"


def identity(folder: str) -> str:
    """The identity of a folder name that `readable` made."""
    return folder.rsplit("@", 1)[-1]


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """How a source image becomes the encoder's input.

    Attributes:
        fit: `crop` (cover the target and cut the middle, as map-anything does), `pad` or `stretch`.
        grid: `aspect:N` (long side N tokens, the short side by the image's aspect) or
            (rows, cols) tokens; the same for every patch size.
        pixels: (height, width) instead of a grid; the grid then depends on the patch size.
        orient: `view` (a portrait view gets the transposed grid) or `scene` (one grid a scene).
        filter: `auto` (Lanczos down, bicubic up) or a Pillow filter by name.
    """

    fit: str = "crop"
    grid: str | Size | None = "aspect:37"
    pixels: Size | None = None
    orient: str = "view"
    filter: str = "auto"

    def __post_init__(self) -> None:
        _choice("fit", self.fit, FITS)
        _choice("orient", self.orient, ORIENTS)
        _choice("filter", self.filter, FILTERS)
        if (self.grid is None) == (self.pixels is None):
            raise ConfigError(
                f"a preprocessing needs either grid or pixels, got grid={self.grid} "
                f"and pixels={self.pixels}.",
                where="preprocess",
                fix="give grid=aspect:37, grid=[28,37] or pixels=[392,518]",
            )
        if self.pixels is not None:
            object.__setattr__(self, "pixels", _size("pixels", self.pixels))
        elif not isinstance(self.grid, str):
            object.__setattr__(self, "grid", _size("grid", self.grid))
        else:
            _aspect(self.grid)

    def to_dict(self) -> dict[str, Any]:
        """What is hashed: `grid` or `pixels` as written, never both."""
        size = {"pixels": list(self.pixels)} if self.pixels else {"grid": _listed(self.grid)}
        return {"fit": self.fit, **size, "orient": self.orient, "filter": self.filter}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Preprocess:
        return cls(**{"grid": None, **value})

    @property
    def folder(self) -> str:
        """`crop-aspect37@5d1e90`."""
        size = self.pixels or self.grid
        words = size.replace(":", "") if isinstance(size, str) else "x".join(map(str, size or ()))
        return readable(f"{self.fit}-{words}{'px' if self.pixels else ''}", digest(self.to_dict())[:6])

    def resolve_grid(self, width: int, height: int, patch: int, stride: int | None = None) -> Size:
        """(rows, cols) tokens of an image of this size, `stride` pixels apart (None = a patch).

        Raises:
            ConfigError: `pixels` does not end with a patch.
        """
        if self.pixels is not None:
            return _grid_of_pixels(self._oriented(self.pixels, width, height), patch, stride or patch)
        if isinstance(self.grid, str):
            return aspect_grid(_aspect(self.grid), width, height)
        assert self.grid is not None
        return self._oriented(self.grid, width, height)

    def _oriented(self, size: Size, width: int, height: int) -> Size:
        rows, cols = size
        turned = (rows - cols) * (height - width) < 0
        return (cols, rows) if turned and self.orient == "view" else (rows, cols)


def aspect_grid(long_side: int, width: int, height: int) -> Size:
    """(rows, cols) with the long side `long_side` and the short side rounded half up."""
    short = max(1, (2 * long_side * min(width, height) + max(width, height)) // (2 * max(width, height)))
    return (short, long_side) if width >= height else (long_side, short)


def pixels_of_grid(grid: Size, patch: int, stride: int | None = None) -> Size:
    """(height, width) of the image whose tokens lie on this grid, `stride` pixels apart (None = a patch)."""
    rows, cols = ((side - 1) * (stride or patch) + patch for side in grid)
    return rows, cols


@dataclass(frozen=True, kw_only=True)
class FeatureKey:
    """Everything that changes the numbers of a feature, and nothing else.

    Attributes:
        encoder: registered name.
        weights: sha256 over the state dict's tensors in name order.
        preprocess: see `Preprocess`.
        stride: pixels between patch centres; None = the patch size.
        compute: dtype of the forward pass.
        context: `view` (each view alone) or `set` (views of a set together).
        derived: how the feature was computed from stored ones, or None.
        numerics: version of the adapter's arithmetic, raised when its results change.
    """

    encoder: str
    weights: str
    preprocess: Preprocess = field(default_factory=Preprocess)
    stride: int | None = None
    compute: str = "float32"
    context: str = "view"
    derived: str | None = None
    numerics: int = 1

    def __post_init__(self) -> None:
        _choice("compute", self.compute, COMPUTES)
        _choice("context", self.context, ("view", "set"))

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "preprocess": self.preprocess.to_dict()}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> FeatureKey:
        return cls(**{**value, "preprocess": Preprocess.from_dict(value["preprocess"])})

    @property
    def id(self) -> str:
        """12 hex digits."""
        return digest(self.to_dict())[:12]

    @property
    def folder(self) -> str:
        """`dinov2_base@8f31c2abcdef`."""
        return readable(self.encoder, self.id)

    def differences(self, other: FeatureKey) -> list[str]:
        """`preprocess.grid: stored aspect:37, asked aspect:24` for every field that differs."""
        mine, theirs = _flat(self.to_dict()), _flat(other.to_dict())
        return [
            f"{name}: stored {mine.get(name)}, asked {theirs.get(name)}"
            for name in sorted({*mine, *theirs})
            if mine.get(name) != theirs.get(name)
        ]


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        flat.update(_flat(item, f"{prefix}{name}.") if isinstance(item, dict) else {prefix + name: item})
    return flat


def _choice(name: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise ConfigError(
            f"{name}={value} is not known.",
            where=name,
            why=f"one of {', '.join(known)} is expected",
            fix=did_you_mean(str(value), known),
        )


def _aspect(grid: str) -> int:
    match = re.fullmatch(r"aspect:([1-9][0-9]{0,3})", grid)
    if not match:
        raise ConfigError(
            f"grid={grid} is not a grid.",
            where="grid",
            why="a grid is aspect:N (tokens along the long side) or [rows,cols]",
            fix="write grid=aspect:37 or grid=[28,37]",
        )
    return int(match[1])


def _size(name: str, value: Any) -> Size:
    sizes = tuple(value) if isinstance(value, list | tuple) else ()
    if len(sizes) != 2 or not all(type(n) is int and 0 < n < 65536 for n in sizes):
        raise ConfigError(
            f"{name}={value} is not a size.",
            where=name,
            why="two positive whole numbers are expected: rows (height) first, then columns (width)",
            fix=f"write {name}={'[28,37]' if name == 'grid' else '[392,518]'}",
        )
    return (sizes[0], sizes[1])


def _grid_of_pixels(pixels: Size, patch: int, stride: int) -> Size:
    if any(side < patch or (side - patch) % stride for side in pixels):
        near = [f"[{h},{w}]" for h, w in zip(*(_ends(p, patch, stride) for p in pixels), strict=True)]
        raise ConfigError(
            f"pixels={list(pixels)} do not divide into patches.",
            where="pixels",
            why=f"a token grid has whole patches only, of {patch} pixels every {stride}",
            fix=f"the nearest sizes that fit are {' and '.join(near)}; or give grid= in tokens",
        )
    return (pixels[0] - patch) // stride + 1, (pixels[1] - patch) // stride + 1


def _ends(length: int, patch: int, stride: int) -> Size:
    below = patch + max(0, (length - patch) // stride) * stride
    return below, below if length <= below else below + stride


def _listed(value: str | Size | None) -> str | list[int] | None:
    return list(value) if isinstance(value, tuple) else value
