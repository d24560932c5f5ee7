"""The site: what its pages are made of, and what is found wrong with HTML."""

import os
import re
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import build_site
import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sgvl.common.errors import InputError
from sgvl.common.paths import NOTEBOOKS, PACKAGE, ROOT, runs

TOCTREE = re.compile(r"(?:```\{toctree\}|\.\. toctree::)\n(.*?)(?:```|\Z)", re.DOTALL)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run folder in which every unit of nano is finished, with its notebook as it is here."""
    folder = tmp_path_factory.mktemp("runs") / "nano"
    folder.mkdir()
    for name in build_site._units("nano"):
        notebook = NOTEBOOKS / f"{name.partition('.')[0]}.ipynb"
        (folder / f"{name}.ipynb").write_text(notebook.read_text())
        (folder / f"{name}.json").write_text('{"status": "ok"}')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_site, "runs", lambda profile: folder.parent / profile)
        yield folder


@pytest.fixture(scope="module")
def source(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("site") / "source"
    build_site.lay_out(folder)
    return folder


def listed(source: Path) -> set[str]:
    """The pages that the tables of contents lead to, from the first page on."""
    pages = {}
    for file in source.rglob("*.*"):
        if file.suffix in (".md", ".rst", ".ipynb"):
            text = file.read_text(encoding="utf-8")
            if file.suffix == ".ipynb":
                text = "\n".join(cell.source for cell in nbformat.reads(text, as_version=4).cells)
            pages[str(file.relative_to(source).with_suffix(""))] = text
    found, new = set(), {"index"}
    while new:
        page = new.pop()
        found.add(page)
        for entries in TOCTREE.findall(pages[page]):
            for entry in re.findall(r"(?m)^ *([^:\s].*)$", entries):
                target = (entry.partition("<")[2] or entry).strip("> ")
                pattern = os.path.normpath(os.path.join(os.path.dirname(page), target))
                level = {other for other in pages if other.count("/") == pattern.count("/")}
                new |= {other for other in level if fnmatchcase(other, pattern)} - found
    assert found == pages.keys(), "no page is left out"
    return found


def test_every_notebook_guide_and_module_is_in_the_table_of_contents(source):
    pages = listed(source)
    assert pages >= {f"notebooks/{file.stem}" for file in NOTEBOOKS.glob("*.ipynb")}
    units = [unit.partition(".") for unit in build_site._units("nano")]
    assert pages >= {f"notebooks/{name}/{variant}" for name, _, variant in units if variant}
    assert pages >= {f"docs/{file.stem}" for file in (ROOT / "docs").glob("*.md")}
    assert pages >= {"CONTRIBUTING", "lesson", "figures/nano/REPORT", "figures/nano/card_base"}
    api = "".join(file.read_text() for file in (source / "api").glob("*.rst"))
    for file in PACKAGE.rglob("*.py"):
        parts = file.relative_to(PACKAGE.parent).with_suffix("").parts
        if not parts[-1].startswith("_"):
            assert f".. automodule:: {'.'.join(parts)}\n" in api


def test_a_notebook_that_did_not_run_says_so(source):
    seeds = (source / "notebooks" / "09_seeds.ipynb").read_text(encoding="utf-8")
    assert "Not run here, so it has no outputs: `make seeds` runs it." in seeds


@pytest.mark.parametrize("lacking", ["05_benchmark.json", "03_sft.L1.ipynb"])
def test_an_unfinished_run_is_refused_with_the_command(run, tmp_path, lacking):
    unit, receipt = lacking.rpartition(".")[0], (run / lacking).with_suffix(".json")
    kept, finished = (run / lacking).read_text(), receipt.read_text()
    (run / lacking).unlink()
    with pytest.raises(InputError, match=f"runs/nano has no finished {unit}.*make run"):
        build_site.lay_out(tmp_path / "source")
    (run / lacking).write_text(kept)
    receipt.write_text('{"status": "failed"}')
    with pytest.raises(InputError, match=f"no finished {unit}"):
        build_site.lay_out(tmp_path / "source")
    receipt.write_text(finished)


def test_links_to_code_lead_to_the_api_and_others_out_of_the_site_become_text(source):
    readme = (source / "README.md").read_text(encoding="utf-8")
    assert "[02_recaption](notebooks/02_recaption.ipynb)" in readme
    assert "](params/nano)" not in readme and "](sgvl/policies" not in readme
    assert "](lesson.md)" in readme and (ROOT / "figures" / "nano" / "classroom.html").is_file()
    below = build_site.RELATIVE.sub("](../", "[a](../b) ![c](d.png) [e](#f) [g](https://h.i)")
    assert below == "[a](../../b) ![c](../d.png) [e](#f) [g](https://h.i)"
    known = [source / "api" / "sgvl.text.rst"]
    text = (
        "[a](../sgvl/text/verdict.py), [b](../sgvl/text), [c](../params), [d](#e), [f](https://g.h)"
    )
    led = "[a](../api/sgvl.text.rst), [b](../api/sgvl.text.rst), c, [d](#e), [f](https://g.h)"
    assert build_site.relinked(text, source / "docs", source, known) == led


def test_a_picture_is_described_by_its_notebook_or_else_by_the_sentence_above():
    data = {"image/png": "", "text/plain": "<Figure>"}
    own = new_output("display_data", data, metadata={"image/png": {"alt": "Two bars."}})
    page = new_notebook(cells=[
        new_markdown_cell("## Pairs\n\nA [pair](x.md) in `bench`:\n\n| a | b |\n| --- | --- |"),
        new_code_cell("show()", outputs=[own, new_output("display_data", data)]),
        new_markdown_cell("# A head"),
        new_code_cell("show()", outputs=[new_output("display_data", data)]),
    ])  # fmt: skip
    build_site._describe(page)
    found = [cell.metadata["mystnb"]["image"]["alt"] for cell in page.cells if "outputs" in cell]
    assert found == ["Two bars. Pairs: A pair in bench:", "A head"]


def test_the_end_of_a_line_is_no_output():
    outputs = [new_output("stream", text="a"), new_output("stream", text="\n"),
               new_output("display_data", {"text/plain": "b"})]  # fmt: skip
    page = new_notebook(cells=[new_code_cell("show()", outputs=outputs)])
    build_site._tidy(page)
    assert page.cells[0].outputs == [outputs[0], outputs[2]]


GOOD = '<h1 id="top">A</h1><img src="a.png" alt="A cat"><a href="b/c.html#d%20e">c</a>'
BAD = {
    '<img src="a.png">': "a.html: a picture without alt: a.png",
    '<img src="a.png" alt=" ">': "a.html: a picture without alt: a.png",
    '<script src="https://cdn.example/x.js"></script>': "a.html: loads https://cdn.example/x.js",
    '<link rel="stylesheet" href="//fonts.example/x.css">': "a.html: loads //fonts.example/x.css",
    '<a href="gone.html">x</a>': "a.html: gone.html leads nowhere",
    '<a href="#gone">x</a>': "a.html: #gone: no such place on the page",
    '<a href="b/c.html#gone">x</a>': "a.html: b/c.html#gone: no such place on the page",
}


@pytest.mark.parametrize("bad", BAD)
def test_what_is_wrong_with_html_is_found(tmp_path, bad):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.html").write_text('<p id="d e"><a href="https://elsewhere.example">x</a>')
    (tmp_path / "a.png").touch()
    (tmp_path / "a.html").write_text(GOOD)
    (tmp_path / "a.css").write_text('@import "own.css"; a { background: url(a.png) }')
    assert build_site.problems(tmp_path) == []
    (tmp_path / "a.html").write_text(GOOD + bad)
    assert build_site.problems(tmp_path) == [BAD[bad]]
    (tmp_path / "a.html").write_text(GOOD)
    (tmp_path / "a.css").write_text("@font-face { src: url('https://fonts.example/x.woff') }")
    assert build_site.problems(tmp_path) == ["a.css: loads https://fonts.example/x.woff"]


@pytest.mark.slow
def test_the_site_of_a_finished_run_is_built():
    pytest.importorskip("myst_nb", reason="make site installs it")
    if not (runs("nano") / "07_figures.json").exists():
        pytest.skip("needs the run of `make run`")
    command = [sys.executable, str(ROOT / "docs" / "site" / "build_site.py")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"index\.html: \d+ pages, \d+ files, \d+\.\d MB", done.stdout)
    html = ROOT / "build" / "site" / "html"
    page = (html / "notebooks" / "08_classroom.html").read_text(encoding="utf-8")
    assert "still picture of a widget" in page
    pages = {file.stem for file in (html / "notebooks").glob("[0-9]*.html")}
    assert pages == {file.stem for file in NOTEBOOKS.glob("*.ipynb")}
