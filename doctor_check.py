"""One finding of `strata doctor`."""

from __future__ import annotations

from dataclasses import dataclass

OK, WARN, FAIL = "OK", "WARN", "FAIL"
GB = 1e9


@dataclass(frozen=True, kw_only=True)
class Check:
    """One finding: OK, WARN (something falls back) or FAIL (strata cannot work)."""

    name: str
    status: str
    found: str
    fix: str = ""
