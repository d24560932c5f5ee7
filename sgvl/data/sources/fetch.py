"""Pictures at URLs: kept once they are fetched, asked for politely, and each with its status.

Polite: one request at a time to a host, with a pause between; a name that says who asks; waits as
long as a busy server wishes. Resumable: every finished URL is a file of its own, written whole or
not at all, so a run that was interrupted goes on where it stopped.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2

from sgvl import __version__
from sgvl.data.real_rows import OK, picture_status

AGENT = f"sgvl/{__version__} (research on image guardrails)"
HOSTS_AT_ONCE = 8
TRIES = 3
LONGEST_WAIT = 60.0  # seconds, for a server that asks for more
LONGEST_TRANSFER = 120.0  # seconds; a server that drips would hold its host for ever
LARGEST = 50_000_000  # bytes
BUSY = {429, 500, 502, 503, 504}


class Fetched(NamedTuple):
    """What became of a URL: ``status`` as in ``sgvl.data.real_rows``, the file if it is "ok"."""

    status: str
    path: Path | None = None


def fetch_all(
    urls: Iterable[str], folder: Path, timeout: float = 20.0, pause: float = 0.5
) -> dict[str, Fetched]:
    """Fetch what ``folder`` does not hold yet; returns what became of each URL.

    Statuses of failures: "bad_url", "http_404" and its like, "timeout", "unreachable",
    "too_large", and the ``kind`` of an ``ImageError`` for what is no picture, such as a page that
    says so. The last kind and 404 and 410 are final; anything else is tried again by the next run.
    ``timeout`` is in seconds for each step of a request, ``pause`` lies between two to one host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hosts: dict[str, list[str]] = {}
    for url in dict.fromkeys(urls):
        hosts.setdefault(_host(url), []).append(url)
    client = httpx2.Client(follow_redirects=True, timeout=timeout, headers={"User-Agent": AGENT})
    with client, ThreadPoolExecutor(HOSTS_AT_ONCE) as pool:
        parts = pool.map(lambda own: _from_host(client, own, folder, pause), hosts.values())
        return {url: fetched for part in parts for url, fetched in part.items()}


def _host(url: str) -> str:
    """The host of a web address; empty for anything else, such as a file's."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return parts.netloc if parts.scheme in ("http", "https") else ""


def _from_host(client, urls: list[str], folder: Path, pause: float) -> dict[str, Fetched]:
    found = {}
    for url in urls:
        name = hashlib.sha256(url.encode()).hexdigest()
        picture, failure = folder / name, folder / f"{name}.json"
        if picture.is_file():
            found[url] = Fetched(OK, picture)
        elif failure.is_file():
            found[url] = Fetched(json.loads(failure.read_text())["status"])
        else:
            status, content = _get(client, url)
            found[url] = Fetched(status, picture if status == OK else None)
            if status == OK:
                _write(picture, content)
            elif status in ("http_404", "http_410") or content:
                _write(failure, json.dumps({"url": url, "status": status}).encode())
            time.sleep(pause)
    return found


def _get(client, url: str) -> tuple[str, bytes]:
    """Status and content of one URL; content without "ok" is what came in place of a picture."""
    if not _host(url):
        return "bad_url", b""
    status = ""
    for attempt in range(TRIES):
        wait = 2.0**attempt
        try:
            with client.stream("GET", url) as answer:
                if answer.is_success:
                    return _read(answer)
                status = f"http_{answer.status_code}"
                if answer.status_code not in BUSY:
                    break
                asked = answer.headers.get("Retry-After", "")
                wait = min(float(asked), LONGEST_WAIT) if asked.isdigit() else wait
        except httpx2.TimeoutException:
            status = "timeout"
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol):
            return "bad_url", b""
        except httpx2.HTTPError:  # no such host, refused, cut short, too many redirects
            status = "unreachable"
        if attempt < TRIES - 1:
            time.sleep(wait)
    return status, b""


def _read(answer) -> tuple[str, bytes]:
    content, end = bytearray(), time.monotonic() + LONGEST_TRANSFER
    for chunk in answer.iter_bytes():
        content += chunk
        if len(content) > LARGEST:
            return "too_large", b""
        if time.monotonic() > end:
            return "timeout", b""
    return picture_status({"bytes": bytes(content)}), bytes(content)


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all: a kill leaves a file that no run takes for the picture."""
    unfinished = path.with_suffix(".part")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
