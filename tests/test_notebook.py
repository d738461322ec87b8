"""The notebook of the docs runs from its first cell to its last, and shows what the stored one shows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[1] / "docs" / "results.ipynb"


def kinds(cells) -> list[list[str]]:
    """For each code cell, what it shows last: as HTML, as a drawing, as text."""
    shown = [cell["outputs"][-1] for cell in cells if cell["cell_type"] == "code"]
    return [sorted(at.get("data", {"printed": ""})) for at in shown]


def test_the_stored_notebook_shows_tables_and_drawings():
    cells = json.loads(PAGE.read_text())["cells"]
    assert {"text/html", "image/svg+xml", "printed"} <= {kind for at in kinds(cells) for kind in at}
    for cell in cells:
        assert all(output["output_type"] != "error" for output in cell.get("outputs", ()))
    first = next(cell for cell in cells if cell["cell_type"] == "code")
    assert "sparsest matching: level" in "".join(first["outputs"][-1]["data"]["text/html"])


@pytest.mark.extras
@pytest.mark.filterwarnings("ignore")
def test_it_runs_and_shows_the_same_kinds(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(PAGE, as_version=4)
    stored = kinds(notebook.cells)
    where = {"metadata": {"path": str(tmp_path)}}
    done = nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources=where).execute()
    assert kinds(done.cells) == stored
    assert (tmp_path / "largest-of-three" / "report.html").exists()
