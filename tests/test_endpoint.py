"""The client of a server, closed while its requests are in flight."""

import gzip
import socket
import threading
import time
from contextlib import suppress

import pytest
from scripted_server import says

from sgvl.models import endpoint as module
from sgvl.models.endpoint import GRACE, Endpoint, Requests
from sgvl.models.reply import Reply


def test_closing_starts_no_request_and_does_not_wait_for_a_slow_server(server):
    server.script = {text: [(200, says(text), 20)] for text in ("slow", "slower")}
    endpoint = Endpoint("a test", "m", server.url, "PNG", 0, 2, 60.0, 5, "")
    requests = (Requests(text, [f"Policy: {text}"]) for text in ("quick", "slow", "slower", "last"))
    replies = endpoint.replies(requests)
    assert next(replies) == ("quick", [Reply("quick and a knife")])
    began = time.monotonic()
    replies.close()
    assert time.monotonic() - began < GRACE + 5
    assert "last" not in server.texts() and len(server.asked) <= 3


HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
LISTED = HEAD + b"Content-Length: 11\r\n\r\n" + b'{"data":[]}'


def drip(connection, content: bytes) -> None:
    for byte in content:
        connection.sendall(bytes([byte]))
        time.sleep(0.05)


def head_by_bytes(connection) -> None:
    drip(connection, HEAD + b"X: " + b"a" * 10_000)


def body_by_bytes(connection) -> None:
    connection.sendall(HEAD + b"Content-Length: 10000\r\n\r\n")
    drip(connection, says("x" * 9_000))


def without_end(connection) -> None:
    connection.sendall(HEAD + b"\r\n")
    while True:
        connection.sendall(b" " * 10_000)


def compressed(connection) -> None:
    body = gzip.compress(b" " * 1_000_000)
    connection.sendall(HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body))
    connection.sendall(body)


@pytest.fixture
def raw():
    """A function that serves every question as another one does, and returns the URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve(connection, answer) -> None:
        with connection, suppress(OSError):
            request = connection.recv(65536)
            if request.startswith(b"GET"):
                connection.sendall(LISTED)
                request = connection.recv(65536)
            if request:
                answer(connection)

    def accept(answer) -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection, answer), daemon=True).start()

    def start(answer) -> str:
        threading.Thread(target=accept, args=(answer,), daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}/v1"

    yield start
    listener.close()


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (head_by_bytes, "time-out"),
        (body_by_bytes, "time-out"),
        (without_end, "the response is over 1 MB"),
        (compressed, "the response is compressed (gzip), though none was asked for"),
    ],
)
def test_a_response_has_a_limit_of_time_and_of_bytes(raw, answer, told, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(module, "MOST", 1_000_000)
    endpoint = Endpoint("a test", "m", raw(answer), "PNG", 0, 1, 1.0, 0, "")
    began = time.monotonic()
    ((_, (reply,)),) = endpoint.replies([Requests("k", ["Is it safe?"])])
    assert reply.error == told
    assert time.monotonic() - began < 1 + 1 + GRACE + 2
