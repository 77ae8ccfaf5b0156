"""`strata extract run`: carry a plan out in this process. The same command again continues."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from io import StringIO
from pathlib import Path

import torch
from rich.console import Console

from ..configs.load import command_line
from ..configs.schema import ExtractConfig
from ..errors import ConfigError, EncoderError, StoreError, counted, first_few
from ..progress import Progress
from ..store.catalog import Catalog
from ..store.disk_faults import disk_faults
from ..store.feature_store import FeatureStore
from ..store.kept_lists import declare_lists
from ..store.key import FeatureKey
from ..store.lock import exclusive
from .check_words import check_words
from .encoders.base import Encoder
from .encoders.registry import create
from .extraction import Extraction
from .local_run import work_locally
from .plan import Plan, make_plan
from .run_log import RunLog
from .shards import ShardIndex
from .store_lists import keep_sets, keep_splits
from .tally import Tally
from .words import resolve_compute


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What a run did.

    Attributes:
        key: of the features.
        views: in all bundles of the plan.
        computed: views that went through the work in this run.
        reused: views whose features were there.
        beside: views whose features other runs wrote meanwhile.
        failed: views that should have features and do not.
        missing: views that lack a field which the encoder needs, or whose scene changed.
        bytes: written.
        tally: seconds by stage.
        run: name of the run's record.
    """

    key: FeatureKey
    views: int
    computed: int
    reused: int
    beside: int
    failed: int
    missing: int
    bytes: int
    tally: Tally
    run: str


def run(config: ExtractConfig, console: Console) -> int:
    """The command: 0, or 1 when views failed (they are named in the run's failed.jsonl)."""
    summary = extract(config, console)
    _print(summary, config, console)
    return 1 if summary.failed else 0


def extract(config: ExtractConfig, console: Console | None = None, encoder: Encoder | None = None) -> Summary:
    """Extract features; what is there already is left alone.

    Args:
        config: the words of the command.
        console: where progress is shown; None = nowhere.
        encoder: an encoder to use instead of the one that the words name (for one of your own).

    Raises:
        StrataError: see the message; what was finished stays, and the same call continues.
    """
    console = console or Console(file=StringIO())
    plan = open_plan(config, encoder=encoder)
    if not config.force:
        plan.check_space()
    with disk_faults(plan.root):
        return _carry_out(plan, config, console)


def _carry_out(plan: Plan, config: ExtractConfig, console: Console) -> Summary:
    store = FeatureStore.create(plan.root)
    tally, total, left = Tally(), plan.views, plan.views_left
    if left < total:
        console.print(
            f"[dim]{total - left:,} of {total:,} views are in the store already[/dim]", highlight=False
        )
    with (
        RunLog(plan.root, plan, tally, command_line("strata extract run", config)) as log,
        Progress(console, f"extract {plan.key.encoder}", left) as progress,
    ):
        # The run's record comes first: what a live run names, `store gc` leaves alone.
        _declare(store, plan, config)
        extraction = Extraction(plan=plan, config=config, tally=tally, log=log, progress=progress)
        if config.backend == "ray":
            from .ray_run import work_on_ray

            work_on_ray(extraction)
            beside = 0
        else:
            work_locally(extraction)
            beside = max(0, left - tally.views - tally.taken_over)
            progress.advance(beside)
    return _summary(plan, tally, log, reused=total - left, beside=beside)


def _summary(plan: Plan, tally: Tally, log: RunLog, *, reused: int, beside: int) -> Summary:
    failed = {(row["scene"], row["view"]) for row in log.failed}
    rows = {(bundle, row) for bundle, row, _ in tally.failures}
    return Summary(
        key=plan.key,
        views=plan.views,
        computed=tally.views,
        reused=reused,
        beside=beside,
        failed=len(failed),
        missing=len(rows) - len(failed),
        bytes=tally.bytes,
        tally=tally,
        run=log.name,
    )


def open_plan(config: ExtractConfig, *, encoder: Encoder | None = None, measure: bool = False) -> Plan:
    """The plan for these words, with the encoder on its device.

    Raises:
        StrataError: a word is wrong, the shards are not whole, the encoder is unknown.
    """
    check_words(config)
    if encoder is not None:
        _check_own(config)
    index = ShardIndex.open(config.shards)
    device, planning = _devices(config)
    encoder = encoder or create(config.encoder, config.weights, config.stride)
    compute = resolve_compute(config.compute, device, encoder)
    encoder = encoder.to(planning, getattr(torch, compute))
    plan = make_plan(config, index, encoder, device=planning, compute=compute, measure=measure)
    return replace(plan, device=device)


def _devices(config: ExtractConfig) -> tuple[str, str]:
    """Of the forward passes, and of the few that planning needs: GPUs are left to the workers of Ray."""
    if config.backend != "ray":
        device = resolve_device(config.device)
        return device, device
    from .ray_run import forward_device

    return forward_device(config), "cpu"


def _check_own(config: ExtractConfig) -> None:
    if config.backend == "ray":
        raise ConfigError(
            "an encoder object stays in its process, the workers of Ray make their own.",
            where="backend=ray",
            fix="register it as an entry point (CONTRIBUTING.md) and name it, or use backend=local",
        )


def resolve_device(device: str) -> str:
    """`auto` = the first GPU where there is one.

    Raises:
        EncoderError: a GPU is asked for and there is none.
    """
    if device == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    if device != "cpu" and not torch.cuda.is_available():
        raise EncoderError(
            f"device={device} is not there.",
            where="device",
            why="torch sees no GPU",
            fix="`strata doctor` tells why; device=cpu works everywhere",
        )
    return device


def _declare(store: FeatureStore, plan: Plan, config: ExtractConfig) -> None:
    """Records first: catalog, splits, sets and the key stand before the first shard."""
    info = plan.encoder.info
    store.declare_key(plan.key, info.patch_size, info.depth)
    store.declare_preprocess(plan.key.preprocess, info.patch_size, info.stride)
    with exclusive(plan.root):
        _write_records(store.catalog, plan)
        keep_splits(plan.root, plan.splits)
        keep_sets(plan.root, plan.scenes, config, config.sets)
        declare_lists(plan.root)


def _write_records(catalog: Catalog, plan: Plan) -> None:
    """The records that the plan changes, and those that are not there.

    Raises:
        StoreError: another run changed one of them since it was planned.
    """
    for before, (bundle, views) in zip(plan.versions.before, plan.versions.updated, strict=True):
        if catalog.bundles.get(bundle.id, before) not in (before, bundle):
            raise StoreError(
                "another run changed scenes of the same bundle since this one was planned.",
                where=catalog.folder / f"{bundle.id}.json",
                why=f"it holds {first_few(dict.fromkeys(row.id for row in bundle.scenes))}",
                fix="run the same command again",
            )
        catalog.write(bundle, views)
    for part in plan.bundles:
        # Not only the new ones: since planning, another process may have removed an unused record.
        if part.new or part.bundle.id not in catalog.bundles:
            catalog.write(part.bundle, part.views)


def _print(summary: Summary, config: ExtractConfig, console: Console) -> None:
    say: Callable[..., None] = lambda text: console.print(text, highlight=False)  # noqa: E731
    tally = summary.tally
    say(
        f"{summary.key.folder}: {counted(summary.views, 'view')}, {summary.computed:,} computed, "
        f"{summary.reused:,} were there, {summary.bytes / 1e6:,.1f} MB written"
    )
    if summary.beside:
        say(f"{summary.beside:,} views were written by other runs meanwhile")
    if summary.computed:
        say(
            f"[dim]seconds of threads: decode {tally.decode_s:.1f}, encode {tally.encode_s:.1f}, "
            f"keep {tally.keep_s:.1f}, write {tally.write_s:.1f}; the encoder waited {tally.wait_s:.1f}[/dim]"
        )
    if summary.missing:
        say(f"{counted(summary.missing, 'view')} without features; `strata store info` has the reasons")
    if summary.failed:
        where = Path(config.store) / "runs" / f"{summary.run}.failed.jsonl"
        say(f"[red]{counted(summary.failed, 'view')} failed:[/red] {where}; retry=failed computes them again")
