"""`strata doctor` on Ray: whether the cluster that is named answers, and whether there is a token for it.

Nothing is started, and Ray itself is not imported.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

from .doctor_check import OK, WARN, Check

TIMEOUT_S = 2
PORT = 6379
CURRENT = Path("/tmp/ray/ray_current_cluster")  # where `ray start` writes its address
TOKEN_FILE = Path(".ray/auth_token")  # in the home folder


def check_cluster(environment: Mapping[str, str], current: Path = CURRENT) -> Check:
    """Whether something listens at RAY_ADDRESS; without one, Ray is not asked."""
    address = environment.get("RAY_ADDRESS", "")
    if not address or address == "local":
        return Check(name="Ray cluster", status=OK, found="no RAY_ADDRESS: a Ray of this machine is used")
    named = current.read_text().strip() if address == "auto" and current.is_file() else address
    try:
        host, port = host_and_port(named)
        socket.create_connection((host, port), timeout=TIMEOUT_S).close()
    except (OSError, ValueError) as error:
        return Check(
            name="Ray cluster",
            status=WARN,
            found=f"RAY_ADDRESS={address}: {error}",
            fix="start it (`ray start --head` on its head node), mend RAY_ADDRESS, or unset it",
        )
    return Check(name="Ray cluster", status=OK, found=f"{host}:{port} answers")


def check_token(environment: Mapping[str, str], home: Path) -> Check:
    """Whether there is a token, which clusters ask of every client unless they were started without."""
    places = {
        "RAY_AUTH_TOKEN": "RAY_AUTH_TOKEN" in environment,
        "RAY_AUTH_TOKEN_PATH": Path(environment.get("RAY_AUTH_TOKEN_PATH", "none:")).is_file(),
        f"~/{TOKEN_FILE}": (home / TOKEN_FILE).is_file(),
    }
    found = [place for place, there in places.items() if there]
    name, mode = "Ray token", environment.get("RAY_AUTH_MODE", "")
    if mode == "disabled":
        return Check(name=name, status=OK, found="RAY_AUTH_MODE=disabled: none is sent")
    if found:
        return Check(name=name, status=OK, found=f"in {found[0]}")
    fix = (
        "export RAY_AUTH_TOKEN to what `ray get-auth-token` prints on the head node; "
        "`ray get-auth-token --generate` makes a new one"
    )
    if environment.get("RAY_ADDRESS", "") in ("", "local"):
        return Check(name=name, status=OK, found="none; a cluster of several machines wants one", fix=fix)
    return Check(name=name, status=WARN, found="none, and the cluster will ask for one", fix=fix)


def check_ray(environment: Mapping[str, str], home: Path) -> Iterator[Check]:
    """The cluster and the token."""
    yield check_cluster(environment)
    yield check_token(environment, home)


def host_and_port(address: str) -> tuple[str, int]:
    """Of `host:6379`, `ray://host:10001`, `http://host:8265` or a bare host.

    Raises:
        ValueError: it is none of them.
    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    if not parts.hostname or address == "auto":
        raise ValueError(
            "no cluster was started on this machine" if address == "auto" else "it names no host"
        )
    known = {"ray": 10001, "http": 80, "https": 443}
    return parts.hostname, parts.port or known.get(parts.scheme, PORT)
