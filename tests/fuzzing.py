"""Fuzzing: documents and bytes that are changed at random, and what a reader may do with them."""

from __future__ import annotations

import copy
import os
import signal
import sys
import tracemalloc
from collections.abc import Callable, Sized
from pathlib import Path
from typing import Any, TypeVar

import pytest
import strata
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strata.errors import StrataError

Result = TypeVar("Result")

# Besides four times the file: the reader's own objects, an error and its text.
FLOOR_BYTES = 1 << 20
HANG_S = 60
RUNS_CODE = (
    "os.system",
    "os.exec",
    "os.fork",
    "os.posix_spawn",
    "os.spawn",
    "pickle.find_class",
    "subprocess.Popen",
    "socket.connect",
)

NUMBERS = st.one_of(
    st.sampled_from([0, -1, 1, 2, 2**31 - 1, 2**31, 2**63 - 1, 2**64, 10**400, -(10**400)]),
    st.integers(-300, 300),
    st.floats(),
)
TEXTS = st.one_of(
    st.sampled_from(["", ".", "..", "../a", "/etc/passwd", "a\0b", "a/b", "__import__('os')", "\ud800"]),
    st.text(max_size=8),
    st.integers(200, 5000).map(lambda n: "x" * n),
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=6,
)


class Fuzz:
    """Runs one property many times, with changes drawn at random."""

    def __init__(self, cases: int, watch: Watch) -> None:
        self.cases, self.watch = cases, watch

    def __call__(self, holds: Callable[[st.DataObject], None]) -> None:
        # The few of every run are the same each time; the many are new.
        few = self.cases < 1000
        checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
        rules = settings(
            max_examples=self.cases,
            deadline=None,
            derandomize=few,
            database=None,
            report_multiple_bugs=False,
            suppress_health_check=checks,
        )
        rules(given(st.data())(holds))()

    def index(self, of: Sized) -> st.SearchStrategy[int]:
        """Where one of these is."""
        return st.integers(0, len(of) - 1)

    def document(self, data: st.DataObject, document: Any) -> Any:
        """The JSON document with one to four places replaced, removed, doubled or moved."""
        changed = copy.deepcopy(document)
        for _ in range(data.draw(st.integers(1, 4), label="edits")):
            places = list(_places(changed))
            if not places:
                return data.draw(VALUES)
            parent, key = places[data.draw(self.index(places), label="place")]
            kind = data.draw(st.sampled_from(["replace", "remove", "double", "move"]), label="kind")
            if kind == "replace":
                parent[key] = data.draw(VALUES, label="value")
            elif kind == "remove":
                del parent[key]
            elif kind == "double" and isinstance(parent, list):
                parent.append(copy.deepcopy(parent[key]))
            else:
                other, place = places[data.draw(self.index(places), label="from")]
                parent[key] = copy.deepcopy(other[place])
        return changed

    def bytes(self, data: st.DataObject, whole: bytes) -> bytes:
        """The bytes with one to four places changed, cut or repeated."""
        changed = bytearray(whole)
        for _ in range(data.draw(st.integers(1, 4), label="edits")):
            at = data.draw(st.integers(0, len(changed)), label="at")
            kind = data.draw(st.sampled_from(["flip", "number", "cut", "truncate", "repeat", "insert"]))
            if kind == "flip" and at < len(changed):
                changed[at] ^= 1 << data.draw(st.integers(0, 7))
            elif kind == "number":
                width = data.draw(st.sampled_from([1, 2, 4, 8]), label="width")
                edge = 1 << (8 * width)
                near = st.one_of(st.integers(-3, 300), st.integers(-3, 3).map(lambda d, e=edge: e // 2 + d))
                number = data.draw(near, label="number") % edge
                changed[at : at + width] = number.to_bytes(width, "little")
            elif kind == "cut":
                del changed[at : at + data.draw(st.integers(1, 64), label="bytes")]
            elif kind == "truncate":
                del changed[at:]
            elif kind == "repeat":
                changed[at:at] = changed[at : at + data.draw(st.integers(1, 64), label="bytes")]
            else:
                changed[at:at] = data.draw(st.binary(max_size=16), label="new")
        return bytes(changed)

    def read(self, read: Callable[[], Result], inside: Path, file_bytes: int) -> Result | None:
        """What `read` returns, or None where it raises an error of ours; anything else is a failure.

        Args:
            read: what is judged.
            inside: the only folder whose files it may open.
            file_bytes: it may take four times as much memory, and a floor.
        """
        most = 4 * file_bytes + FLOOR_BYTES
        result = self._judged(read, inside)
        if self.watch.peak > most:
            # Caches that are filled once, as that of codecs, are not the file's doing.
            result = self._judged(read, inside)
        assert self.watch.peak <= most, f"{self.watch.peak:,} bytes of memory"
        return result

    def _judged(self, read: Callable[[], Result], inside: Path) -> Result | None:
        result, said = None, ""
        with self.watch.over(inside):
            try:
                result = read()
            except StrataError as error:
                said = str(error)
        assert said or result is not None
        assert self.watch.forbidden == []
        return result


class Watch:
    """Sees what a reader does: memory, code that is run, files that are opened, and whether it ends."""

    def __init__(self) -> None:
        self.forbidden: list[str] = []
        self.peak = 0
        self._inside: str | None = None
        # What Python itself runs and reads.
        self._own = (
            sys.prefix,
            sys.base_prefix,
            *strata.__path__,
            os.path.realpath(strata.__path__[0]),
            "<frozen ",
            "/proc",
            "/dev/null",
        )
        sys.addaudithook(self._hook)

    def over(self, inside: Path) -> Watch:
        self._inside = str(inside)
        return self

    def __enter__(self) -> None:
        self.forbidden, self.peak = [], 0
        signal.signal(signal.SIGALRM, _hangs)
        signal.alarm(HANG_S)
        tracemalloc.start()

    def __exit__(self, *_: object) -> None:
        self.peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        signal.alarm(0)
        self._inside = None

    def _hook(self, event: str, args: tuple) -> None:
        if self._inside is None or event not in ("exec", "open", *RUNS_CODE) or _importing():
            return
        if event in RUNS_CODE or (event == "exec" and not args[0].co_filename.startswith(self._own)):
            self.forbidden.append(f"{event} {args}")
        elif event == "open" and isinstance(args[0], str | bytes | os.PathLike):
            path = os.path.realpath(os.fsdecode(args[0]))
            if not path.startswith((os.path.realpath(self._inside), *self._own)):
                self.forbidden.append(f"open {path}")


def _importing() -> bool:
    """Modules that are imported late run their code."""
    frame = sys._getframe()
    while frame := frame.f_back:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
    return False


def _hangs(*_: object) -> None:
    raise AssertionError(f"the reader has not come to an end in {HANG_S} s")


def _places(node: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    keys = list(node) if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    return [place for key in keys for place in ((node, key), *_places(node[key]))]


@pytest.fixture(scope="session")
def watch() -> Watch:
    return Watch()


@pytest.fixture(params=[pytest.param(40, id="few"), pytest.param(1000, id="many", marks=pytest.mark.slow)])
def fuzz(request: pytest.FixtureRequest, watch: Watch) -> Fuzz:
    """Forty cases in the quick run, a thousand in the slow one."""
    return Fuzz(request.param, watch)
