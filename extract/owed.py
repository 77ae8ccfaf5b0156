"""Which units of a group are still to be written."""

from __future__ import annotations

from collections.abc import Collection

from ..store.writer import GroupWriter, any_spec


def owed_units(writer: GroupWriter, retry: Collection[int] = ()) -> list[int]:
    """Units that are missing; of a visible group those with rows that are to be computed again.

    Args:
        writer: of the group.
        retry: rows of the bundle that failed.
    """
    if retry and writer.committed and writer.spec.by_unit:
        return sorted({row // any_spec(writer.spec).unit for row in retry})
    return writer.missing_units()
