"""Progress off a terminal: lines by the clock, counters added up, rates of this run."""

from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor

import pytest
from rich.console import Console
from strata.progress import Progress, duration


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def lines(console: Console) -> list[str]:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_a_line_every_half_minute_and_one_at_the_end(console: Console, clock: Clock):
    with Progress(console, "extract", total=100, clock=clock) as progress:
        for _ in range(30):
            clock.now_s += 1
            progress.advance(2, failed=1)
        for _ in range(20):
            clock.now_s += 1.5
            progress.advance(2, failed=1)
    assert lines(console) == [
        "extract: 60 of 100 views (60%), 2.0 views/s, 30 failed, 20.0 s left",
        "extract: 100 views in 1 min 0 s, 1.7 views/s, 50 failed",
    ]


def stopped_after_one(progress: Progress, clock: Clock) -> None:
    with progress:
        clock.now_s += 4
        progress.advance()
        raise KeyboardInterrupt


def test_the_last_line_says_when_it_was_stopped(console: Console, clock: Clock):
    with pytest.raises(KeyboardInterrupt):
        stopped_after_one(Progress(console, "pack", 10, unit="scenes", clock=clock), clock)
    assert lines(console) == ["pack: stopped at 1 of 10 scenes in 4.0 s, 0.2 scenes/s"]


def test_a_value_is_shown_beside_the_counts(console: Console, clock: Clock):
    with Progress(console, "train", 2, unit="steps", clock=clock) as progress:
        for loss in ("loss 0.5", "loss 0.25"):
            clock.now_s += 1
            progress.show(loss)
            progress.advance()
    assert lines(console) == ["train: 2 steps in 2.0 s, 1.0 steps/s, loss 0.25"]


def test_nothing_to_do_is_no_division_by_zero(console: Console, clock: Clock):
    with Progress(console, "extract", total=0, clock=clock):
        pass
    assert lines(console) == ["extract: nothing was left to do"]


def test_notes_are_printed_as_they_are(console: Console, clock: Clock):
    with Progress(console, "extract", total=1, clock=clock) as progress:
        progress.note("batch [bold]8[/bold] halved")
    assert lines(console)[0] == "batch [bold]8[/bold] halved"


def test_no_step_of_many_threads_is_lost(console: Console, clock: Clock):
    with Progress(console, "extract", total=4000, clock=clock) as progress, ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: progress.advance(1, read=2), range(4000)))
    assert lines(console)[-1].startswith("extract: 4,000 views in 0.0 s, 0.0 views/s, 8,000 read")


def test_a_terminal_gets_a_bar_and_the_same_last_line(clock: Clock):
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    with Progress(console, "extract", total=2, clock=clock) as progress:
        clock.now_s += 1
        progress.advance(2, failed=1)
    assert "2 of 2" in "\n".join(lines(console))
    assert lines(console)[-1].endswith("extract: 2 views in 1.0 s, 2.0 views/s, 1 failed")


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.24, "4.2 s"), (200, "3 min 20 s"), (7500, "2 h 5 min"), (59.99, "1 min 0 s")]
)
def test_durations_are_read_at_a_glance(seconds: float, text: str):
    assert duration(seconds) == text
