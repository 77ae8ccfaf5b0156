"""Which process of which machine something belongs to, and whether that process still lives."""

from __future__ import annotations

import functools
import hashlib
import os
import re
import socket
from collections.abc import Callable
from pathlib import Path


@functools.cache
def machine() -> str:
    """The host's name, and six digits that tell apart what shares it: `node7_3fa9c1`.

    Containers of one machine may all have its name, and each counts its processes from 1: a writer in one
    is no dead process of the other. A machine that was started anew is another one, so that what it left
    behind is for `store gc`, which waits for it to be old.
    """
    namespace = _said(lambda: os.readlink("/proc/self/ns/pid"))
    start = _said(Path("/proc/sys/kernel/random/boot_id").read_text)
    inside = hashlib.sha256(f"{start} {namespace}".encode()).hexdigest()[:6]
    return f"{re.sub(r'[^A-Za-z0-9]', '_', socket.gethostname())}_{inside}"


def owner() -> str:
    """This process, for the records that it writes."""
    return f"{machine()}:{os.getpid()}"


def dead(owner: str) -> bool:
    """Whether it is a process of this machine that is gone; of others nobody here can tell."""
    host, _, pid = owner.rpartition(":")
    return host == machine() and pid.isdecimal() and not alive(int(pid))


def alive(pid: int) -> bool:
    """Whether this machine has a process of that number that has not ended."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    # A killed process keeps its number until somebody asks for its end, and in many containers nobody does.
    return not _said(Path(f"/proc/{pid}/stat").read_text).rpartition(")")[2].startswith(" Z")


def _said(ask: Callable[[], str]) -> str:
    """What the system says, and nothing where it has no such file."""
    try:
        return ask()
    except OSError:
        return ""
