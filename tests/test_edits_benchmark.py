"""The benchmark of edits, on a few cases: its page has every table."""

import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "edits.py"
FEW = "--pictures 5 --cases 2 --per-edit 1 --policies 3 --others 2 --labelled 40"


@pytest.mark.slow
def test_every_table_is_on_the_page(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("edits", SCRIPT)
    edits = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(edits)
    monkeypatch.setattr(edits, "PAGE", tmp_path / "EDITS.md")
    arguments = [*FEW.split(), "--model", "base=nano", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["benchmarks/edits.py", *arguments])
    edits.main()
    page = (tmp_path / "EDITS.md").read_text(encoding="utf-8")
    assert page.count("| base | whole |") == 1 and "of 3 |" in page
    assert all(f"| {edit} |" in page for edit in edits.squares.EDITS)
    assert "| the same again | 0 |" in page  # a second run asks nothing
