"""Pictures at URLs: downloaded once, kept on disk, each with its status.

One request at a time goes to a host, with a pause between two and a User-Agent that names the kit;
a busy server's Retry-After is followed. Each finished URL is one file, written atomically, so that
an interrupted run continues where it stopped.
"""

import hashlib
import ipaddress
import json
import re
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import httpx2
from tenacity import RetryCallState, retry, retry_if_result, stop_after_attempt, wait_exponential

from sgvl import __version__
from sgvl.common.files import write
from sgvl.data.real_rows import OK, picture_status

AGENT = f"sgvl/{__version__} (research on image guardrails)"
HOSTS_AT_ONCE = 8
TRIES = 3
LONGEST_WAIT = 60.0  # seconds; caps Retry-After
LONGEST_TRANSFER = 120.0  # seconds; a server that sends byte by byte would block its host for ever
LARGEST = 50_000_000  # bytes
BUSY = {429, 500, 502, 503, 504}


class Fetched(NamedTuple):
    """The result for one URL: a status of ``sgvl.data.real_rows``, and the file if it is "ok"."""

    status: str
    path: Path | None = None


def fetch_all(
    urls: Iterable[str],
    folder: Path,
    timeout: float = 20.0,
    pause: float = 0.5,
    private: bool = False,
) -> dict[str, Fetched]:
    """Download the pictures that ``folder`` does not hold yet, and return each URL's result.

    Parameters
    ----------
    urls : web addresses; repeated ones are requested once
    folder : where pictures and final failures are kept
    timeout : seconds for each step of a request
    pause : seconds between two requests to one host
    private : also ask addresses that are not public, such as this machine's; without it neither a
        URL nor a redirect reaches them

    Returns
    -------
    dict
        By URL. Statuses of failures: "bad_url", "private_address", "http_404" and its like,
        "timeout", "unreachable", "too_large", and the ``kind`` of an ``ImageError`` for content
        that is no picture. The last kind, 404 and 410 are final; the next run tries all others
        again.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hosts: dict[str, list[str]] = {}
    for url in dict.fromkeys(urls):
        hosts.setdefault(_host(url), []).append(url)
    client = httpx2.Client(
        follow_redirects=True,
        timeout=timeout,
        headers={"User-Agent": AGENT},
        event_hooks={"request": [] if private else [_refuse_private]},
    )
    with client, ThreadPoolExecutor(HOSTS_AT_ONCE) as pool:
        parts = pool.map(lambda own: _from_host(client, own, folder, pause), hosts.values())
        return {url: fetched for part in parts for url, fetched in part.items()}


def _host(url: str) -> str:
    """Return the host of a web address, or "" for anything else, such as a file's."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    return parts.netloc if parts.scheme in ("http", "https") else ""


class _PrivateAddress(Exception):
    """A host that is not on the public internet."""


def _refuse_private(request: httpx2.Request) -> None:
    """Raise _PrivateAddress for a host of this machine or its network; called for redirects too.

    A name that is not resolved here is left to the request, which a proxy may answer.
    """
    with suppress(OSError):
        for *_, address in socket.getaddrinfo(request.url.host, None):
            if not ipaddress.ip_address(address[0].partition("%")[0]).is_global:
                raise _PrivateAddress(request.url.host)


def _from_host(client, urls: list[str], folder: Path, pause: float) -> dict[str, Fetched]:
    results = {}
    for url in urls:
        name = hashlib.sha256(url.encode(errors="backslashreplace")).hexdigest()
        picture, failure = folder / name, folder / f"{name}.json"
        if picture.is_file():
            results[url] = Fetched(OK, picture)
        elif status := _stored(failure):
            results[url] = Fetched(status)
        else:
            status, content, *_ = _get(client, url)
            results[url] = Fetched(status, picture if status == OK else None)
            if status == OK:
                write(picture, content)
            elif status in ("http_404", "http_410") or content:
                write(failure, json.dumps({"url": url, "status": status}))
            time.sleep(pause)
    return results


def _stored(failure: Path) -> str:
    """Return the status in the file of a final failure; "" if there is none or it is damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return str(json.loads(failure.read_text("utf-8"))["status"])
    return ""


class _Response(NamedTuple):
    """The response to one request; content without status "ok" is not a picture."""

    status: str
    content: bytes = b""
    retry_after: str | None = None  # None: another try would change nothing


def _wait(state: RetryCallState) -> float:
    """Return the seconds before the next try: Retry-After up to a limit, or else 1, 2, 4 ..."""
    seconds = state.outcome.result().retry_after
    if not re.fullmatch("[0-9]+", seconds):  # a date, or nothing that the standard knows
        return wait_exponential()(state)
    return min(float(seconds), LONGEST_WAIT)


@retry(
    retry=retry_if_result(lambda response: response.retry_after is not None),
    stop=stop_after_attempt(TRIES),
    wait=_wait,
    retry_error_callback=lambda state: state.outcome.result(),
)
def _get(client, url: str) -> _Response:
    if not _host(url):
        return _Response("bad_url")
    try:
        with client.stream("GET", url) as response:
            if response.is_success:
                return _read(response)
            after = response.headers.get("Retry-After", "")
            code = response.status_code
            return _Response(f"http_{code}", retry_after=after if code in BUSY else None)
    except httpx2.TimeoutException:
        return _Response("timeout", retry_after="")
    except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, ValueError):  # a host like a..b
        return _Response("bad_url")
    except _PrivateAddress:
        return _Response("private_address")
    except httpx2.HTTPError:  # no such host, refused, cut short, too many redirects
        return _Response("unreachable", retry_after="")


def _read(response) -> _Response:
    content, end = bytearray(), time.monotonic() + LONGEST_TRANSFER
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > LARGEST:
            return _Response("too_large")
        if time.monotonic() > end:
            return _Response("timeout")
    return _Response(picture_status({"bytes": bytes(content)}), bytes(content))
