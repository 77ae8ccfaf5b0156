"""Deterministic tar bytes: the same members give the same file on every machine, at any time.

A member is a header, its data, and zeros up to a whole block of 512 bytes. Headers are plain ustar
with mode 0644, no owner and time 0; a name of more than 100 characters or a member beyond 8 GiB has
one PAX header in front.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator

BLOCK = 512
END_OF_TAR = bytes(2 * BLOCK)


def tar_header(name: str, size: int) -> bytes:
    """The header of a member with an ASCII name and `size` bytes of data."""
    info = tarfile.TarInfo(name)
    info.size = size
    return info.tobuf(tarfile.PAX_FORMAT, "ascii", "strict")


def tar_padding(size: int) -> bytes:
    """The zeros behind `size` bytes of data."""
    return bytes(-size % BLOCK)


def tar_member_bytes(name: str, size: int) -> int:
    """What a member takes in the file."""
    return len(tar_header(name, size)) + size + len(tar_padding(size))


def tar_layout(members: Iterable[tuple[str, int]]) -> tuple[dict[str, int], int]:
    """Where the data of each (name, size) begins, by name, and the bytes of the whole file."""
    offsets, end = {}, 0
    for name, size in members:
        offsets[name] = end + len(tar_header(name, size))
        end += tar_member_bytes(name, size)
    return offsets, end + len(END_OF_TAR)


def tar_chunks(members: Iterable[tuple[str, bytes]]) -> Iterator[bytes]:
    """The bytes of a tar file of (name, data), a piece at a time."""
    for name, data in members:
        yield tar_header(name, len(data))
        yield data
        yield tar_padding(len(data))
    yield END_OF_TAR
