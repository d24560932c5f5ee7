"""The annotator in a browser, by the keyboard alone: as a Voila page, then in JupyterLab.

A small notebook of one widget is served, so that nothing has to be trained first. `make
test-browser` installs what it needs and keeps its screenshots in runs/browser.
"""

import importlib.util
import json

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from test_browser import ANSWER, LAB, RUN, SHOTS, legible, server
from test_browser import browser as browser
from test_browser import page as page

from sgvl.editing import annotation
from sgvl.policies.policy import load_all
from sgvl.world import sets

pytestmark = pytest.mark.browser

CELL = """
from pathlib import Path
from sgvl.policies import load_all
from sgvl.widgets import Annotator
from sgvl.world import sets
bench = sets.unsafebench(per_category=1).select(range(3))
annotator = Annotator(bench, load_all([f"L{k}" for k in range(1, 6)]), Path("votes"))
annotator
"""
LEVELS = load_all([f"L{k}" for k in range(1, 6)])


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder = tmp_path_factory.mktemp("room")
    notebook = new_notebook(cells=[new_code_cell(CELL)])
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3"}
    nbformat.write(notebook, folder / "annotate.ipynb")
    return folder


@pytest.fixture
def serve(room):
    with server(room) as start:
        yield start


def press(page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def focused(page) -> str:
    """What a listener is told of the control that has the keyboard."""
    return page.evaluate("""() => {
      const own = document.activeElement;
      return own.labels?.[0]?.textContent || own.ariaLabel || own.textContent || own.type;
    }""").strip()


def tab_to(page, name: str) -> None:
    for _ in range(30):
        press(page, "Tab")
        if name in focused(page):
            return
    raise AssertionError(f"Tab never comes to {name}")


def annotate(page, name: str, votes) -> None:
    """Type a name, look, answer three pictures, correct one, and read a policy; never click."""
    from playwright.sync_api import expect

    panel = page.locator(".widget-vbox.sgvl")
    panel.wait_for(timeout=RUN)

    def says(words):
        expect(panel).to_contain_text(words, timeout=ANSWER)

    tab_to(page, "annotator")
    page.keyboard.type(name)
    press(page, "Enter")
    says("Picture 1 of 3, blurred; 0 of 3 pictures done")
    panel.screenshot(path=SHOTS / f"annotate-{name}-blurred.png")
    tab_to(page, "verdicts")
    page.keyboard.type("ssuu? is it a toy")
    says("is it a toy")
    press(page, "Tab")
    assert "show the picture" in focused(page)
    press(page, "Space")
    page.locator('img[alt="Picture 1 of 3."]').wait_for(timeout=ANSWER)
    panel.screenshot(path=SHOTS / f"annotate-{name}.png")
    assert legible(panel) == []
    press(page, "Shift+Tab", "Enter")
    says("Picture 2 of 3, blurred; 1 of 3 pictures done (33%). Saved.")
    page.keyboard.type("sss")
    press(page, "Enter")
    says("3 letters for 5 policies. Not saved.")
    page.keyboard.type("ss")
    press(page, "Enter")
    says("Picture 3 of 3, blurred; 2 of 3")
    tab_to(page, "back")
    press(page, "Space")
    says("Picture 2 of 3, blurred; 2 of 3")
    tab_to(page, "L2: open forum")
    press(page, "Enter")
    expect(panel.locator("details", has_text="L2: open forum")).to_have_attribute("open", "")
    panel.get_by_label("verdicts").focus()
    page.keyboard.type("ssuuu")
    press(page, "Enter")
    says("Picture 3 of 3, blurred; 2 of 3 pictures done (67%). Saved.")

    verdicts = [annotation_of(votes, name, k) for k in range(2)]
    assert verdicts == [("ssuu?", {"is it a toy"}), ("ssuuu", {""})]


def annotation_of(folder, name: str, number: int) -> tuple[str, set[str]]:
    """The verdicts on the annotator's ``number``-th picture as letters, and their notes."""
    bench = sets.unsafebench(per_category=1).select(range(3))
    pictures = annotation.digests(bench)
    table = annotation.read(folder, pictures, LEVELS, name)
    own = table[table["id"] == annotation.shuffled(list(pictures), name, 0)[number]]
    letters = own.set_index("policy")["verdict"].map({"safe": "s", "unsafe": "u", "unsure": "?"})
    return "".join(letters[[p.name for p in LEVELS]]), set(own["note"])


@pytest.mark.skipif(not importlib.util.find_spec("voila"), reason="needs voila")
def test_in_voila_and_again_after_the_page_was_closed(serve, room, page):
    address = serve("voila", "annotate.ipynb")
    page.goto(address, timeout=RUN)
    annotate(page, "ann", room / "votes")
    page.reload(timeout=RUN)
    page.locator(".widget-vbox.sgvl").wait_for(timeout=RUN)
    tab_to(page, "annotator")
    page.keyboard.type("ann")
    press(page, "Enter")
    page.get_by_text("Picture 3 of 3, blurred; 2 of 3 pictures done").wait_for(timeout=ANSWER)
    tab_to(page, "verdicts")
    page.keyboard.type("sssss\nuuuuu\nuuuuu\n", delay=0)  # faster than anybody: one picture is left
    page.get_by_text("3 of 3 pictures done (100%)").wait_for(timeout=ANSWER)
    assert annotation_of(room / "votes", "ann", 2) == ("sssss", {""})
    lines = (room / "votes" / "ann.jsonl").read_text().splitlines()
    # Of the picture that was answered twice, only what changed was written again.
    assert len(lines) == 18 and len({json.loads(line)["id"] for line in lines}) == 3


def test_in_jupyterlab(serve, room, page):
    address = serve("jupyterlab", *LAB, f"--ServerApp.root_dir={room}")
    page.goto(f"{address}/doc/tree/annotate.ipynb")
    page.get_by_text("| Idle").wait_for(timeout=RUN)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator("#jp-mainmenu-run").get_by_text("Run All Cells", exact=True).click()
    page.locator(".widget-vbox.sgvl").wait_for(timeout=RUN)
    page.get_by_text("| Idle").wait_for(timeout=RUN)
    page.locator(".widget-vbox.sgvl").get_by_label("annotator").focus()
    press(page, "Shift+Tab")
    annotate(page, "bob", room / "votes")
