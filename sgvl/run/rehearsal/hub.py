"""A small hub on this machine: real HTTP, with gates.

``Handler`` answers what a reader asks of the hub. A server with another part, such as one that
takes uploads or fails on purpose, is a subclass.
"""

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

COMMIT = "1a2b3c4d" * 5
INFO = re.compile(r"/api/(?:dataset|model)s/(?P<repo>[^/]+/[^/]+)/revision/(?P<revision>[^/?]+)")
AUTH = re.compile(r"/api/(?:dataset|model)s/(?P<repo>[^/]+/[^/]+)/auth-check")
LATEST = re.compile(r"/api/(?:dataset|model)s/(?P<repo>[^/]+/[^/?]+)")
TREE = re.compile(r"/api/models/(?P<repo>[^/]+/[^/]+)/tree/(?P<revision>[^/?]+)(?:\?.*)?")
FILE = re.compile(
    r"(?:/datasets)?/(?P<repo>[^/]+/[^/]+)/resolve/(?P<revision>[^/]+)/(?P<path>[^?]+)"
)


@dataclass
class Hub:
    """Data sets and models that are served, by name, each with its files."""

    url: str = ""
    commit: str = COMMIT  # what ``main`` names
    revisions: set[str] = field(default_factory=set)  # other names of the same commit
    repos: dict[str, dict[str, bytes]] = field(default_factory=dict)
    pages: dict[str, bytes] = field(default_factory=dict)  # other content, by path or by URL
    gated: set[str] = field(default_factory=set)
    members: set[str] = field(default_factory=set)  # tokens that have accepted the terms


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of the hub's own client, and gives pages at other URLs."""

    hub: Hub

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        if match := INFO.match(self.path):
            self.info(**match.groupdict())
        elif match := TREE.fullmatch(self.path):
            self.tree(**match.groupdict())
        elif match := FILE.match(self.path):
            self.file(**match.groupdict())
        elif match := AUTH.fullmatch(self.path):
            self.auth(**match.groupdict())
        elif match := LATEST.fullmatch(self.path):
            self.info(**match.groupdict(), revision="main")
        elif self.path in self.hub.pages:
            self.send(self.hub.pages[self.path], path=self.path)
        else:
            self.refuse(404, "")

    @property
    def known(self) -> set[str]:
        return {"main", self.hub.commit, *self.hub.revisions}

    def info(self, repo, revision):
        if repo not in self.hub.repos:
            return self.refuse(404, "RepoNotFound")
        if revision not in self.known:
            return self.refuse(404, "RevisionNotFound")
        self.send(json.dumps(self.about(repo)).encode())

    def about(self, repo):
        files = [{"rfilename": name} for name in self.hub.repos[repo]]
        gated = repo in self.hub.gated and "manual"
        return {"id": repo, "sha": self.hub.commit, "siblings": files, "gated": gated}

    def tree(self, repo, revision):
        if repo not in self.hub.repos or revision not in self.known:
            return self.refuse(404, "RepoNotFound")
        rows = [
            {"type": "file", "path": path, "size": len(content), "oid": f"{len(content):040x}"}
            for path, content in self.hub.repos[repo].items()
        ]
        self.send(json.dumps(rows).encode())

    def auth(self, repo):
        if self.may_read(repo):
            self.send(b"{}")

    def may_read(self, repo) -> bool:
        """Return True if the terms of a data set are accepted, or refuse the request."""
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if refused := repo in self.hub.gated and token not in self.hub.members:
            self.refuse(403 if token else 401, "GatedRepo")
        return not refused

    def file(self, repo, revision, path):
        if not self.may_read(repo):
            return None
        if repo not in self.hub.repos:
            return self.refuse(404, "RepoNotFound")
        content = self.hub.repos[repo].get(path)
        if content is None or revision not in self.known:
            return self.refuse(404, "EntryNotFound")
        start = int(re.match(r"bytes=(\d+)-", self.headers.get("Range", "bytes=0-"))[1])
        self.send(content[start:], start, path)

    def refuse(self, status, code):
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def send(self, content, start=0, path="", status=200, kind=""):
        named = self.hub.commit + path
        self.send_response(206 if start else status)
        self.send_header("ETag", f'"{hashlib.sha256(named.encode()).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.hub.commit)
        self.send_header("Content-Length", str(len(content)))
        if kind:
            self.send_header("Content-Type", kind)
        if start:
            whole = start + len(content)
            self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *args):
        pass


@contextmanager
def serving(handler: type) -> Iterator[str]:
    """Start a server on a free port, in a thread; yields its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def local_hub(handler: type) -> Iterator[Hub]:
    """Start a hub that answers by ``handler``; yields what it serves, to be filled."""
    hub = Hub()
    with serving(type("OneHub", (handler,), {"hub": hub})) as hub.url:
        yield hub
