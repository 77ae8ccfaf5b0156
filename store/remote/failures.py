"""What goes wrong on the way to a store elsewhere, told so that it can be mended.

Every kind of place raises exceptions of its own library. They are told apart by the names of their classes,
so that no library is imported for an error that did not happen.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from ...errors import ConfigError, RemoteError, StrataError

_CREDENTIALS = ("NoCredentials", "CredentialRetrieval", "PartialCredentials", "NoAuthToken")
_UNREACHABLE = ("Connect", "Timeout", "Disconnected", "gaierror", "EndpointConnection")
_OPTIONS = (
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_ENDPOINT_URL, ~/.aws, or FSSPEC_S3_ANON=true for a "
    "public bucket"
)


@contextlib.contextmanager
def explained(where: object) -> Iterator[None]:
    """Turn what a library raises into a `RemoteError`; a missing file stays FileNotFoundError.

    Raises:
        RemoteError: the place cannot be reached, or may not be read.
    """
    try:
        yield
    except (FileNotFoundError, StrataError):
        raise
    except Exception as error:
        raise _explained(error, where) from error


def no_such_place(error: Exception, url: str) -> ConfigError:
    """A URL that no installed library opens."""
    missing = isinstance(error, ImportError)
    return ConfigError(
        "the package for this kind of URL is not installed." if missing else "the URL is not understood.",
        where=url,
        why=str(error),
        fix="pip install 'strata3d[remote]' for S3 and https, else what is named above"
        if missing
        else "write s3://bucket/feats.zarr or https://...",
    )


def refused(error: BaseException | None) -> bool:
    """Whether asking again would be answered the same way: who asks is not known, or has no right to."""
    denied = isinstance(error, PermissionError) or getattr(error, "status", None) in (401, 403)
    return denied or _is(error, _CREDENTIALS)


def _explained(error: Exception, where: object) -> RemoteError:
    why = f"{type(error).__name__}: {error}".strip(": ")
    if refused(error):
        none = _is(error, _CREDENTIALS)
        what = "there are no credentials for this place." if none else "the place refuses these credentials."
        return RemoteError(what, where=where, why=why, fix=f"set {_OPTIONS}")
    if _is(error, _UNREACHABLE):
        fix = "check the address (of S3: AWS_ENDPOINT_URL) and the network, and run the command again"
        return RemoteError("the place cannot be reached.", where=where, why=why, fix=fix)
    return RemoteError("the place answered with an error.", where=where, why=why, fix="run the command again")


def _is(error: BaseException | None, marks: tuple[str, ...]) -> bool:
    return any(mark in kind.__name__ for mark in marks for kind in type(error).__mro__)
