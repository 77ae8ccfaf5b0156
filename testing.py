"""The conformance kit for encoders: what the pipeline relies on, checked on small random views.

    from strata.testing import check_encoder
    check_encoder(MyEncoder("random:0"))

Shapes: B sets, V views, R C token rows and columns, T prefix tokens, D channels, H W pixels.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from .errors import EncoderError, LayerError
from .extract.encoders.base import Encoder, EncoderInfo, FeatureMap, ViewBatch
from .store.layers import check_layer, layer_order, resolve_layers

__all__ = ["check_encoder", "random_batch"]

_TOLERANCE = 1e-5


def check_encoder(
    encoder: Encoder, *, size: int | None = None, device: str = "cpu", sees_content: bool = True
) -> None:
    """Nothing, if the encoder keeps the contract of `strata.extract.encoders.base`.

    It is moved to `device` in float32 and run on a square, a landscape and a portrait grid. Checked
    are its declarations, shapes and dtypes of all layers, that only wanted layers are returned, that
    tokens are row-major (a cell that changes moves its own token most), that views (for
    `context=set`: sets) do not see each other, that runs repeat, and its errors.

    Args:
        encoder: any encoder; random weights do.
        size: tokens along the long side, 5 by default; at least 3.
        device: where to run it.
        sees_content: False for an encoder that by design looks neither at pixels nor at geometry.

    Raises:
        AssertionError: it does not; the message says what is wrong and what to do.
    """
    kit = _Kit(encoder=encoder.to(device, torch.float32), device=device, sees_content=sees_content)
    kit.check_declarations()
    long, short = size or 5, max(2, (size or 5) - 2)
    for grid in ((long, long), (short, long), (long, short)):
        kit.check_outputs(grid)
        kit.check_independence(grid)
        kit.check_row_major(grid)
    kit.check_errors((short, long))


def random_batch(
    encoder: Encoder, grid: tuple[int, int], *, sets: int = 2, views: int = 2, device: str = "cpu"
) -> ViewBatch:
    """A batch of noise with the fields that the encoder needs; token (0, 0) has no world point."""
    height, width = encoder.info.pixels(grid)
    noise = torch.Generator().manual_seed(0)
    points = torch.randn(sets, views, *grid, 3, generator=noise)
    points[:, :, 0, 0] = torch.nan
    K_px = torch.tensor([[width, 0, width / 2], [0, width, height / 2], [0, 0, 1]], dtype=torch.float64)
    optional = {
        "token_point_world": points,
        "depth_m": 1 + torch.rand(sets, views, height, width, generator=noise),
        "K_px": K_px.repeat(sets, views, 1, 1),
        "cam_from_world": torch.eye(4, dtype=torch.float64).repeat(sets, views, 1, 1),
        "scene_scale_m": torch.full((sets,), 2.0),
    }
    needed = {name: optional[name].to(device) for name in encoder.info.needs if name in optional}
    images = torch.rand(sets, views, 3, height, width, generator=noise)
    return ViewBatch(images=images.to(device), grid=grid, **needed)


@dataclass(frozen=True, kw_only=True)
class _Kit:
    """The checks of one encoder, already on its device."""

    encoder: Encoder
    device: str
    sees_content: bool

    def check_declarations(self) -> None:
        info, layers = self.encoder.info, self.encoder.layers()
        self._require(len(set(layers)) == len(layers), f"layers() repeats a name: {layers}", "name each once")
        for layer in layers:
            check_layer(layer)
        order = [layer_order(layer)[:2] for layer in layers]
        self._require(
            order == sorted(order), f"layers() is not ordered: {layers}", "list them from shallow to deep"
        )
        self._require("norm" in layers, "it has no layer `norm`", "name its final output `norm`")
        if info.context == "view":
            self._call(
                lambda: resolve_layers(("1/4", "1/2", "3/4", "last"), layers, info.depth),
                f"the default layers do not resolve with depth={info.depth}",
                f"name the blocks block0 to block{info.depth - 1}, or declare the right depth",
            )
        known = {field.name for field in fields(ViewBatch)} - {"images", "grid"}
        self._require(
            info.needs <= known,
            f"it needs unknown fields: {set(info.needs - known)}",
            f"choose among {known}",
        )
        self._require(info.context in ("view", "set"), f"context={info.context}", "write view or set")
        digest = self.encoder.weights_digest()
        self._require(
            re.fullmatch(r"[0-9a-f]{64}", digest) is not None and digest == self.encoder.weights_digest(),
            f"weights_digest() is no stable sha256: {digest}",
            "return strata.extract.encoders.weights.state_digest(state_dict)",
        )

    def check_outputs(self, grid: tuple[int, int]) -> None:
        batch, layers = self._batch(grid), self.encoder.layers()
        outputs = self.encoder.forward(batch, layers)
        self._require_keys(outputs, layers)
        for layer in layers:
            self._check_map(layer, outputs[layer], (*batch.images.shape[:2], *grid))
        for wanted in {layers[:1], layers[-1:], (layers[0], layers[-1])}:
            few = self.encoder.forward(batch, tuple(dict.fromkeys(wanted)))
            self._require_keys(few, wanted)
            for layer in few:
                self._require(
                    torch.equal(few[layer].tokens, outputs[layer].tokens),
                    f"{layer} differs between two runs on the same views",
                    "switch dropout off (eval mode) and let no layer change another's tensors in place",
                )

    def check_independence(self, grid: tuple[int, int]) -> None:
        batch, layers = self._batch(grid), self.encoder.layers()
        whole = self.encoder.forward(batch, layers)
        view = slice(1, 2) if self.encoder.info.context == "view" else slice(None)
        alone = self.encoder.forward(_part(batch, view), layers)
        for layer in layers:
            together, single = whole[layer].tokens[1:2, view], alone[layer].tokens
            error = (together - single).abs().max().item()
            self._require(
                error <= _TOLERANCE * max(1.0, single.abs().max().item()),
                f"{layer} of a view changes by {error:.2g} with what else is in the batch",
                "use no statistics over the batch; an encoder whose views see each other has context=set",
            )

    def check_row_major(self, grid: tuple[int, int]) -> None:
        layers, info = self.encoder.layers(), self.encoder.info
        self._check_cells("patch_embed" if "patch_embed" in layers else layers[0], grid, _near(info))
        # Norms come between, so of patches that overlap a neighbour's keys may move more.
        for tap in {"block0.keys"} & set(layers):
            self._check_cells(tap, grid, (info.patch_size - 1) // (info.stride or info.patch_size))

    def _check_cells(self, layer: str, grid: tuple[int, int], near: int) -> None:
        """A cell that changes moves its own token most, or one at most `near` rows and columns away."""
        batch = self._batch(grid)
        before = self.encoder.forward(batch, (layer,))[layer].tokens[1, 0]
        for cell in ((0, grid[1] - 1), (grid[0] - 1, 1)) if self.sees_content else ():
            changed = _changed(batch, cell, self.encoder.info)
            after = self.encoder.forward(changed, (layer,))[layer].tokens[1, 0]
            moved = (after - before).norm(dim=-1)
            most = divmod(int(moved.argmax()), grid[1])
            self._require(
                moved.max().item() > 0 and max(abs(most[i] - cell[i]) for i in (0, 1)) <= near,
                f"a change of cell {cell} on a grid of {grid} moves the token {most} of {layer} most",
                "return tokens [B, V, R, C, D] with rows before columns, sets before views",
            )

    def check_errors(self, grid: tuple[int, int]) -> None:
        batch, layers = self._batch(grid), self.encoder.layers()
        self._require_error(
            LayerError, batch, ("block9999",), "an unknown layer", "use store.layers.resolve_layers"
        )
        if self.encoder.info.patch_size > 1:
            cut = replace(batch, images=batch.images[..., 1:])
            self._require_error(
                EncoderError, cut, layers[:1], "images that end inside a patch", "use image_size.token_grid"
            )

    def _batch(self, grid: tuple[int, int]) -> ViewBatch:
        return random_batch(self.encoder, grid, device=self.device)

    def _check_map(self, layer: str, output: FeatureMap, places: tuple[int, ...]) -> None:
        names = self.encoder.prefix_names()
        shape, width = tuple(output.tokens.shape), self.encoder.width(layer)
        self._require(
            shape == (*places, width),
            f"tokens of {layer} have shape {shape} instead of {(*places, width)}",
            "return [B, V, R, C, D] with D = width(layer)",
        )
        self._require(
            output.tokens.is_floating_point() and bool(output.tokens.isfinite().all()),
            f"tokens of {layer} are {output.tokens.dtype} or not finite",
            "return finite floating-point tokens; 0 for tokens without a world point",
        )
        self._require(
            tuple(output.prefix_names) == tuple(names),
            f"prefix tokens of {layer} are called {output.prefix_names}, prefix_names() says {names}",
            "make the two agree",
        )
        prefix = None if output.prefix is None else tuple(output.prefix.shape)
        expected = (*places[:2], len(names), width) if names else None
        self._require(
            prefix == expected,
            f"prefix of {layer} has shape {prefix} instead of {expected}",
            "return [B, V, T, D] for T names, and None without any",
        )

    def _require_keys(self, outputs: dict[str, FeatureMap], wanted: tuple[str, ...]) -> None:
        self._require(
            set(outputs) == set(wanted),
            f"asked for {wanted} it returns {tuple(outputs)}",
            "return the wanted layers, all of them and no others",
        )

    def _require_error(
        self, kind: type[Exception], batch: ViewBatch, layers: tuple[str, ...], case: str, fix: str
    ) -> None:
        try:
            self.encoder.forward(batch, layers)
        except kind:
            return
        except Exception as error:
            self._require(False, f"{case} raises {type(error).__name__} instead of {kind.__name__}", fix)
        self._require(False, f"{case} raises nothing instead of {kind.__name__}", fix)

    def _call(self, action, what: str, fix: str) -> None:
        try:
            action()
        except LayerError as error:
            self._require(False, f"{what}: {error.what}", fix)

    def _require(self, holds: bool, what: str, fix: str) -> None:
        if not holds:
            raise AssertionError(f"encoder {self.encoder.info.name}: {what}.\n  fix     {fix}")


def _part(batch: ViewBatch, view: slice) -> ViewBatch:
    """The second set alone, of it the views of the slice."""
    optional = ("token_point_world", "depth_m", "K_px", "cam_from_world")
    cut = {name: tensor[1:2, view] for name in optional if (tensor := getattr(batch, name)) is not None}
    scale_m = None if batch.scene_scale_m is None else batch.scene_scale_m[1:2]
    return replace(batch, images=batch.images[1:2, view], scene_scale_m=scale_m, **cut)


def _changed(batch: ViewBatch, cell: tuple[int, int], info: EncoderInfo) -> ViewBatch:
    """The batch with another look, depth and world point at one cell of view (1, 0)."""
    pixels = _pixels(info, cell)
    changed: dict[str, Tensor] = {"images": batch.images.clone()}
    changed["images"][1, 0, :, *pixels] = 1.0
    if batch.depth_m is not None:
        changed["depth_m"] = batch.depth_m.clone()
        changed["depth_m"][1, 0, *pixels] *= 3
    if batch.token_point_world is not None:
        changed["token_point_world"] = batch.token_point_world.clone()
        changed["token_point_world"][1, 0, *cell] += 1
    return replace(batch, **changed)


def _pixels(info: EncoderInfo, cell: tuple[int, int]) -> tuple[slice, slice]:
    """The patch of a token."""
    step = info.stride or info.patch_size
    rows, cols = (slice(k * step, k * step + info.patch_size) for k in cell)
    return rows, cols


def _near(info: EncoderInfo) -> int:
    """How many tokens away a patch still shares more than half of its side."""
    step = info.stride or info.patch_size
    return (info.patch_size - step) // (2 * step)
