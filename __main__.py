"""`python -m strata` and the script `strata`."""

from __future__ import annotations

from .cli import app


def main() -> None:
    """Run the command line and leave with its exit code."""
    app(prog_name="strata")


if __name__ == "__main__":
    main()
