"""Who writes which unit: told while its process lives, and never in the way of the work."""

from __future__ import annotations

import errno
import os
from datetime import UTC, datetime

import pytest
from strata.errors import StoreError
from strata.store import taken_units
from strata.store.atomic import write_json
from strata.store.taken_units import TakenUnits

A, B, C = ("features/k/b/norm", 0), ("features/k/b/norm", 1), ("points/p/b", 0)


@pytest.fixture
def root(tmp_path):
    """A store with two runs that live."""
    write_json(tmp_path / "zarr.json", {})
    for name in ("one", "two"):
        beat(tmp_path, name)
    return tmp_path


def beat(root, name, **changes):
    now = datetime.now(UTC).isoformat()
    write_json(root / "runs" / f"{name}.json", {"state": "running", "heartbeat": now, **changes})


def test_what_one_takes_the_other_is_told_of(root):
    with TakenUnits(root, "one") as one, TakenUnits(root, "two") as two:
        assert one.take([A, B]) == ["", ""]
        assert two.take([B, C]) == ["one", ""]
        assert one.take([A, C]) == ["", "two"]
        one.give_back(B)
        one.take([])
        assert two.take([A, B]) == ["one", ""]
    assert (root / "runs" / ".units").read_bytes() == b""
    assert list(root.glob("runs/*.taking")) == []


def test_who_is_gone_holds_nothing(root):
    with TakenUnits(root, "two") as two:
        with TakenUnits(root, "one") as one:
            one.take([A])
            assert two.take([A]) == ["one"]
            beat(root, "one", state="interrupted")
            assert two.take([A]) == [""]
            beat(root, "one")
            one.take([B])
            assert two.take([B]) == ["one"]
            # What the end of a process does.
            os.close(one._handle)
            one._handle = None
        assert two.take([B]) == [""]
        assert len(list(root.glob("runs/*.taking"))) == 2
        with TakenUnits(root, "one"):
            assert len(list(root.glob("runs/*.taking"))) == 2  # that of the dead was removed


def test_lines_that_a_crash_cut_are_nobodys(root):
    (root / "runs" / ".units").write_bytes(b'["../one", "features/k/b/norm", 0]\n\xff[1]\n["one@x", "fea')
    with TakenUnits(root, "two") as two:
        assert two.take([A]) == [""]


def test_without_locks_nothing_is_taken(root, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(taken_units.fcntl, "flock", refuse)
    with TakenUnits(root, "one") as one, TakenUnits(root, "two") as two:
        assert one.take([A]) == two.take([A]) == [""]
        one.give_back(A)
    assert list(root.glob("runs/*.taking")) == []


def test_nothing_is_written_where_the_store_was(root):
    with TakenUnits(root, "one") as one:
        (root / "zarr.json").unlink()
        with pytest.raises(StoreError, match="not there any more"):
            one.take([A])
