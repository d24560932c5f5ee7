"""The rooms of the package and the direction between them; the shape of notebooks; the README."""

import ast
import json
import re
import statistics
import subprocess
import sys
import time
import tokenize
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "sgvl"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

# The folders of sgvl and their levels. A folder imports only from folders of a lower level.
LEVELS = {
    1: {"common"},
    2: {"policies", "text", "run"},
    3: {"data", "models", "scores"},
    4: {"world", "judges", "training"},
    5: {"recaption", "experiments", "report"},
    6: {"editing"},  # asks for edits as recaption asks for captions
    7: {"widgets", "nano"},
}
LEVEL = {folder: level for level, folders in LEVELS.items() for folder in folders}
# The only modules that may stand outside a folder.
DOORS = {"__init__.py", "__main__.py", "judge.py", "diff.py"}


@cache
def imported_folders(path: Path) -> set[str]:
    """The folders of sgvl that a file imports from, at the top or inside functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sgvl":
            parts = node.module.split(".")[1:2]
            found.update(parts or [alias.name for alias in node.names])
        elif isinstance(node, ast.Import):
            found.update(a.name.split(".")[1] for a in node.names if a.name.startswith("sgvl."))
    return found - {"__version__"}


def test_the_package_has_sixteen_folders_and_no_loose_modules():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir()} - {"__pycache__"}
    assert folders == set(LEVEL) and len(folders) == 16
    assert {path.name for path in PACKAGE.glob("*.py")} <= DOORS


@pytest.mark.parametrize("folder", sorted(LEVEL))
def test_a_folder_imports_only_from_folders_of_a_lower_level(folder):
    for path in sorted((PACKAGE / folder).rglob("*.py")):
        others = imported_folders(path) - {folder}
        assert others <= set(LEVEL), f"{path.relative_to(ROOT)}: {others - set(LEVEL)}"
        wrong = {other for other in others if LEVEL[other] >= LEVEL[folder]}
        assert not wrong, f"{path.relative_to(ROOT)} imports from {sorted(wrong)}"


ARCHITECTURE = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")


def test_the_diagram_of_the_folders_is_that_of_their_imports():
    """Its arrows are all imports, and those alone, that no chain of others implies."""
    imports = {
        folder: set().union(*map(imported_folders, (PACKAGE / folder).rglob("*.py"))) - {folder}
        for folder in LEVEL
    }

    def reached(folders):
        return set(folders).union(*(reached(imports[folder]) for folder in folders))

    direct = {
        (one, other)
        for one, others in imports.items()
        for other in others
        if other not in reached(others - {other})
    }
    drawn = [
        (one, other)
        for one, others in re.findall(r"(?m)^  (\w+) --> (.+)$", ARCHITECTURE)
        for other in others.split(" & ")
    ]
    assert sorted(drawn) == sorted(direct)
    assert set(re.findall(r"(?m)^\| \[(\w+)\]", ARCHITECTURE)) == set(LEVEL)


def test_the_walk_of_a_picture_names_functions_that_are_there():
    steps = re.findall(r"\| `(\w+)` in \[([\w/.]+)\]", ARCHITECTURE)
    assert len(steps) >= 15
    for name, file in steps:
        kinds = (ast.FunctionDef, ast.ClassDef)
        tree = ast.walk(ast.parse((PACKAGE / file).read_text(encoding="utf-8")))
        assert name in {node.name for node in tree if isinstance(node, kinds)}, f"{file}: {name}"


def test_importing_sgvl_imports_no_folder():
    assert not imported_folders(PACKAGE / "__init__.py")


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


BUDGET = ROOT / "docs" / "BUDGET.md"
WINGS = (
    "data/sources",
    "models/tiny",
    "nano",
    "report/audit",
    "run/planning",
    "run/rehearsal",
    "widgets",
)  # all else is the core
GROWTH = 1.1  # a part that has grown by more fails the test
NO_CODE = {
    *(tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT),
    *(tokenize.ENCODING, tokenize.ENDMARKER),
}


def lines_of_code(path: Path) -> int:
    """Count the lines of a file without blank lines, comments and docstrings."""
    with path.open("rb") as file:
        tokens = [token for token in tokenize.tokenize(file.readline) if token.type not in NO_CODE]
    lines = {line for token in tokens for line in range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            docstring = node.body[0]
            lines -= set(range(docstring.lineno, docstring.end_lineno + 1))
    return len(lines)


def sizes() -> dict[str, int]:
    """Count the lines of code of the core and of each wing."""
    counts = dict.fromkeys(("core", *WINGS), 0)
    for path in PACKAGE.rglob("*.py"):
        place = path.relative_to(PACKAGE).as_posix()
        part = next((wing for wing in WINGS if place.startswith(f"{wing}/")), "core")
        counts[part] += lines_of_code(path)
    return counts


def write_budget() -> None:
    """Put today's sizes into the table of docs/BUDGET.md."""
    text = BUDGET.read_text(encoding="utf-8")
    for part, lines in sizes().items():
        text = re.sub(rf"(?m)^(\| {part} \|.*\|) *\d+ \|$", rf"\1 {lines} |", text)
    BUDGET.write_text(text, encoding="utf-8")


def test_no_part_has_outgrown_its_budget():
    table = re.findall(r"(?m)^\| (\S+) \|.*\| *(\d+) \|$", BUDGET.read_text(encoding="utf-8"))
    budget = {part: int(lines) for part, lines in table}
    now = sizes()
    assert budget.keys() == now.keys()
    grown = {part: n for part, n in now.items() if n > GROWTH * budget[part]}
    assert not grown, f"lines of code: {grown}, budget {budget}; see docs/BUDGET.md"


def test_blank_lines_comments_and_docstrings_are_no_code(tmp_path):
    (tmp_path / "a.py").write_text(
        '"""Two lines\nof a docstring."""\n\n# a comment\nx = 1  # counts\n\n'
        'def f():\n    """Docstring."""\n    return """text\n    that counts"""\n'
    )
    assert lines_of_code(tmp_path / "a.py") == 4


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


def test_styled_tables_escape_what_models_and_people_wrote():
    cells = ["".join(cell["source"]) for path in NOTEBOOKS for cell in code_cells(path)]
    assert any("tables.texts(" in source for source in cells)
    assert not any(re.search(r"\.style\b", source) for source in cells), "tables.texts escapes"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_says_what_it_needs_gives_and_takes(path):
    first = "".join(json.loads(path.read_text(encoding="utf-8"))["cells"][0]["source"])
    assert first.startswith("# ") and "**Question.**" in first
    assert "| needs | gives | takes |" in first
    tagged = [c for c in code_cells(path) if "parameters" in c["metadata"].get("tags", [])]
    assert len(tagged) == 1, f"{path.name}: one cell is tagged parameters"


# The order for a reader; 01b to 01d make a benchmark beside it.
SIDE = ["01b_safeedit", "01c_annotate", "01d_release", "02_recaption"]
MAIN = [path.stem for path in NOTEBOOKS if path.stem not in SIDE[:-1]]
NEXT = dict(zip(MAIN, MAIN[1:], strict=False)) | dict(zip(SIDE, SIDE[1:], strict=False))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_next_leads_through_the_series(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    prose = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown"]
    named = [name for text in prose for name in re.findall(r"Next: \*\*(\w+)\*\*", text)]
    assert named == [NEXT[name] for name in [path.stem] if name in NEXT]
    assert ("Next: " in prose[-1]) == (path.stem in NEXT), "at the end"
