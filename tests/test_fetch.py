"""Pictures from the web: a server with the faults that dead links have."""

import io
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler

import PIL.Image
import pytest
from local_hub import serving

from sgvl.common import files
from sgvl.data.sources import fetch
from sgvl.data.sources.fetch import Fetched, fetch_all


def png(colour="teal"):
    file = io.BytesIO()
    PIL.Image.new("RGB", (32, 24), colour).save(file, format="PNG")
    return file.getvalue()


class Web:
    """What the server was asked, when, and how often at the same time."""

    def __init__(self):
        self.url, self.counts, self.times, self.agents = "", Counter(), [], set()
        self.at_once = self.most_at_once = 0
        self.lock = threading.Lock()


@pytest.fixture
def web():
    web = Web()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            with web.lock:
                web.counts[self.path] += 1
                web.at_once += 1
                web.most_at_once = max(web.most_at_once, web.at_once)
                web.times.append(time.monotonic())
                web.agents.add(self.headers["User-Agent"])
            try:
                getattr(self, self.path.partition("?")[0].strip("/"))()
            finally:
                with web.lock:
                    web.at_once -= 1

        def send(self, content, status=200, length=None, **headers):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(length or len(content)))
            self.end_headers()
            self.wfile.write(content)

        def picture(self):
            self.send(png())

        def gone(self):
            self.send(b"", 404)

        def page(self):
            self.send(b"<html>This picture has moved</html>", Content_Type="image/png")

        def cut(self):
            self.send(png()[:40], length=len(png()))

        def slow(self):
            threading.Event().wait(1)
            self.send(png())

        def busy(self):
            first = web.counts["/busy"] == 1
            self.send(
                *((b"", 503) if first else (png(),)), **({"Retry_After": "0"} if first else {})
            )

        def odd(self):
            first = web.counts[self.path] == 1
            after = bytes.fromhex(self.path.partition("?")[2]).decode("latin-1")
            self.send(b"" if first else png(), 503 if first else 200, Retry_After=after)

        def moved(self):
            self.send(b"", 302, Location="/picture")

        def nowhere(self):
            self.send(b"", 302, Location="http://a..b/picture")

        def round(self):
            self.send(b"", 302, Location="/round")

        def refused(self):
            self.send(b"", 403)

        def large(self):
            self.send(b"0" * 5000)

        def log_message(self, *args):
            pass

    with serving(Handler) as web.url:
        yield web


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Waits between tries, shortened to what a test can wait; and a small limit of size."""
    real = time.sleep
    monkeypatch.setattr(fetch, "LARGEST", 4000)
    monkeypatch.setattr(fetch.time, "sleep", lambda seconds: real(min(seconds, 0.05)))


def fetched(web, *names, folder, **options):
    urls = list(dict.fromkeys(f"{web.url}/{name}" for name in names))
    results = fetch_all(urls, folder, **{"pause": 0, "private": True} | options)
    assert list(results) == urls
    return list(results.values())


FAULTS = {
    "gone": "http_404",
    "refused": "http_403",
    "page": "image_decode",
    "cut": "unreachable",
    "slow": "timeout",
    "round": "unreachable",
    "large": "too_large",
}


def test_every_fault_has_its_status_and_leaves_no_picture(web, tmp_path):
    results = fetched(web, *FAULTS, folder=tmp_path, timeout=0.3)
    assert [one.status for one in results] == list(FAULTS.values())
    assert {one.path for one in results} == {None}
    assert {path.suffix for path in tmp_path.iterdir()} == {".json"}


def test_pictures_come_byte_for_byte_after_a_redirect_or_a_wait(web, tmp_path):
    results = fetched(web, "picture", "moved", "busy", folder=tmp_path)
    assert [one.status for one in results] == ["ok"] * 3
    assert [one.path.read_bytes() for one in results] == [png()] * 3
    assert web.counts["/busy"] == 2


def test_what_is_no_web_address_is_not_asked_for(tmp_path):
    urls = ["file:///etc/passwd", "ftp://x/a.png", "a.png", "http://[", "", "http://127.0.0.1:1/a"]
    results = fetch_all(urls, tmp_path, pause=0, private=True)
    statuses = ["bad_url"] * 5 + ["unreachable"]
    assert [results[url] for url in urls] == [Fetched(status) for status in statuses]


@pytest.mark.parametrize("after", ["²", "-1", "1e3", "9" * 400, "Wed, 21 Oct 2037 07:28:00 GMT"])
def test_a_wait_that_no_standard_knows_ends_nothing(after, web, tmp_path):
    results = fetched(web, f"odd?{after.encode('latin-1').hex()}", "picture", folder=tmp_path)
    assert [one.status for one in results] == ["ok", "ok"]


def test_one_broken_link_costs_no_other(web, tmp_path):
    links = ["http://a..b/x.png", f"http://{'a' * 70}.com/x.png", "http://\ud800.com/x.png"]
    results = fetch_all(
        [*links, f"{web.url}/nowhere", f"{web.url}/picture"], tmp_path, pause=0, private=True
    )
    statuses = [one.status for one in results.values()]
    assert statuses[:3] == ["bad_url"] * 3 and statuses[3] in ("bad_url", "unreachable")
    assert statuses[4] == "ok"


@pytest.mark.parametrize("note", ["", "{", "[]", "{}", "null", '"gone"'])
def test_a_damaged_note_is_asked_for_again(note, web, tmp_path):
    fetched(web, "gone", folder=tmp_path)
    (file,) = tmp_path.glob("*.json")
    file.write_text(note)
    assert fetched(web, "gone", "picture", folder=tmp_path)[0].status == "http_404"
    assert web.counts["/gone"] == 2 and "http_404" in file.read_text()


PRIVATE = ["127.0.0.1", "localhost", "[::1]", "10.0.0.1", "169.254.169.254", "[::ffff:127.0.0.1]"]


@pytest.mark.parametrize("host", PRIVATE)
def test_no_address_of_this_machine_or_its_network_is_asked(host, tmp_path):
    url = f"http://{host}:1/a.png"
    assert fetch_all([url], tmp_path, pause=0)[url].status == "private_address"


def test_a_redirect_to_this_machine_is_not_followed(web, tmp_path, monkeypatch):
    hosts = []
    refuse = fetch._refuse_private
    monkeypatch.setattr(
        fetch, "_refuse_private", lambda r: (hosts.append(str(r.url)), len(hosts) > 1 and refuse(r))
    )
    (one,) = fetched(web, "moved", folder=tmp_path, private=False)
    assert one.status == "private_address" and not web.counts["/picture"]
    assert hosts == [f"{web.url}/moved", f"{web.url}/picture"]


def test_a_second_run_asks_only_for_what_may_still_come(web, tmp_path):
    names = ["picture", "gone", "page", "refused", "busy"]
    first = fetched(web, *names, folder=tmp_path)
    before = web.counts.copy()
    assert fetched(web, *names, folder=tmp_path) == first
    assert web.counts - before == {"/refused": 1}


def test_an_interrupted_write_is_not_taken_for_the_picture(web, tmp_path, monkeypatch):
    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files, "_sync", killed)
        fetched(web, "picture", folder=tmp_path)
    (one,) = fetched(web, "picture", folder=tmp_path)
    assert one.path.read_bytes() == png() and web.counts["/picture"] == 2


def test_one_request_at_a_time_to_a_host_with_a_pause_and_a_name(web, tmp_path):
    names = [f"picture?{k}" for k in range(5)]
    fetched(web, *names, *names, folder=tmp_path, pause=0.05)
    assert web.most_at_once == 1 and sum(web.counts.values()) == 5
    assert min(b - a for a, b in zip(web.times, web.times[1:], strict=False)) >= 0.05
    (agent,) = web.agents
    assert agent.startswith("sgvl/")
