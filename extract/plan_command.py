"""`strata extract plan`: what a run would do, cost and need, without doing it."""

from __future__ import annotations

from rich.console import Console

from ..configs.schema import ExtractConfig
from ..errors import counted
from ..store.feature_store import FeatureStore
from ..store.key import FeatureKey
from ..store.writer import GroupWriter
from .encoders.base import EncoderInfo
from .plan import Plan, free_bytes
from .run import open_plan


def plan(config: ExtractConfig, console: Console) -> int:
    """Print the plan; 1 when it will not fit on the disk."""
    made = open_plan(config, measure=True)
    needed, free = made.bytes_left, free_bytes(made.root)
    fits = needed <= free
    for name, text in _lines(made, needed, free, config.batch):
        console.print(f"[bold]{name:<9}[/bold] {text}", highlight=False, soft_wrap=True)
    if not fits:
        console.print(
            "[red]it does not fit:[/red] fewer layers, a smaller grid, or views=none", highlight=False
        )
    return 0 if fits else 1


def _lines(plan: Plan, needed: int, free: int, batch: int) -> list[tuple[str, str]]:
    info, left = plan.encoder.info, plan.views_left
    widths = ", ".join(f"{layer} {plan.encoder.width(layer)} {kind}" for layer, kind in plan.storages.items())
    scenes, shards = counted(len(plan.scenes), "scene"), counted(_files(plan), "shard")
    return [
        ("encoder", f"{info.name}  patch {_patches(info)}  key {plan.key.id} ({_nearest(plan)})"),
        ("layers", widths),
        ("scenes", f"{scenes}, {counted(plan.views, 'view')} in {_bundles(plan)}"),
        ("output", _output(plan, needed)),
        ("files", f"{shards}    free on {plan.root.absolute().anchor}: {free / 1e9:,.1f} GB"),
        ("time", _time(plan, left)),
        ("resume", f"{plan.views - left:,} of {plan.views:,} views are there"),
    ]


def _patches(info: EncoderInfo) -> str:
    return f"{info.patch_size} every {info.stride}" if info.stride else str(info.patch_size)


def _nearest(plan: Plan) -> str:
    """Whether the key is stored, and if not, how it differs from the nearest of the same encoder."""
    if not (plan.root / "zarr.json").exists():
        return "new store"
    others: list[FeatureKey] = [stored.key for stored in FeatureStore.open(plan.root).keys()]
    if plan.key in others:
        return "stored"
    same = [key for key in others if key.encoder == plan.key.encoder]
    if not same:
        return "new"
    nearest = min((key.differences(plan.key) for key in same), key=len)
    return f"new; nearest stored key differs in: {'; '.join(nearest)}"


def _bundles(plan: Plan) -> str:
    new = sum(part.new for part in plan.bundles)
    grids = sorted({part.bundle.grid for part in plan.bundles})
    shown = ", ".join(f"{rows}x{cols}" for rows, cols in grids)
    return f"{counted(len(plan.bundles), 'bundle')} ({new:,} new), token grid {shown}"


def _output(plan: Plan, needed: int) -> str:
    tokens = [
        spec.arrays["tokens"].row_bytes * len(part.bundle)
        for part in plan.bundles
        for spec in part.layers.values()
    ]
    a_view = sum(tokens) / max(1, plan.views)
    return (
        f"{counted(len(plan.storages), 'layer')} = {a_view / 1e6:,.2f} MB a view, "
        f"{sum(tokens) / 1e9:,.3f} GB of features; "
        f"at most {needed / 1e9:,.3f} GB are left to write, views included"
    )


def _files(plan: Plan) -> int:
    return sum(
        len(GroupWriter(plan.root, spec).missing_units()) * len(spec.by_unit)
        for part in plan.bundles
        for spec in part.groups
    )


def _time(plan: Plan, left: int) -> str:
    if plan.sample is None or not plan.sample.views_per_s:
        return "not measured"
    seconds = left / plan.sample.views_per_s
    largest = max(plan.sample.largest.items(), key=lambda item: item[1])
    return (
        f"{plan.sample.views_per_s:,.1f} views/s one by one on {plan.sample.device} -> "
        f"{seconds / 3600:,.2f} h at most; max |x| {largest[1]:,.0f} in {largest[0]}"
    )
