"""Ray, started or connected, and left again. The one file that imports it, and only when it is asked for."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from ..errors import ClusterError

T = TypeVar("T")

TOKEN = (
    "put the cluster's token into RAY_AUTH_TOKEN (`ray get-auth-token` prints it on the head node), "
    "or into ~/.ray/auth_token; RAY_AUTH_MODE=disabled only if the cluster was started so"
)
# Features never go through Ray: its store holds words and counters.
OBJECT_STORE_BYTES = 80 * 2**20
QUIET = {"log_to_driver": False, "logging_level": "error", "namespace": "strata"}


def cluster_address(address: str | None) -> str | None:
    """The cluster that is meant; None = a Ray of our own. Inside a Ray job, RAY_ADDRESS names its cluster."""
    return address or os.environ.get("RAY_ADDRESS") or None


@contextmanager
def session(address: str | None = None, cpus: int | None = None) -> Iterator[Any]:
    """The module `ray`, connected for the time of the context; inside of another session that one.

    Args:
        address: auto, host:port or ray://host:port; None = RAY_ADDRESS, else a Ray that lives in a folder
            of its own, and as long as the context.
        cpus: that the own Ray offers; None = those of the machine.

    Raises:
        ClusterError: Ray is not installed, cannot be started or reached, or wants a token.
    """
    ray = _imported()
    if ray.is_initialized():
        yield ray
        return
    address = cluster_address(address)
    folder = None if address else _short_folder()
    try:
        if folder is None:
            _guarded(lambda: ray.init(address=address, **QUIET), str(address))
        else:
            _guarded(lambda: _start(ray, folder, cpus), "this machine")
        yield ray
    finally:
        ray.shutdown()
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)


def jobs_client(address: str | None) -> Any:
    """Ray's `JobSubmissionClient`.

    Raises:
        ClusterError: the cluster's dashboard is out of reach, or wants a token.
    """
    _imported()
    from ray.job_submission import JobSubmissionClient

    return _guarded(
        lambda: JobSubmissionClient(address), address or "the dashboard of this machine's cluster"
    )


def asked(call: Callable[[], T], where: str) -> T:
    """What a call of the jobs client answers.

    Raises:
        ClusterError: the cluster refuses.
    """
    return _guarded(call, where)


def _start(ray: Any, folder: Path, cpus: int | None) -> None:
    # A token of its own keeps others out, and Ray from writing one into the home folder.
    if "RAY_AUTH_TOKEN_PATH" not in os.environ and not (Path.home() / ".ray" / "auth_token").exists():
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    ray.init(
        address="local",
        num_cpus=cpus,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=str(folder),
        **QUIET,
    )


def _short_folder() -> Path:
    """Ray puts sockets there, whose paths may have 107 bytes: a long TMPDIR would leave no room."""
    parent = "/tmp" if os.access("/tmp", os.W_OK) else None
    return Path(tempfile.mkdtemp(prefix="strata-ray-", dir=parent))


def _imported() -> Any:
    # Before the import, which reads them.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            "Ray does not import.", where="backend=ray", why=str(error), fix="pip install 'ray[default]'"
        ) from error
    return ray


def _guarded(call: Callable[[], T], where: str) -> T:
    try:
        return call()
    except Exception as error:  # Ray raises whatever it met: sockets, HTTP, its own kinds
        why = str(error).strip().partition("\n")[0]
        raise _refused(type(error).__name__, why, where) from error


def _refused(kind: str, why: str, where: str) -> ClusterError:
    if kind == "AuthenticationError" or "uthentication" in why:
        return ClusterError(
            "the cluster wants a token that it was not given.", where=where, why=why, fix=TOKEN
        )
    return ClusterError(
        "Ray cannot be started or reached, or refuses.",
        where=where,
        why=f"{kind}: {why}",
        fix="`ray status` on the cluster, or leave the address out; `strata doctor` looks at this machine",
    )
