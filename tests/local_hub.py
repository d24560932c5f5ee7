"""A hub on this machine that takes uploads, and fails on purpose: see ``run.rehearsal.hub``."""

import base64
import json
import re
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field

from sgvl.run.rehearsal import hub
from sgvl.run.rehearsal.hub import COMMIT, Handler, serving

__all__ = ["COMMIT", "serving", "writable_hub"]

COMMIT_TO = re.compile(r"/api/datasets/(?P<repo>[^/]+/[^/]+)/commit/main")


@dataclass
class Hub(hub.Hub):
    broken: Counter = field(default_factory=Counter)  # file -> how many more times it is cut short
    status: dict[str, int] = field(default_factory=dict)  # repo -> an error in its place
    reason: str = ""  # of an error, in the hub's own words
    asked: list[str] = field(default_factory=list)  # files that were sent, whole or in part
    public: set[str] = field(default_factory=set)  # data sets that everybody sees; others: members


class FailingHandler(Handler):
    """Notes what is asked for, and fails where its hub says so."""

    def info(self, repo, revision):
        if repo in self.hub.status:
            return self.refuse(self.hub.status[repo], "")
        return super().info(repo, revision)

    def about(self, repo):
        return super().about(repo) | {"private": repo not in self.hub.public}

    def send_response(self, status, message=None):
        super().send_response(status, message)
        if status >= 400 and self.hub.reason:
            self.send_header("X-Error-Message", self.hub.reason)

    def refuse(self, status, code):
        self.hub.asked += [self.path] * (status == 404 and not code)
        super().refuse(status, code)

    def send(self, content, start=0, path="", status=200, kind=""):
        cut = self.command == "GET" and self.hub.broken[path] > 0
        self.hub.asked += [path] * (self.command != "HEAD")
        if cut:  # the headers of the whole, and a half
            self.hub.broken[path] -= 1
            self.command = "HEAD"
        super().send(content, start, path, status, kind)
        if cut:
            self.wfile.write(content[: len(content) // 2])


class WritableHandler(FailingHandler):
    def do_POST(self):
        """What a client asks that sends files: all of them whole, in the commit itself."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        lines = [json.loads(line) for line in body.splitlines()]
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in self.hub.members:
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
        self.hub.gated |= {repo} if settings.get("gated") else set()
        self.hub.public |= {repo} if settings.get("visibility") == "public" else set()
        self.send(b"{}")

    def create(self, settings):
        repo = f"{settings['organization']}/{settings['name']}"
        there = repo in self.hub.repos
        self.hub.repos.setdefault(repo, {})
        if not there and settings.get("visibility") == "public":
            self.hub.public.add(repo)
        url = json.dumps({"url": f"{self.hub.url}/datasets/{repo}"}).encode()
        self.send(url, status=409 if there else 200)

    def commit(self, repo, lines):
        for line in lines:
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.hub.repos[repo][line["value"]["path"]] = content
        url = f"{self.hub.url}/datasets/{repo}/commit/{COMMIT}"
        self.send(json.dumps({"commitUrl": url, "commitOid": COMMIT}).encode())


@contextmanager
def writable_hub():
    """A hub whose members may send files to it."""
    served = Hub()
    with serving(type("OneHub", (WritableHandler,), {"hub": served})) as served.url:
        yield served
