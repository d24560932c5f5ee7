"""One server for a rehearsal: the hub, the web, and every OpenAI-compatible server.

It is the proxy of the processes that rehearse, so that it answers whatever address they ask, and no
request leaves this machine.
"""

import json
import re
from zlib import crc32

from sgvl.run.rehearsal.hub import Handler

COMPLETIONS = "/v1/chat/completions"
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
    """Answers as the hub does, gives pages of the web, and completes chats by rule."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path.endswith("/v1/models"):
            self.refuse(404, "")  # a server without a list of its models
        else:
            super().do_GET()

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.endswith(COMPLETIONS):
            self.send(json.dumps(complete(request)).encode())
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


def _token(token: str) -> dict:
    likeliest = [{"token": token, "logprob": -0.1}, {"token": " other", "logprob": -2.4}]
    return {"token": token, "logprob": -0.1, "bytes": None, "top_logprobs": likeliest}
