"""The published numbers: as many cells as printed, and each as printed."""

import re
import shutil
from pathlib import Path

import pytest

from sgvl.common.errors import InputError
from sgvl.report import reference

PAPER = Path(__file__).parents[1] / ".." / "shared" / "paper" / "paper.md"
# rows and columns as printed, and cells that hold something; the row names count as cells
CELLS = {
    "table1": (7, 4, 28),
    "table2": (13, 12, 124),
    "table3": (7, 6, 42),
    "table4": (3, 10, 30),
    "table5": (4, 5, 18),
    "table6": (11, 7, 77),
}
HEADS = {
    "table1": "Method / Benchmark Policy Source#Categories Policy Adaptation Mechanism",
    "table2": "Model Hate Violence Self-Harm Sexual Shocking Illegal Deception Political Spam "
    "Overall",
    "table3": "Policy Level L1 L2 L3 L4 L5",
    "table4": "Model LlavaGuard Unsafebench SafeEditBench Overall MMMU RealWorldQA BLINK MMT "
    "Overall",
    "table5": "Variant Recap RL Unsafebench General",
    "table6": "Model Policy L1 Policy L2 Policy L3 Policy L4 Policy L5 Overall",
}
OURS = {"Group": "", "Safety Overall": "Overall", "General Overall": "Overall"}


@pytest.fixture(scope="module")
def printed():
    """The lines of the paper, without citations; "×" is its own LaTeX in this copy."""
    if not PAPER.is_file():
        pytest.skip("the text of the paper is not shipped with the kit")
    text = re.sub(r"\[\[\d+\]\(.*?\)\]", "", PAPER.read_text(encoding="utf-8"))
    return text.replace(r"×\times", "×").splitlines()


def block(lines, name):
    """The lines of a table below its head."""
    at = lines.index(HEADS[name]) + 1
    return lines[at : at + CELLS[name][0]]


@pytest.mark.parametrize("name", CELLS)
def test_counts_of_cells(name):
    frame = reference.table(name)
    assert (*frame.shape, int((frame != "").sum().sum())) == CELLS[name]
    assert frame.iloc[:, 0].is_unique


@pytest.mark.parametrize("name", CELLS)
def test_columns_are_the_printed_ones(name, printed):
    columns = [OURS.get(column, column) for column in reference.table(name).columns]
    assert squeezed("".join(columns)) == squeezed(HEADS[name])
    assert HEADS[name] in printed


@pytest.mark.parametrize("name", [name for name in CELLS if name != "table1"])
def test_every_cell_is_as_printed(name, printed):
    frame = reference.table(name)
    groups = [*frame["Group"].unique()] if name == "table2" else []
    rows = frame.drop(columns="Group", errors="ignore").itertuples(index=False)
    for line, (model, *cells) in zip(block(printed, name), rows, strict=True):
        group = next((group for group in groups if line.startswith(group + " ")), "")
        if group:  # printed once, before the first row of its group
            assert group == groups.pop(0)
        rest = line.removeprefix(group).strip()
        assert rest.startswith(model)
        found = re.findall(r"–|×|✓|\d+(?:\.\d+)?|\S+", rest.removeprefix(model))
        assert ["" if cell == "–" else cell for cell in found] == cells
    assert not groups


def test_table_1_is_as_printed(printed):
    rows = reference.table("table1").itertuples(index=False)
    for line, cells in zip(block(printed, "table1"), rows, strict=True):
        assert squeezed(line) == squeezed("".join(cells))


def test_quotes_are_quotes(printed):
    text, claims = " ".join(printed), reference.table("text")
    for claim in claims[claims["quote"] != ""].itertuples():
        assert claim.quote in text, claim.claim
        assert len(claim.quote.split()) <= 6
    unquoted = claims[claims["quote"] == ""]
    assert unquoted["where"].str.contains("card of|file of").all()


def test_every_file_names_its_source():
    for path in reference.HERE.glob("*.csv"):
        assert path.name == "figure4.csv" or path.read_text("utf-8").startswith("# source: ")


def test_numbers_keep_the_decimals_of_the_print():
    cells = reference.paper().cells
    assert cells.groupby("table")["decimals"].unique().map(list).to_dict() == {
        name: [1 if name == "table2" else 2] for name in list(CELLS)[1:]
    }
    assert "27.50" in set(cells["printed"]) and not cells["value"].isna().any()


@pytest.mark.parametrize(
    "file, old, new, message",
    [
        ("table6", "41.16", "41,16", "table6.csv: .*"),
        ("table6", "41.16", "l", "table6.csv, row 'GLM-4V-9B', column 'Overall': 'l' is no perc"),
        ("table6", "41.16", "141.16", "column 'Overall': '141.16' is no percentage"),
        ("table6", "GLM-4V-9B", "Qwen2-VL-7B", "table6.csv, row 'Qwen2-VL-7B': a second row"),
        ("table6", "Policy L3", "Policy 3", "no column 'Policy L3'.*did you mean Policy 3"),
        ("table6", "# source: ", "", "table6.csv: the first line is not '# source: "),
        ("columns", "accuracy,", "acuracy,", "metric 'acuracy'; did you mean accuracy"),
        ("columns", "metric,", "", "columns.csv: .*"),
        ("columns", "table6,Overall", "table9,Overall", "table9.csv: no such file"),
        ("figure4", "L3,16", "L3,many", "figure4.csv, row 'L3': no percentage"),
    ],
)
def test_bad_folders_are_named(file, old, new, message, tmp_path):
    folder = shutil.copytree(reference.HERE, tmp_path / "other")
    path = folder / f"{file}.csv"
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(InputError, match=message):
        reference.paper(folder)


def squeezed(text):
    return re.sub(r"\s", "", text)
