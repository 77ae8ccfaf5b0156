"""The one training loop of the project; it knows no task.

    out/checkpoints/    see checkpoint.py
        log.jsonl       one row per step and per validation
        run.json        options, versions, the command
        pictures/epoch-0003/    what the task draws
        curves.png  curves.html

The same call continues a run that ended early, from its newest checkpoint: on one CPU process with the same
parameters, bit for bit, as if it had never ended.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from rich.console import Console

from ..configs.schema import FitOptions
from ..errors import TrainError
from ..progress import Progress
from .batch import Batch
from .checkpoint import Checkpoints, load_model, load_optimiser
from .curves import write_curves
from .distributed import Shard, joined, same_everywhere
from .epochs import epoch_batches, steps_of_an_epoch
from .fit_options import check_options, resolve_precision
from .freeze import freeze
from .position import Best, better, finite
from .resume import Continued, continued
from .run_folder import RunFolder
from .schedule import rate
from .seeding import seed_step
from .step import Outcome, Stepper
from .stop import StopRequest, stop_requests
from .task import Task


@dataclass(frozen=True, kw_only=True)
class Fitted:
    """What a finished run left.

    Attributes:
        checkpoint: the last one; its model is `checkpoint / "model.safetensors"`.
        best_checkpoint: of the best epoch, where `best=` names a metric.
        step: batches that were done.
        metrics: of the last validation; None where one was not finite.
        best: value and step of the best epoch.
    """

    checkpoint: Path
    best_checkpoint: Path | None
    step: int
    metrics: dict[str, float | None]
    best: Best | None


def fit(task: Task, config: FitOptions, console: Console, *, command: str = "") -> Fitted:
    """Train the task's model in place, or go on with it where an earlier call ended.

    Args:
        task: model, data, loss.
        config: the options; a task's own schema extends `FitOptions`.
        console: for people.
        command: that runs this again, for provenance and for the line that says how to go on.

    Raises:
        ConfigError: an option cannot be meant, or a glob fits nothing.
        TrainError: the folder holds another run, too many steps were not finite, or memory is too small.
        KeyboardInterrupt: Ctrl-C or SIGTERM; a checkpoint was written.
    """
    check_options(config)
    with joined(config.device) as (shard, device), stop_requests() as stop:
        said = console if shard.leads else Console(quiet=True)
        with _Run(task, config, said, command, shard, device, stop) as run:
            return run.to_the_end()


class _Run:
    """One process's part of a run."""

    def __init__(
        self,
        task: Task,
        config: FitOptions,
        console: Console,
        command: str,
        shard: Shard,
        device: torch.device,
        stop: StopRequest,
    ) -> None:
        self._task, self._config, self._console, self._command = task, config, console, command
        self._shard, self._device, self._stop = shard, device, stop
        self._folder: RunFolder | None = None  # of the process that writes
        if device.type == "cuda":
            torch.set_float32_matmul_precision("high" if config.tf32 else "highest")
        self._precision = resolve_precision(config.precision, device)
        self._out = Path(config.out)
        self._checkpoints = Checkpoints(folder=self._out / "checkpoints", keep=config.keep)
        self._steps = steps_of_an_epoch(task, config, shard)
        task.model.to(device)
        freeze(task.model, config.freeze)

    def __enter__(self) -> _Run:
        found = continued(self._checkpoints, self._config, self._task, self._precision, self._shard)
        self._at = found.position
        self._stepper = Stepper(
            self._task,
            self._config,
            precision=self._precision,
            device=self._device,
            shard=self._shard,
            halved=self._at.halved,
            notice=self._say,
        )
        self._restore(found)
        self._identity = found.identity
        if self._shard.leads:
            planned = self._config.epochs * self._steps
            self._folder = RunFolder(self._out, self._config, self._at, self._command, planned)
            if found.path:
                self._checkpoints.settle(self._best_step())
        self._introduce(found)
        return self

    def __exit__(self, *_: object) -> None:
        if self._folder:
            self._folder.close()

    def to_the_end(self) -> Fitted:
        """Train what is left."""
        left = self._config.epochs * self._steps - self._at.step
        if self._config.validate_first and not self._at.step:
            self._validate(0)
        if self._at.epochs < self._config.epochs:
            with Progress(self._console, "train", max(left, 0), "steps") as self._progress:
                while self._at.epochs < self._config.epochs:
                    self._epoch()
                    self._end_epoch()
        self._draw()
        return self._fitted()

    def _restore(self, found: Continued) -> None:
        model, stepper = self._task.model, self._stepper
        if found.path is None:
            same_everywhere([*model.parameters(), *model.buffers()], self._shard)
            return
        load_model(found.path, model)
        load_optimiser(found.path, model, stepper.optimiser)
        stepper.scaler.load_state_dict(dict(found.scaler))

    def _introduce(self, found: Continued) -> None:
        parameters = list(self._task.model.parameters())
        trained = sum(p.numel() for p in parameters if p.requires_grad)
        self._say(
            f"train: {trained:,} of {sum(p.numel() for p in parameters):,} parameters, "
            f"{self._config.epochs:,} epochs of {self._steps:,} steps, {self._precision} on {self._device}"
            + (f" in {self._shard.count} processes" if self._shard.count > 1 else "")
        )
        for line in found.notices:
            self._say(line)

    def _epoch(self) -> None:
        """The steps of the epoch that are left."""
        done, end = self._at.epochs * self._steps, (self._at.epochs + 1) * self._steps
        every = self._config.checkpoint_every or end
        self._task.model.train()
        start = self._at.step - done
        with epoch_batches(self._task, self._at.epochs, start, self._steps, self._shard) as batches:
            while self._at.step < end:
                outcome = self._step(batches)
                if outcome.asked_to_stop:
                    self._leave()
                if self._at.step % every == 0 and self._at.step < end:
                    self._checkpoint()

    def _step(self, batches: Iterator[Batch]) -> Outcome:
        seed_step(self._config.seed, self._at.step, self._shard)
        start_s = time.perf_counter()
        batch = next(batches)
        wait_s = time.perf_counter() - start_s
        learning_rate = self._rate()
        outcome = self._stepper.step(batch, learning_rate, lambda: self._stop.asked)
        bad = self._at.bad + 1 if outcome.bad else self._at.bad if outcome.skipped else 0
        self._at = replace(
            self._at,
            step=self._at.step + 1,
            items=self._at.items + outcome.items,
            bad=bad,
            halved=self._stepper.halved,
        )
        self._record(outcome, learning_rate, time.perf_counter() - start_s, wait_s)
        if bad >= self._config.bad_steps:
            raise self._no_way_on(outcome)
        return outcome

    def _rate(self) -> float:
        c = self._config
        progress = self._at.step / (c.epochs * self._steps)
        return rate(progress, peak=c.lr, floor=c.lr_min, warmup=c.warmup)

    def _record(self, outcome: Outcome, learning_rate: float, step_s: float, wait_s: float) -> None:
        if self._folder:
            self._folder.step(self._at, outcome, learning_rate, step_s, wait_s)
        if outcome.skipped:
            self._say(f"step {self._at.step:,} is skipped: {outcome.skipped}")
        self._progress.show(f"loss {outcome.values['loss']:.4g}, lr {learning_rate:.2g}")
        self._progress.advance()

    def _end_epoch(self) -> None:
        """Validation, pictures, checkpoint."""
        epochs, last = self._at.epochs + 1, self._at.epochs + 1 >= self._config.epochs
        if last or epochs % self._config.validate_every == 0:
            self._validate(epochs)
        every = self._config.pictures_every
        if every and self._shard.leads and (last or epochs % every == 0):
            folder = self._out / "pictures" / f"epoch-{epochs:04d}"
            folder.mkdir(parents=True, exist_ok=True)
            self._task.model.eval()
            with torch.no_grad(), self._stepper.autocast():
                self._task.pictures(self._task.model, epochs, folder)
        self._at = replace(self._at, epochs=epochs)
        self._checkpoint()

    def _validate(self, epochs: int) -> None:
        self._task.model.eval()
        with torch.no_grad(), self._stepper.autocast():
            metrics = self._task.validate(self._task.model, self._shard)
        kept, best = finite(metrics), self._config.best
        if best and epochs:  # what was before the first step has no checkpoint
            self._at = replace(self._at, best=better(best, kept, self._at.step, self._at.best))
        self._at = replace(self._at, metrics=kept)
        if metrics and self._folder:
            self._folder.validation(self._at.step, epochs, metrics)
            # Names with a slash are of parts: too many for a line.
            told = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items() if "/" not in name)
            self._say(f"epoch {epochs:,} of {self._config.epochs:,}: {told}")

    def _checkpoint(self) -> None:
        if not self._folder:
            return
        self._at = replace(self._at, log_bytes=self._folder.settle())
        document = {
            "position": dataclasses.asdict(self._at),
            "scaler": self._stepper.scaler.state_dict(),
            "identity": self._identity,
            "options": dataclasses.asdict(self._config),
        }
        model, optimiser = self._task.model, self._stepper.optimiser
        self._checkpoints.save(self._at.step, model, optimiser, document, self._best_step())

    def _best_step(self) -> int | None:
        return self._at.best.step if self._at.best else None

    def _leave(self) -> None:
        """End early, as somebody asked."""
        self._checkpoint()
        self._draw()
        again = f": {self._command}" if self._command else ""
        self._say(
            f"stopped after step {self._at.step:,} of {self._config.epochs * self._steps:,}; "
            f"the same command goes on from there{again}"
        )
        raise KeyboardInterrupt

    def _no_way_on(self, outcome: Outcome) -> TrainError:
        return TrainError(
            f"{self._at.bad} steps in a row were skipped.",
            where=f"step {self._at.step:,}",
            why=outcome.skipped,
            fix=f"{self._out / 'log.jsonl'} has every step; try a lower lr=, a longer warmup= or "
            "precision=float32 with another out=",
        )

    def _draw(self) -> None:
        if self._folder and self._config.curves:
            write_curves(self._out)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _fitted(self) -> Fitted:
        best = self._at.best
        return Fitted(
            checkpoint=self._checkpoints.path(self._at.step),
            best_checkpoint=self._checkpoints.path(best.step) if best else None,
            step=self._at.step,
            metrics=self._at.metrics,
            best=best,
        )
