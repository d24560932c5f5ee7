"""A hub on this machine that takes uploads, too: see ``sgvl.run.rehearsal.hub``."""

import base64
import json
import re

from sgvl.run.rehearsal.hub import COMMIT, Handler, local_hub, serving

__all__ = ["COMMIT", "local_hub", "serving", "writable_hub"]

COMMIT_TO = re.compile(r"/api/datasets/(?P<repo>[^/]+/[^/]+)/commit/main")


class WritableHandler(Handler):
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


def writable_hub():
    """A hub whose members may send files to it."""
    return local_hub(WritableHandler)
