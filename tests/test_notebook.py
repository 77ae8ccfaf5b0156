"""The notebook of docs/ runs from its first cell to its last, and shows its pictures."""

from __future__ import annotations

import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config


def test_the_notebook_runs(root: Path, tmp_path: Path):
    notebook = nbformat.read(root / "docs" / "query_the_store.ipynb", as_version=4)
    shown = pictures(notebook)
    assert shown == 2
    # Sockets in a folder instead of ports, which others may take; their paths have to be short.
    with tempfile.TemporaryDirectory() as sockets:
        config = Config(AsyncKernelManager={"transport": "ipc", "ip": f"{sockets}/kernel"})
        client = NotebookClient(
            notebook,
            timeout=600,
            startup_timeout=300,
            config=config,
            resources={"metadata": {"path": str(tmp_path)}},
        )
        client.execute()
    assert pictures(notebook) == shown
    assert (tmp_path / "exported" / "export.json").exists()


def pictures(notebook: nbformat.NotebookNode) -> int:
    outputs = (output for cell in notebook.cells for output in cell.get("outputs", ()))
    return sum("image/png" in output.get("data", {}) for output in outputs)
