"""`python -m strata` and the script `strata`."""

from __future__ import annotations

import os

from .cli import app


def main() -> None:
    """Run the command line and leave with its exit code."""
    # On shared cores, threads that spin between small torch operations make a probe four times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app(prog_name="strata")


if __name__ == "__main__":
    main()
