"""What was measured on each of several held-out datasets, as a table for people."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table

ALL = "all sets"


def show_datasets(metrics: Mapping[str, float | None], console: Console) -> None:
    """Print the measures of the last validation: a row for each, a column for each dataset and for all sets.

    Nothing is printed where there are not several datasets.

    Args:
        metrics: `<measure>`, and `<dataset>/<measure>`.
    """
    columns: dict[str, dict[str, float | None]] = {}
    for name, value in metrics.items():
        dataset, _, measure = name.rpartition("/")
        columns.setdefault(dataset or ALL, {})[measure] = value
    if len(columns) < 2:
        return
    table = Table("held out", box=None, pad_edge=False)
    # Those of all sets come first in the metrics, and last in the table.
    datasets = [*(name for name in columns if name != ALL), ALL]
    for dataset in datasets:
        table.add_column(dataset, justify="right")
    for measure in columns[ALL]:
        table.add_row(measure, *(_text(columns[dataset].get(measure)) for dataset in datasets))
    console.print(table, markup=False, highlight=False)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
