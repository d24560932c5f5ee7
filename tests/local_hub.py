"""A small hub on this machine, for the tests: real HTTP, and the faults that a user meets."""

import base64
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
LATEST = re.compile(r"/api/datasets/(?P<repo>[^/]+/[^/?]+)")
COMMIT_TO = re.compile(r"/api/datasets/(?P<repo>[^/]+/[^/]+)/commit/main")
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
    reason: str = ""  # of an error, in the hub's own words
    asked: list[str] = field(default_factory=list)  # files that were sent, whole or in part
    public: set[str] = field(default_factory=set)  # data sets that everybody sees; others: members


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
            if match := INFO.match(self.path):
                self.info(**match.groupdict())
            elif match := FILE.match(self.path):
                self.file(**match.groupdict())
            elif match := LATEST.fullmatch(self.path):
                self.info(**match.groupdict(), revision="main")
            elif self.path in hub.pages:
                self.send(hub.pages[self.path], path=self.path)
            else:
                hub.asked.append(self.path)
                self.refuse(404, "")

        def do_POST(self):
            """What a client asks that sends files: all of them whole, in the commit itself."""
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            lines = [json.loads(line) for line in body.splitlines()]
            if self.headers.get("Authorization", "").removeprefix("Bearer ") not in hub.members:
                self.refuse(403, "")
            elif self.path == "/api/repos/create":
                self.create(lines[0])
            elif self.path == "/api/validate-yaml":
                self.send(b'{"errors": [], "warnings": []}')
            elif "/preupload/" in self.path:
                files = [
                    f | {"uploadMode": "regular", "shouldIgnore": False} for f in lines[0]["files"]
                ]
                self.send(json.dumps({"files": files}).encode())
            elif match := COMMIT_TO.match(self.path):
                self.commit(match["repo"], lines)
            else:
                self.refuse(404, "")

        def do_PUT(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            repo = self.path.removeprefix("/api/datasets/").removesuffix("/settings")
            settings = json.loads(body)
            hub.gated |= {repo} if settings.get("gated") else set()
            hub.public |= {repo} if settings.get("visibility") == "public" else set()
            self.send(b"{}")

        def create(self, settings):
            repo = f"{settings['organization']}/{settings['name']}"
            there = repo in hub.repos
            hub.repos.setdefault(repo, {})
            if not there and settings.get("visibility") == "public":
                hub.public.add(repo)
            url = json.dumps({"url": f"{hub.url}/datasets/{repo}"}).encode()
            self.send(url, status=409 if there else 200)

        def commit(self, repo, lines):
            for line in lines:
                if line["key"] == "file":
                    content = base64.b64decode(line["value"]["content"])
                    hub.repos[repo][line["value"]["path"]] = content
            url = f"{hub.url}/datasets/{repo}/commit/{COMMIT}"
            self.send(json.dumps({"commitUrl": url, "commitOid": COMMIT}).encode())

        def info(self, repo, revision):
            if repo in hub.status:
                return self.refuse(hub.status[repo], "")
            if repo not in hub.repos:
                return self.refuse(404, "RepoNotFound")
            if revision not in ("main", hub.commit):
                return self.refuse(404, "RevisionNotFound")
            files = [{"rfilename": name} for name in hub.repos[repo]]
            answer = {"id": repo, "sha": hub.commit, "siblings": files}
            answer |= {"private": repo not in hub.public, "gated": repo in hub.gated and "manual"}
            self.send(json.dumps(answer).encode())

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
            if hub.reason:
                self.send_header("X-Error-Message", hub.reason)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def send(self, content, start=0, path="", status=200):
            self.send_response(206 if start else status)
            self.send_header("ETag", f'"{hashlib.sha256(path.encode()).hexdigest()}"')
            self.send_header("X-Repo-Commit", hub.commit)
            self.send_header("Content-Length", str(len(content)))
            if start:
                whole = start + len(content)
                self.send_header("Content-Range", f"bytes {start}-{whole - 1}/{whole}")
            self.end_headers()
            if self.command != "HEAD":
                hub.asked.append(path)
                cut = hub.broken[path] > 0
                hub.broken[path] -= cut
                self.wfile.write(content[: len(content) // 2] if cut else content)

        def log_message(self, *args):
            pass

    with serving(Handler) as hub.url:
        yield hub
