"""Ray, started or connected, and left again. The one file that imports it, and only when it is asked for."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ClusterError, StrataError

TOKEN = (
    "put the cluster's token into RAY_AUTH_TOKEN (`ray get-auth-token` prints it on the head node), "
    "or into ~/.ray/auth_token; RAY_AUTH_MODE=disabled only if the cluster was started so"
)
REACH = "`ray status` on the head node tells how the cluster is, `strata doctor` how this machine is"
OVERRULING = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
# Features never go through Ray: its store holds words and counters.
OBJECT_STORE_BYTES = 80 * 2**20
QUIET = {"log_to_driver": False, "namespace": "strata"}
ANSWER_S = 5.0


def cluster_address(address: str | None) -> str | None:
    """The cluster that is meant; None = a Ray of our own. Inside a Ray job, RAY_ADDRESS names its cluster."""
    return address or os.environ.get("RAY_ADDRESS") or None


@contextmanager
def session(address: str | None = None, cpus: int | None = None) -> Iterator[Any]:
    """The module `ray`, connected for the time of the context; inside another session, that one.

    Args:
        address: auto, host:port or ray://host:port; None = RAY_ADDRESS, else a Ray of our own.
        cpus: that a Ray of our own offers; None = those of the machine.

    Raises:
        ClusterError: Ray is not installed, cannot be started or reached, or wants a token.
    """
    ray = _imported()
    address = cluster_address(address)
    if ray.is_initialized():
        yield ray
    elif address is None:
        with own_session(cpus) as ray:
            yield ray
    else:
        try:
            with _told(address):
                _connect(ray, address)
            yield ray
        finally:
            ray.shutdown()


@contextmanager
def own_session(cpus: int | None = None) -> Iterator[Any]:
    """The module `ray`, with a Ray that lives in a folder of its own, and as long as the context.

    Raises:
        ClusterError: Ray is not installed, or cannot be started.
    """
    ray, folder = _imported(), _short_folder()
    try:
        with _told("this machine"):
            _start(ray, folder, cpus)
        yield ray
    finally:
        ray.shutdown()
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def jobs(address: str | None) -> Iterator[Any]:
    """Ray's `JobSubmissionClient`; what it raises inside the context is told as ours.

    Args:
        address: of the dashboard, as http://host:8265; None = RAY_API_SERVER_ADDRESS, RAY_ADDRESS, else the
            cluster of this machine.

    Raises:
        ClusterError: the dashboard is out of reach, wants a token, or refuses.
    """
    _imported()
    from ray.job_submission import JobSubmissionClient

    where = address or "the dashboard of this machine's cluster"
    if address is not None and "://" not in address:
        address = f"http://{address}"
    with _told(where), _address_wins(address):
        client = JobSubmissionClient(address)
    with _told(where):
        yield client


@contextmanager
def _address_wins(address: str | None) -> Iterator[None]:
    """Ray lets the environment overrule the address that it is given."""
    hidden = {name: os.environ.pop(name, None) for name in OVERRULING} if address else {}
    try:
        yield
    finally:
        os.environ.update({name: value for name, value in hidden.items() if value is not None})


def _connect(ray: Any, address: str) -> None:
    # Ray would try for minutes where nobody listens.
    place = address.partition("://")[2] or address
    host, _, port = place.partition("/")[0].rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), ANSWER_S).close()
    # A client of ray:// cannot say how much is logged.
    quiet = QUIET if address.startswith("ray://") else {**QUIET, "logging_level": "error"}
    ray.init(address=address, **quiet)


def _start(ray: Any, folder: Path, cpus: int | None) -> None:
    # A token of its own keeps others out, and Ray from writing one into the home folder.
    if not _has_token():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        logging_level="error",
        _temp_dir=str(folder),
        **QUIET,
    )


def _has_token() -> bool:
    named = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return named or (Path.home() / ".ray" / "auth_token").exists()


def _short_folder() -> Path:
    """Ray puts sockets there, whose paths may have 107 bytes: a long TMPDIR would leave no room."""
    parent = "/tmp" if os.access("/tmp", os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="strata-ray-", dir=parent))


def _imported() -> Any:
    # Before the import, which reads them. Without the mode Ray would not send the token that it has.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if _has_token():
        os.environ.setdefault("RAY_AUTH_MODE", "token")
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "Ray does not import.", where="backend=ray", why=str(error), fix="pip install 'ray[default]'"
        ) from error
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


@contextmanager
def _told(where: str) -> Iterator[None]:
    try:
        yield
    except StrataError:
        raise
    except Exception as error:  # Ray raises whatever it met: sockets, HTTP, its own kinds
        raise _refused(error, where) from error


def _refused(error: Exception, where: str) -> ClusterError:
    kind, why = type(error).__name__, " ".join(str(error).split())[:300]
    if "authentication" in f"{kind} {why}".lower():
        what, fix = "the cluster wants a token, and was given none or another one.", TOKEN
    elif "status code 404" in why:
        what, fix = "the cluster does not know that job.", "`strata submit status` lists the jobs"
    else:
        what = "Ray cannot be started or reached, or refuses."
        fix = REACH if _has_token() else f"{REACH}; if it wants a token: {TOKEN}"
    return ClusterError(what, where=where, why=f"{kind}: {why}", fix=fix)
