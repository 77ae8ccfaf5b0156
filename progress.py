"""How far a long piece of work is: a bar on a terminal, else a plain line every half minute.

Rates and times count what this run did, so a resumed run gives as `total` what was left to do.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

LINE_EVERY_S = 30.0


class Progress:
    """Counts items and shows how many there are, how fast they come and how long the rest takes.

        with Progress(console, "extract", total=1880) as progress:
            progress.advance(8, failed=1)

    It may be advanced from any thread.

    Args:
        console: where it is shown.
        title: one word for the work.
        total: items to do.
        unit: what the items are, in the plural.
        clock: seconds that only grow.
    """

    def __init__(
        self,
        console: Console,
        title: str,
        total: int,
        unit: str = "views",
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._title, self._total, self._unit, self._clock = console, title, total, unit, clock
        self._lock = threading.Lock()
        self._done = 0
        self._counters: dict[str, float] = {}
        self._shown = ""
        self._start_s = self._line_s = clock()
        self._bar = _bar(console) if console.is_terminal else None

    def __enter__(self) -> Progress:
        self._start_s = self._line_s = self._clock()
        if self._bar is not None:
            self._bar.start()
            self._bar.add_task(self._title, total=self._total, said="")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: Any) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._say(self._last_line(stopped=kind is not None))

    def advance(self, n: int = 1, **counters: float) -> None:
        """`n` more items are done; numbers given by name are added up and shown beside them."""
        with self._lock:
            self._done += n
            for name, value in counters.items():
                self._counters[name] = self._counters.get(name, 0) + value
            if self._bar is not None:
                self._bar.update(self._bar.task_ids[0], completed=self._done, said=self._counts())
            elif self._done < self._total and self._clock() - self._line_s >= LINE_EVERY_S:
                self._line_s = self._clock()
                self._say(self._line())

    def show(self, text: str) -> None:
        """Put `text` beside the counts from the next advance on: a value that is no sum, such as a loss."""
        with self._lock:
            self._shown = text

    def note(self, text: str) -> None:
        """Say something above the bar."""
        self._say(text)

    def _say(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    @property
    def _elapsed_s(self) -> float:
        return self._clock() - self._start_s

    @property
    def _rate(self) -> float:
        return self._done / self._elapsed_s if self._elapsed_s > 0 else 0.0

    def _counts(self) -> str:
        """`41.2 views/s, 2 failed, loss 0.31`."""
        counted = [f"{value:,.4g} {name}" for name, value in self._counters.items()]
        shown = [self._shown] if self._shown else []
        return ", ".join([f"{self._rate:,.1f} {self._unit}/s", *counted, *shown])

    def _line(self) -> str:
        left = f", {duration((self._total - self._done) / self._rate)} left" if self._rate else ""
        share = f" ({self._done / self._total:.0%})" if self._total else ""
        return f"{self._title}: {self._done:,} of {self._total:,} {self._unit}{share}, {self._counts()}{left}"

    def _last_line(self, stopped: bool) -> str:
        if not (self._total or self._done or stopped):
            return f"{self._title}: nothing was left to do"
        done = f"stopped at {self._done:,} of {self._total:,}" if stopped else f"{self._done:,}"
        unit = self._unit.removesuffix("s") if (self._total if stopped else self._done) == 1 else self._unit
        return f"{self._title}: {done} {unit} in {duration(self._elapsed_s)}, {self._counts()}"


def duration(seconds: float) -> str:
    """`4.2 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    return f"{minutes} min {rest_s} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _bar(console: Console) -> Bar:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f} of {task.total:,.0f}  {task.fields[said]}"),
        TimeRemainingColumn(),
    )
    return Bar(*columns, console=console, transient=True)
