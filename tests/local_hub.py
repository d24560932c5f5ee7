"""A small hub on this machine, for the tests: real HTTP, and the faults that a user meets."""

import hashlib
import json
import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "1a2b3c4d" * 5
INFO = re.compile(r"/api/datasets/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/?]+)")
FILE = re.compile(
    r"(?:/datasets)?/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>[^?]+)"
)


@dataclass
class Hub:
    """What is served: data sets and models by name, each with its files."""

    url: str = ""
    commit: str = COMMIT  # what ``main`` names
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    pages: dict[str, bytes] = field(default_factory=dict)  # path -> what lies beside the data sets
    gated: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)  # tokens that have accepted the terms
    broken: Counter = field(default_factory=Counter)  # file -> how many more times it is cut short
    status: dict[str, int] = field(default_factory=dict)  # repo -> an error in its place
    asked: list[str] = field(default_factory=list)  # files that were sent, whole or in part


@contextmanager
def serving(handler):
    """A server on a free port, in a thread; yields its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def local_hub():
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            if found := INFO.match(self.path):
                self.info(**found.groupdict())
            elif found := FILE.match(self.path):
                self.file(**found.groupdict())
            elif self.path in hub.pages:
                self.send(hub.pages[self.path], path=self.path)
            else:
                hub.asked.append(self.path)
                self.refuse(404, "")

        def info(self, repo, revision):
            if repo in hub.status:
                return self.refuse(hub.status[repo], "")
            if repo not in hub.repos:
                return self.refuse(404, "RepoNotFound")
            if revision not in ("main", hub.commit):
                return self.refuse(404, "RevisionNotFound")
            files = [{"rfilename": name} for name in hub.repos[repo]]
            self.send(json.dumps({"id": repo, "sha": hub.commit, "siblings": files}).encode())

        def file(self, repo, revision, path):
            token = self.headers.get("Authorization", "").removeprefix("Bearer ")
            if repo in hub.gated and token not in hub.members:
                return self.refuse(403 if token else 401, "GatedRepo")
            if repo not in hub.repos:
                return self.refuse(404, "RepoNotFound")
            content = hub.repos[repo].get(path)
            if content is None or revision not in ("main", hub.commit):
                return self.refuse(404, "EntryNotFound")
            start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
            self.send(content[start:], start, path)

        def refuse(self, status, code):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send(self, content, start=0, path=""):
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha256(path.encode()).hexdigest()}"')
            self.send_header("X-Repo-Commit", hub.commit)
            self.send_header("Content-Length", str(len(content)))
            if start:
                whole = start + len(content)
                self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
            self.end_headers()
            if self.command == "GET":
                hub.asked.append(path)
                cut = hub.broken[path] > 0
                hub.broken[path] -= cut
                self.wfile.write(content[: len(content) // 2] if cut else content)

        def log_message(self, *args):
            pass

    with serving(Handler) as hub.url:
        yield hub
