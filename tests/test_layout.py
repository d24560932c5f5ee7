"""The rooms of the package and the direction between them; the shape of notebooks; the README."""

import ast
import json
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sgvl"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# A module may import only from rooms above it.
ROOMS = [
    "errors",
    "paths",
    "strict_yaml",
    "kinds",
    "progress",
    "concepts",
    "policy",
    "clauses",
    "verdict",
    "prompts",
    "scenes",
    "random_policies",
    "questions",
    "images",
    "data",
    "models",
    "endpoint",
    "judges",
    "records",
    "intervals",
    "choices",
    "metrics",
    "authors",
    "controls",
    "ability",
    "recaption",
    "reward",
    "finetune",
    "sft",
    "rehearsal",
    "grpo",
    "launch",
    "ablations",
    "claims",
    "reference",
    "audit",
    "tables",
    "figures",
    "widgets",
    "parameters",
    "units",
    "receipts",
    "seeds",
    "report",
    "execution",
    "run",
    "nano",
]


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """The rooms of sgvl that a file imports, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sgvl":
            parts = node.module.split(".")[1:2]
            found.update(parts or [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            found.update(a.name.split(".")[1] for a in node.names if a.name.startswith("sgvl."))
    return found - {"__version__"}


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda p: p.stem)
def test_imports_only_from_rooms_above(path):
    if path == PACKAGE / "__init__.py":
        assert not imported_rooms(path)
        return
    own = room(path)
    assert own in ROOMS, f"{path.name}: name its room in ROOMS, at the right height"
    below = {other for other in imported_rooms(path) if ROOMS.index(other) > ROOMS.index(own)}
    assert not below, f"{path.relative_to(ROOT)} imports {sorted(below)}, which lie below {own}"


def test_importing_sgvl_is_quick_and_loads_nothing_heavy():
    code = "import sgvl, sys; print(*sys.modules)"
    begun = time.perf_counter()
    bare = subprocess.run([sys.executable, "-c", "pass"], check=True)
    start_of_python = time.perf_counter() - begun
    begun = time.perf_counter()
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert time.perf_counter() - begun - start_of_python < 0.3, bare
    heavy = {"torch", "transformers", "datasets", "pandas", "matplotlib", "sklearn", "numpy"}
    assert not heavy & set(out.stdout.split())


def code_cells(path: Path) -> list[dict]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_notebook_cells_are_short():
    sizes = [
        len([line for line in "".join(cell["source"]).splitlines() if line.strip()])
        for path in NOTEBOOKS
        for cell in code_cells(path)
    ]
    assert statistics.median(sizes) <= 5
    assert statistics.quantiles(sizes, n=10)[-1] <= 15
    assert max(sizes) <= 30


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_says_what_it_needs_gives_and_takes(path):
    first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    assert first.startswith("# ") and "**Question.**" in first
    assert "| needs | gives | takes |" in first
    tagged = [c for c in code_cells(path) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1, f"{path.name}: one cell is tagged parameters"


@pytest.mark.parametrize("page", ["README.md", "CREDITS.md", "sgvl/nano/model/README.md"])
def test_links_lead_somewhere(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    missing = [link for link in links if not ((ROOT / page).parent / link).exists()]
    assert not missing, f"{page} links to {missing}; write the file or mend the link"
