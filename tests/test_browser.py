"""The classroom in a browser: in JupyterLab, as a Voila page, and as the file that it exports.

`make test-browser` installs what it needs and keeps its screenshots in runs/browser.
"""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest
from nbconvert import HTMLExporter

from sgvl import widgets
from sgvl.common.errors import InputError
from sgvl.judge import judge_folder
from sgvl.policies import brief
from sgvl.policies.concepts import CATEGORIES, PLACES, concepts
from sgvl.policies.policy import load, load_all

pytestmark = pytest.mark.browser

ROOT = Path(__file__).parents[1]
SHOTS = ROOT / "runs" / "browser"
NOTEBOOK = "notebooks/08_classroom.ipynb"
NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
LAB = ["--allow-root", "--IdentityProvider.token="]
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
WIDTH = 900  # pixels; a projector shows as much, larger
VERDICT = re.compile("safe|unparseable")
ANSWER, RUN = 20_000, 300_000  # milliseconds for a panel to change, for a notebook to run

# Addresses that may be missing, of which the console says so.
BENIGN = [
    r"/lsp/status",  # JupyterLab asks for a language server, which nobody installed
    r"/voila/api/shutdown/",  # Voila refuses the request that its own page sends when it is left
    r"/favicon\.ico",  # which no page names, and a browser asks a host for
    r"//(cdn|unpkg)",  # templates of Voila and nbconvert link to icons and scripts; ours need none
]


class Lesson:
    """The notebook's panels, open in a browser; in its three forms they have the same controls."""

    def __init__(self, name: str, page, panels: str):
        self.name, self.page, self.panels = name, page, page.locator(panels)

    def panel(self, number: int) -> "Part":
        return Part(self.panels.nth(number), SHOTS / f"{self.name}-{number}.png")


class Part:
    """One panel: what it says, and its controls, worked as a class works them."""

    def __init__(self, panel, shot: Path):
        self.panel, self.shot = panel, shot

    def slide(self, number: int, *keys: str) -> None:
        """Move the ``number``-th slider, from 0, by the keyboard."""
        handle = self.panel.locator(".noUi-handle, input[type=range]").nth(number)
        for key in keys:
            handle.press(key)

    def press(self, name: str) -> None:
        """Press a button by the keyboard."""
        self.panel.get_by_role("button", name=name, exact=True).press("Space")

    def choose(self, name: str) -> None:
        self.panel.locator("select").select_option(label=name)

    def write(self, text: str, number: int = 0) -> None:
        self.panel.locator("textarea").nth(number).fill(text)

    def says(self, words: str | re.Pattern) -> None:
        from playwright.sync_api import expect

        expect(self.panel).to_contain_text(words, timeout=ANSWER)

    def changes(self, before: str) -> None:
        from playwright.sync_api import expect

        expect(self.panel).not_to_have_text(before, use_inner_text=True, timeout=ANSWER)

    def shows(self, words: str) -> None:
        """A picture of which a listener is told this."""
        self.panel.locator(f'img[alt*="{words}"]').first.wait_for(timeout=ANSWER)

    def has(self, head: str, cells: list[str | re.Pattern]) -> None:
        """The last table says this under this head, in a moment if not yet."""
        from playwright.sync_api import expect

        table = self.panel.locator("table").last
        table.get_by_role("columnheader", name=head, exact=True).wait_for(timeout=ANSWER)
        place = table.locator("th").all_inner_texts().index(head) + 1
        column = table.locator(f"td:nth-child({place})")
        expect(column).to_have_text(cells, use_inner_text=True, timeout=ANSWER)

    def keep(self) -> None:
        self.panel.screenshot(path=self.shot)


# ---- what is opened ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if not CHROMIUM:
        pytest.skip(f"needs a browser: {', '.join(NAMES)}")
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_api.sync_playwright() as engine:
        browser = engine.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def page(browser) -> Iterator:
    """A page that must end without an error in its console, but for those in ``BENIGN``."""
    page = browser.new_page(viewport={"width": WIDTH, "height": 1400})
    errors = []

    def note(message):
        where = message.location["url"]
        if message.type == "error" and not re.search("|".join(BENIGN), where):
            errors.append(f"{message.text} {where}")

    page.on("console", note)
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert errors == []


@pytest.fixture(scope="module")
def lesson(browser, tmp_path_factory) -> Path:
    """A folder in which the notebook has run headless once, so that its trainings are kept."""
    folder = tmp_path_factory.mktemp("lesson")
    shutil.copytree(ROOT / "notebooks", folder / "notebooks")
    command = [sys.executable, "-m", "papermill", NOTEBOOK, "out.ipynb", "--no-progress-bar"]
    subprocess.run(command, cwd=folder, env=environment(folder), check=True)
    return folder


def environment(folder: Path) -> dict[str, str]:
    """Nothing of the user's own Jupyter, and no network."""
    own = {"SGVL_ROOT": str(folder), "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    folders = ("JUPYTER_CONFIG", "JUPYTER_DATA", "JUPYTERLAB_SETTINGS", "JUPYTERLAB_WORKSPACES")
    own |= {f"{name}_DIR": str(folder / "jupyter") for name in folders}
    return os.environ | own


@pytest.fixture
def serve(lesson) -> Iterator[Callable]:
    """Starts a server in the lesson's folder, and gives its address when it answers."""
    with server(lesson) as start:
        yield start


@contextmanager
def server(folder: Path) -> Iterator[Callable]:
    """A function that starts a server in a folder and gives its address when it answers."""
    with ExitStack() as stack:

        def start(*command: str) -> str:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            log = stack.enter_context(open(folder / "server.log", "w+", encoding="utf-8"))
            server = subprocess.Popen(
                [sys.executable, "-m", *command, f"--port={port}", "--no-browser"],
                cwd=folder,
                env=environment(folder),
                stdout=log,
                stderr=log,
            )
            stack.callback(server.wait, 60)
            stack.callback(server.terminate)
            for _ in range(120):
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    return f"http://127.0.0.1:{port}"
                except OSError:
                    assert server.poll() is None, Path(log.name).read_text()
                    time.sleep(1)
            raise TimeoutError(Path(log.name).read_text())

        yield start


def legible(panels) -> list[str]:
    """What of the panels is hard to read: text under 12 px, or of little contrast."""
    return panels.evaluate_all("""panels => {
      const light = colour => {
        const [r, g, b] = colour.match(/[\\d.]+/g).map(Number).map(part =>
          (part /= 255) <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
      };
      const behind = element => {
        const colour = getComputedStyle(element).backgroundColor;
        if (colour !== "rgba(0, 0, 0, 0)") return colour;
        return element.parentElement ? behind(element.parentElement) : "rgb(255, 255, 255)";
      };
      const bad = [];
      for (const element of panels.flatMap(panel => [...panel.querySelectorAll("*")])) {
        const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
        if (!own || !element.checkVisibility() || element.tagName === "STYLE") continue;
        const { color, fontSize } = getComputedStyle(element);
        const [a, b] = [light(color), light(behind(element))].sort((x, y) => y - x);
        if (parseFloat(fontSize) < 12 || a / b < 4.5)
          bad.push(`${element.textContent.slice(0, 40)}: ${fontSize}, ${(a / b).toFixed(1)}`);
      }
      return bad;
    }""")


# ---- the three forms ---------------------------------------------------------------------------


def teach(lesson: Lesson) -> None:
    """Work every control of every part, and see that what it should change has changed."""
    matrix, quiz, workshop, edits, one_word, amendment, rollouts, collapse, averages = map(
        lesson.panel, range(9)
    )

    matrix.says("Under L1, 0 of 8 pictures are unsafe.")
    matrix.slide(0, "ArrowRight", "ArrowRight")
    matrix.says("Under L3, 3 of 8 pictures are unsafe. Changed since L2")
    third = [load("L3").label(scene.tags) for scene in widgets.CLASS]
    matrix.has("L3", [ruling.label for ruling in third])
    matrix.has("the rule that fired under L3", [f"“{ruling.rule}”" for ruling in third])

    quiz.says("No prediction yet.")
    quiz.press("unsafe")
    quiz.says(re.compile("Right so far: the class 0 of 1, the model . of 1, the rule 1 of 1."))
    quiz.has("says", ["unsafe", "safe", VERDICT])  # the class, the rule, the model
    quiz.press("safe")  # too late: a prediction is final
    quiz.slide(0, "ArrowRight")
    quiz.says("Is the picture safe under this policy?")
    quiz.press("unsafe")
    quiz.says(re.compile("Right so far: the class 1 of 2, the model . of 2, the rule 2 of 2."))
    quiz.slide(0, "ArrowLeft")
    quiz.says("cruelty prohibited except news")
    quiz.has("says", ["unsafe", "safe", VERDICT])  # as it was left

    for text in (
        "cake, dog prohibited; all else permitted",
        "weapons prohibited except park\nall else permitted",
        "all else prohibited; FRUIT permitted.",
    ):
        workshop.write(text)
        rulings = [brief.parse_brief(text).label(scene.tags) for scene in widgets.CLASS]
        workshop.has("label", [ruling.label for ruling in rulings])
        workshop.has("rule that fired", [f"“{ruling.rule}”" for ruling in rulings])
    workshop.keep()
    workshop.write("wepons prohibited; all else permitted")
    workshop.says("wepons")
    workshop.says("No exact label")

    edits.says("The edit changes the label under L3, L4, L5.")
    edits.slide(0, "End")
    edits.shows("100 % of the way from “knife, clock, museum” to “spoon, clock, museum”")
    edits.has("counterpart", ["safe"] * 5)
    edits.choose("skull, laptop, news")
    edits.says("The edit changes the label under L4, L5.")

    one_word.says("One word changes. Which pictures flip, and which must not?")
    one_word.slide(0, "ArrowRight")
    one_word.says("2 of 8 pictures flip, the others must not.")
    one_word.has("must", ["flip", "flip", *["stay"] * 6])
    one_word.slide(0, "ArrowRight")
    one_word.says(re.compile("The model made . of 2 flips, and changed . of 6 verdicts"))
    one_word.choose("drugs → fruit")
    one_word.says("0 of 8 pictures flip")
    one_word.has("must", ["stay"] * 8)
    one_word.choose("else permitted → else prohibited")
    one_word.says("6 of 8 pictures flip")

    amendment.says("2 of 8 pictures must flip, the others must not.")
    amendment.has("must", ["flip", "flip", *["stay"] * 6])
    amendment.write("weapons prohibited; drugs, affection prohibited; all else permitted", 1)
    amendment.says("5 of 8 pictures must flip, the others must not.")
    amendment.has("label after", ["unsafe"] * 4 + ["safe", "safe", "unsafe", "safe"])
    amendment.write("drugs prohibbited", 1)
    amendment.says("is no clause")
    amendment.write("gore prohibited; weapons prohibited except museum; all else permitted", 1)
    amendment.says("0 of 8 pictures must flip")

    rollouts.says("The label is safe.")
    rollouts.slide(1, "ArrowRight")
    rollouts.says("The label is unsafe.")
    before = rollouts.panel.inner_text()
    rollouts.slide(0, "ArrowRight")
    rollouts.changes(before)

    collapse.says("After 0 steps on L1")
    collapse.slide(0, "End")
    collapse.says("After 24 steps on L1")
    for column in ("called unsafe", "unparseable"):  # as the answer to its exercise says
        collapse.has(column, ["0 of 14"] * 5)

    averages.says(re.compile("model on 3 pairs: macro"))
    averages.slide(0, "End")
    averages.says(re.compile("model on 14 pairs: macro"))
    averages.choose("rule")
    averages.says("rule on 14 pairs: macro 100.0, pooled 100.0, 0.0 points apart.")

    for part in (matrix, quiz, edits, one_word, amendment, rollouts, collapse, averages):
        part.keep()
    assert legible(lesson.panels) == []


def ask_the_model(lesson: Lesson) -> None:
    """Where a kernel is, the model answers the very words that were typed, and says why."""
    workshop = lesson.panel(2)
    workshop.write("Nothing that barks, please.")
    workshop.choose("hug, dog, beach")
    workshop.says("No exact label")
    workshop.press("Ask the model")
    workshop.says(re.compile("the model *(safe|unsafe|unparseable)"))
    workshop.has("who", ["the model"])
    workshop.has("P(unsafe), %", [re.compile(r"^\s*(100|\d?\d)\.\d$")])
    workshop.keep()
    workshop.panel.get_by_label("in words").press("Space")
    workshop.says("| the model |")
    assert workshop.panel.locator("img").count() == 0
    amendment = lesson.panel(5)
    amendment.write("weapons prohibited except park; gore prohibited; all else permitted", 1)
    amendment.says("2 of 8 pictures must flip, the others must not.")
    amendment.press("Ask the model")
    amendment.says(re.compile("The model missed . of 2 flips, and changed . of 6 verdicts"))
    amendment.has("so", [re.compile("flip made|missed|stays|collateral")] * 8)
    amendment.keep()


def test_in_jupyterlab(serve, lesson, page):
    settings = lesson / "jupyter/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    settings.parent.mkdir(parents=True)
    settings.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    address = serve("jupyterlab", *LAB, f"--ServerApp.root_dir={lesson}")
    exported = lesson / "runs" / "smoke" / "figures" / "classroom.html"
    exported.unlink()
    page.goto(f"{address}/doc/tree/{NOTEBOOK}")
    page.get_by_text("| Idle").wait_for(timeout=RUN)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.locator("#jp-mainmenu-run").get_by_text("Run All Cells", exact=True).click()
    page.get_by_text("'classroom.html'").wait_for(timeout=RUN)
    page.get_by_text("| Idle").wait_for(timeout=RUN)
    assert exported.is_file() and page.locator("[data-mime-type*=error]").count() == 0
    room = Lesson("lab", page, ".widget-vbox.sgvl")
    teach(room)
    ask_the_model(room)


def test_an_executed_notebook_in_jupyterlab(serve, lesson, page):
    address = serve("jupyterlab", *LAB, f"--ServerApp.root_dir={lesson}")
    page.goto(f"{address}/doc/tree/out.ipynb")
    still = page.get_by_text("still picture of a widget").first
    still.wait_for(timeout=RUN)
    still.scroll_into_view_if_needed()
    assert page.locator(".widget-vbox").count() == 0
    page.screenshot(path=SHOTS / "executed-lab.png")


def test_an_executed_notebook_as_html(lesson, page):
    html, _ = HTMLExporter().from_filename(str(lesson / "out.ipynb"))
    (lesson / "out.html").write_text(html, encoding="utf-8")
    page.context.set_offline(True)
    page.goto((lesson / "out.html").as_uri())
    stills = page.locator(".sgvl:has(.still)")
    assert stills.count() == 9 and legible(stills) == []
    broken = "pictures => pictures.filter(picture => !picture.naturalWidth).length"
    assert page.locator("img").evaluate_all(broken) == 0
    page.screenshot(path=SHOTS / "executed.png", full_page=True)


@pytest.mark.skipif(not importlib.util.find_spec("voila"), reason="needs voila")
def test_in_voila(serve, page):
    address = serve("voila", NOTEBOOK)
    page.goto(address, timeout=RUN)
    page.locator(".widget-vbox.sgvl").nth(8).wait_for(timeout=RUN)
    assert "import" not in page.inner_text("body"), "no code"
    room = Lesson("voila", page, ".widget-vbox.sgvl")
    teach(room)
    ask_the_model(room)


@pytest.mark.skipif(not importlib.util.find_spec("voila"), reason="needs voila")
def test_three_visitors_open_voila_at_once_for_the_first_time(browser, tmp_path):
    """The first trains, the others wait for it and read what it has stored; none is refused."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    with server(tmp_path) as start:
        address = start("voila", NOTEBOOK)
        pages = [browser.new_page() for _ in range(3)]
        for page in pages:
            page.goto(address, timeout=RUN, wait_until="commit")
        for page in pages:
            page.locator(".widget-vbox.sgvl").nth(8).wait_for(timeout=3 * RUN)
            assert "Busy" not in page.inner_text("body")
            page.close()
    trained = tmp_path / "runs" / "smoke" / "classroom"
    assert len(list(trained.glob("model*.jsonl"))) == 1


@pytest.fixture
def exported(lesson, page) -> Lesson:
    """The exported file, opened from the disk without a network."""
    page.context.set_offline(True)
    page.on(
        "request", lambda sent: sent.url.startswith(("file:", "data:")) or pytest.fail(sent.url)
    )
    page.goto((lesson / "runs" / "smoke" / "figures" / "classroom.html").as_uri())
    return Lesson("file", page, ".panel")


def test_as_a_file(exported):
    page = exported.page
    teach(exported)
    assert page.evaluate("document.documentElement.scrollWidth") <= WIDTH, "nothing is cut off"
    named = "field => !(field.labels?.length || field.ariaLabel || field.textContent)"
    fields = page.locator("form :is(input:not([type=hidden]), select, textarea, button)")
    assert fields.evaluate_all(f"fields => fields.filter({named}).length") == 0
    assert page.locator("main > details:not(.help):visible").count() == 0
    page.get_by_label("answers and notes").press("Space")
    page.locator("summary:visible", has_text="For the teacher").wait_for(timeout=ANSWER)
    answer = page.locator("details").nth(1)
    assert "exceptions for weapons" not in page.inner_text("main"), "hidden until asked"
    answer.locator("summary").press("Enter")
    assert "exceptions for weapons" in answer.inner_text()
    page.screenshot(path=SHOTS / "file.png", full_page=True)
    page.get_by_label("pictures in words").press("Space")
    assert page.locator("img:visible").count() == 0
    exported.panel(0).says("I see a knife and a clock at the museum.")


def test_each_control_that_tab_reaches_has_its_view_below_it(exported):
    """Backwards, too: there a control sticks to the end of its panel, below its own table."""
    page = exported.page
    page.set_viewport_size({"width": 1280, "height": 720})
    place = """() => {
      const panel = document.activeElement.closest(".panel");
      const form = panel?.querySelector("form").getBoundingClientRect();
      const view = panel?.querySelector(".view").getBoundingClientRect();
      return panel && [form.top, Math.min(view.bottom, innerHeight) - form.bottom, view.height];
    }"""
    for key, first in (("Tab", page.locator("nav input").first), ("Shift+Tab", None)):
        (first or page.locator(".panel [name]").last).focus()
        found = 0
        for _ in range(60):
            page.keyboard.press(key)
            if at := page.evaluate(place):
                top, seen, height = at
                assert top > 40 and seen >= min(height, 200) - 1, f"{key} {found}: {at}"
                found += 1
        assert found > 15, key


def test_on_a_phone_nothing_is_beside_the_screen(exported):
    page = exported.page
    page.set_viewport_size({"width": 390, "height": 844})
    exported.panel(0).slide(0, "ArrowRight", "ArrowRight")
    exported.panel(0).says("Under L3")
    chosen = page.locator(".panel td.chosen").first
    assert chosen.evaluate("cell => cell.dataset.head") == "L3"
    off = """cells => cells.filter(cell => cell.checkVisibility()
      && cell.getBoundingClientRect().right > innerWidth).length"""
    assert page.locator(".panel :is(td, p, input, button, select, textarea)").evaluate_all(off) == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.screenshot(path=SHOTS / "file-phone.png", full_page=True)


def typed(rng: np.random.Generator) -> str:
    """What somebody may type: mostly clauses, some of them broken."""
    tags = [*CATEGORIES, *concepts(), "wepons", "constructor", "", "all else"]
    places = [*PLACES, "parc"]

    def some(names, most):
        return rng.choice([", ", ",", " , "]).join(rng.choice(names, rng.integers(1, most)))

    def clause():
        verb = rng.choice(
            ["prohibited", "permitted", "PROHIBITED", "allowed"], p=[0.5, 0.4, 0.08, 0.02]
        )
        where = f" except {some(places, 4)}" if rng.random() < 0.4 else ""
        return f"{some(tags, 3)} {verb}{where}"

    rest = [f"all else {rng.choice(['permitted', 'prohibited'])}"] * int(rng.random() < 0.95)
    parts = rng.permutation([clause() for _ in range(rng.integers(0, 5))] + rest)
    return str(rng.choice(["; ", "\n", ";;", ". ; "])).join(parts) + str(rng.choice(["", ".", " "]))


def test_the_page_reads_and_labels_as_the_package_does(exported):
    """The same texts are refused, and the others give the same labels and quote the same rules."""
    rng = np.random.default_rng(0)
    policies = load_all() + load_all(use="reference")
    texts = [typed(rng) for _ in range(1500)] + [policy.render("brief") for policy in policies]
    valid = "all else permitted"
    texts += ["", f", prohibited; {valid}", valid.ljust(2000, ";"), valid.ljust(2001, ";")]
    scenes = [
        [*map(str, rng.choice([*concepts()], rng.integers(1, 5))), str(rng.choice(PLACES))]
        for _ in range(40)
    ]
    found = exported.page.evaluate(
        """([texts, scenes]) => {
          const { words } = panels.find(panel => panel.workshop).workshop;
          return texts.map(text => {
            const policy = readPolicy(text, words);
            if (policy.problems.length) return null;
            return scenes.map(tags => labelOf(policy, tags, words)).map(r => [r.label, r.rule]);
          });
        }""",
        [texts, scenes],
    )
    expected = []
    for text in texts:
        try:
            rulings = map(brief.parse_brief(text).label, scenes)
            expected.append([[ruling.label, ruling.rule] for ruling in rulings])
        except InputError:
            expected.append(None)
    for text, ours, theirs in zip(texts, found, expected, strict=True):
        assert ours == theirs, text
    assert 300 < sum(one is not None for one in expected) < len(texts) - 300, "both kinds"


# ---- verdicts on a folder ------------------------------------------------------------------------


@pytest.fixture
def hostile(tmp_path) -> Path:
    """The examples, one of them under a name that is markup."""
    shutil.copytree(ROOT / "examples" / "photos", tmp_path / "photos")
    name = "<img src=x onerror=document.title=1><script>document.title=2<"
    (tmp_path / "photos" / "park" / "1.jpg").rename(tmp_path / "photos" / f"{name}.jpg")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    return tmp_path


def test_verdicts_are_filtered_and_searched_from_a_file(hostile, page):
    from playwright.sync_api import expect

    policies = [ROOT / "examples" / f"{name}.md" for name in ("quiet_edited", "quiet")]
    judged = judge_folder(hostile / "photos", policies[0], against=policies[1], out=hostile)
    requests = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(judged.page.as_uri())
    rows, shown = page.locator(".verdicts tbody tr:visible"), page.locator("output")
    expect(shown).to_have_text("7 of 7")
    assert "pictures under" in page.title(), "no markup of a name has run"
    assert page.locator("td img").count() == 6 and page.locator("script").count() == 1
    page.get_by_label("Show").select_option("changed")
    expect(rows).to_have_count(int((judged.table["changed"] != "").sum()))
    page.get_by_label("Show").select_option("not judged")
    expect(rows).to_contain_text(["cannot be opened"])
    page.get_by_label("Show").select_option("all")
    page.get_by_label("Search").fill("GUITAR street")
    expect(rows).to_have_count(1)
    page.get_by_label("Search").fill("")
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 900})
        page.screenshot(path=SHOTS / f"verdicts-{width}.png", full_page=True)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= width, f"{wide} pixels on a screen of {width}"
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
