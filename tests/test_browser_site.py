"""The site in a browser: at the width of a desk and of a phone, by the keyboard, from one host.

`make site` builds it first. Screenshots are kept in runs/browser.
"""

import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
from test_browser import SHOTS
from test_browser import browser as browser
from test_browser import page as page

from sgvl.common.paths import ROOT

pytestmark = pytest.mark.browser

HTML = ROOT / "build" / "site" / "html"
PAGES = sorted(HTML.glob("*.html")) + sorted(HTML.glob("[!_]*/**/*.html"))
WIDTHS = (1280, 390)
OVER = "boxes => boxes.map(box => box.scrollWidth - box.clientWidth)"


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The site on a static host of this machine."""
    if not PAGES:
        pytest.skip("needs the site of `make site`")
    handler = partial(SimpleHTTPRequestHandler, directory=HTML)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def nothing_from_elsewhere(page, address):
    known = (address, "data:")
    page.on("request", lambda sent: sent.url.startswith(known) or pytest.fail(sent.url))


def test_no_page_scrolls_sideways_or_lacks_a_picture(page, address):
    wide = []
    for file in PAGES:
        path = file.relative_to(HTML)
        page.goto(f"{address}/{path.as_posix()}")
        name = "-".join(path.with_suffix("").parts)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            found = max(page.locator("html, .bd-article-container").evaluate_all(OVER))
            wide += [f"{name}: {found} pixels too wide for {width}"] * (found > 0)
            page.screenshot(path=SHOTS / f"site-{name}-{width}.png")
        page.evaluate("document.querySelectorAll('img').forEach(one => one.loading = 'eager')")
        page.wait_for_function("[...document.images].every(one => one.complete)")
        broken = "pictures => pictures.filter(picture => !picture.naturalWidth).length"
        assert page.locator("img").evaluate_all(broken) == 0, name
    assert not wide, wide


def tab_to(page, words: str) -> None:
    """Press Tab until what has the keyboard says these words."""
    for _ in range(60):
        page.keyboard.press("Tab")
        said = page.evaluate(
            "(({textContent, ariaLabel}) => `${textContent} ${ariaLabel}`)(document.activeElement)"
        )
        if words in said:
            return
    raise AssertionError(f"no Tab leads to {words!r}")


@pytest.mark.parametrize("width", WIDTHS)
def test_a_reader_gets_about_by_the_keyboard(page, address, width):
    page.set_viewport_size({"width": width, "height": 900})
    page.goto(f"{address}/index.html")
    page.keyboard.press("Tab")
    assert "Skip to main content" in page.evaluate("document.activeElement.textContent")
    if width == 390:
        tab_to(page, "Site navigation")
        page.keyboard.press("Enter")
        page.locator("dialog[open]").wait_for()
    tab_to(page, "Report")
    page.keyboard.press("Enter")
    page.wait_for_url("**/REPORT.html")
    tab_to(page, "Search")
    page.keyboard.press("Enter")
    page.locator("dialog[open] input").fill("make_judge")
    page.keyboard.press("Enter")
    page.wait_for_url("**/search.html?q=make_judge")
    page.locator(".search a", has_text="sgvl.judges").first.wait_for(timeout=30_000)


def test_a_wide_table_scrolls_in_its_box_by_the_keyboard(page, address):
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto(f"{address}/docs/JUDGES.html")
    box = page.locator(".pst-scrollable-table-container").first
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("box => box.scrollLeft > 0", arg=box.element_handle())


def test_a_wide_figure_on_a_phone_keeps_its_size_and_scrolls_by_the_keyboard(page, address):
    page.set_viewport_size({"width": 390, "height": 900})
    page.goto(f"{address}/README.html")
    box = page.locator(".figure-box").first
    assert box.locator("img").evaluate("picture => picture.width") > 600
    box.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("box => box.scrollLeft > 0", arg=box.element_handle())
