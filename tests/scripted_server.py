"""A server on this machine that speaks the protocols of chats, moderations and decisions.

It misbehaves on request.
"""

import json
import re
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest


def says(text, finish="stop", **message) -> bytes:
    message = {"role": "assistant", "content": text, **message}
    return json.dumps({"choices": [{"message": message, "finish_reason": finish}]}).encode()


class Server(ThreadingHTTPServer):
    """Answers by script: ``script[text]`` is what it does next about that text, as (status, body,
    seconds that it takes); status 0 closes the connection. What has no script gets the text and
    ``plain`` back.

    The text is what follows "Caption: " or "Policy: " in a line of the question. ``models`` is what
    it answers to a look-up of its models, as (status, body).
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.plain = {}, " and a knife"
        self.asked, self.times, self.keys = [], [], []
        self.models = (404, b"{}")
        self.paths = {"/v1/chat/completions", "/v1/moderations", "/v1/decisions"}
        self.running, self.most, self.delay, self.lock = 0, 0, 0.0, threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def texts(self) -> list[str]:
        return list(map(about, self.asked))


def about(request: dict) -> str:
    if "questions" in request:  # of a decision, in the second line
        return request["questions"][0]["instructions"].splitlines()[1]
    if "messages" not in request:  # a moderation asks about a picture alone
        return ""
    *_, text = [b["text"] for b in request["messages"][-1]["content"] if b["type"] == "text"]
    return re.split("Caption: |Policy: ", text)[-1].partition("\n")[0]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.server.keys.append(self.headers["Authorization"])
        self.send(*(self.server.models if self.path == "/v1/models" else (404, b"{}")))

    def do_POST(self):
        server = self.server
        with server.lock:
            server.running += 1
            server.most = max(server.most, server.running)
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            server.asked.append(request)
            server.times.append(time.monotonic())
            server.keys.append(self.headers["Authorization"])
            text = server.texts()[-1]
            steps = server.script.get(text) or [(200, says(text + server.plain), 0)]
            status, body, seconds = steps.pop(0) if len(steps) > 1 else steps[0]
        time.sleep(seconds or server.delay)
        with server.lock:
            server.running -= 1
        self.send(status if self.path in server.paths else 404, body)

    def send(self, status: int, body: bytes) -> None:
        if status == 0:
            self.close_connection = True
            return
        kind = "text/html" if body.startswith(b"<") else "application/json"
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        if status != 200:
            self.send_header("Retry-After", "0.05")
        try:
            self.end_headers()
            self.wfile.write(body)
        except OSError:  # the client went away, as after a time-out
            pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
