"""Who is gone is told apart from who lives elsewhere under the same name."""

from __future__ import annotations

import os
import sys

import pytest
from strata.store import processes
from strata.store.processes import alive, dead, machine, owner


@pytest.fixture
def killed():
    """A process that has ended and that nobody has asked for its end."""
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    yield pid
    os.waitpid(pid, 0)


def test_a_process_that_ended_is_dead_before_anybody_asks(killed):
    if not os.path.exists(f"/proc/{killed}/stat"):
        pytest.skip(f"{sys.platform} has no /proc")
    assert not alive(killed)
    assert dead(f"{machine()}:{killed}")


def test_this_process_lives_and_no_number_beyond_all(killed):
    assert alive(os.getpid())
    assert not dead(owner())
    assert dead(f"{machine()}:999999999")
    assert not alive(10**30)


def test_containers_of_one_name_are_told_apart(monkeypatch):
    here, link = machine(), os.readlink
    monkeypatch.setattr(os, "readlink", lambda path: "pid:[1]" if "/ns/pid" in path else link(path))
    there = machine.__wrapped__()
    assert there != here
    assert [one.rpartition("_")[0] for one in (here, there)] == [here.rpartition("_")[0]] * 2
    # Its processes are not ours: whether they live, nobody here can tell.
    assert not dead(f"{there}:999999999")


def test_where_the_system_says_nothing_the_name_is_enough(monkeypatch):
    def refuse(*_):
        raise OSError

    monkeypatch.setattr(os, "readlink", refuse)
    monkeypatch.setattr(processes.Path, "read_text", refuse)
    assert machine.__wrapped__() == machine.__wrapped__()
    assert alive(os.getpid())
