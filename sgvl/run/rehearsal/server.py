"""One server for a rehearsal: the hub, the web, and every OpenAI-compatible server.

It is the proxy of the processes that rehearse, so that it answers whatever address they ask, and no
request leaves this machine. A server that a profile declares has a process of its own instead:

    python -m sgvl.run.rehearsal.server PORT MODEL
"""

import json
import re
import sys
from http.server import ThreadingHTTPServer
from zlib import crc32

from sgvl.run.rehearsal.hub import Handler, Hub

RATING = '{{"rating": "{}", "category": "{}", "rationale": "what it shows"}}'
REPLIES = {  # by a text of the request: the replies for safe and for unsafe
    '"rating"': (
        RATING.format("Safe", "NA: None applying"),
        RATING.format("Unsafe", "O6: Weapons or Substance Abuse"),
    ),
    "Answer:": ("I see a tree. Answer: safe", "I see a weapon. Answer: unsafe"),
    "unsafe": ("safe", "unsafe"),
}


class RehearsalHandler(Handler):
    """Answers as the hub does, gives pages of the web, and completes chats and judges by rule."""

    protocol_version = "HTTP/1.1"
    model = ""  # the one that it lists; without it, it has no list

    def do_GET(self):
        if self.path.endswith("/v1/models") and self.model:
            self.send(json.dumps({"object": "list", "data": [{"id": self.model}]}).encode())
        elif self.path.endswith("/v1/models"):
            self.refuse(404, "")
        else:
            super().do_GET()

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        answer = next((ask for path, ask in ANSWERS.items() if self.path.endswith(path)), None)
        if answer:
            self.send(json.dumps(answer(request)).encode(), kind="application/json")
        else:
            self.refuse(404, "")


def complete(request: dict) -> dict:
    """Return a chat completion; what it says depends on the request alone."""
    reply = answer(request["messages"])
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": reply},
        "finish_reason": "stop",
        "logprobs": None,
    }
    if request.get("logprobs"):
        choice["logprobs"] = {"content": [_token(token) for token in re.findall(r"\s*\S+", reply)]}
    return {"object": "chat.completion", "model": request["model"], "choices": [choice]}


def answer(messages: list[dict]) -> str:
    """Return the reply to a conversation: a verdict, a recaption, a letter or a caption."""
    blocks = messages[-1]["content"]
    text = blocks if isinstance(blocks, str) else " ".join(b.get("text", "") for b in blocks)
    choice = crc32(json.dumps(messages).encode())
    for mark, replies in REPLIES.items():
        if mark in text:
            return replies[choice % 2]
    if caption := re.search(r"Caption: (.*)", text):
        return f"{caption[1]} and a {('knife', 'weapon', 'wound')[choice % 3]}"
    if "option" in text.lower():
        return "ABCD"[choice % 4]
    return f"A {('dog', 'tree', 'street')[choice % 3]} in the picture."


def moderate(request: dict) -> dict:
    """Return a moderation; its scores depend on the request alone."""
    score = _chance(request)
    scores = {"sexual": score / 2, "violence": score, "illicit": 0.0}
    result = {
        "flagged": score > 0.5,
        "categories": {name: value > 0.5 for name, value in scores.items()},
        "category_scores": scores,
        "category_applied_input_types": {"sexual": ["image"], "violence": ["image"], "illicit": []},
    }
    return {"id": "modr-rehearsal", "model": request["model"], "results": [result]}


def decide(request: dict) -> dict:
    """Return one probability a question; it depends on the request alone."""
    answers = [
        {
            "type": "predicate",
            "name": question.get("name"),
            "probability": _chance([request, question]),
        }
        for question in request["questions"]
    ]
    return {"model": request["model"], "answers": answers}


def _chance(asked) -> float:
    return crc32(json.dumps(asked).encode()) / 2**32


ANSWERS = {"/chat/completions": complete, "/moderations": moderate, "/decisions": decide}


def _token(token: str) -> dict:
    likeliest = [{"token": token, "logprob": -0.1}, {"token": " other", "logprob": -2.4}]
    return {"token": token, "logprob": -0.1, "bytes": None, "top_logprobs": likeliest}


def serve(port: int, model: str) -> None:
    """Answer chats about one model on a port of this machine, until the process is ended."""
    handler = type("OneModel", (RehearsalHandler,), {"hub": Hub(), "model": model})
    ThreadingHTTPServer(("127.0.0.1", port), handler).serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), sys.argv[2])
