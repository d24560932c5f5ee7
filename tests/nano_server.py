"""A server that speaks the chat completions protocol with the shipped model behind it.

It runs as a process of its own, and prints its URL when it is ready. What it does between a request
and its reply is transformers' own: the chat template, the processor and greedy generation, one
request at a time.
"""

import base64
import io
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Lock

import torch
from PIL import Image

from sgvl.models import loading

NAME = "nano-served"
MODEL, PROCESSOR = loading.load("nano")
ONE_AT_A_TIME = Lock()


def prompt(messages: list[dict]) -> tuple[str, list[Image.Image]]:
    """The text and the pictures of messages as they came over the wire."""
    images, turns = [], []
    for message in messages:
        blocks = []
        for block in message["content"]:
            if block["type"] == "image_url":
                data = base64.b64decode(block["image_url"]["url"].partition(",")[2])
                images.append(Image.open(io.BytesIO(data)))
                block = {"type": "image"}
            blocks.append(block)
        turns.append({"role": message["role"], "content": blocks})
    text = PROCESSOR.apply_chat_template(turns, add_generation_prompt=True, tokenize=False)
    return text, images


def written(id_: int) -> str:
    return PROCESSOR.tokenizer.decode([id_])


def places(ids: list[int], logits, top: int) -> list[dict]:
    """Each token of a reply with the likeliest at its place, as the protocol has them."""
    found = []
    for id_, row in zip(ids, logits, strict=True):
        scores = row[0].float().log_softmax(-1)
        near = [
            {"token": written(int(k)), "logprob": float(scores[k])} for k in scores.topk(top)[1]
        ]
        own = {"token": written(id_), "logprob": float(scores[id_])}
        found.append(own | {"bytes": None, "top_logprobs": near})
    return found


def complete(request: dict) -> dict:
    assert request["temperature"] == 0 and request["model"] == NAME, request
    text, images = prompt(request["messages"])
    inputs = PROCESSOR(text=[text], images=images, return_tensors="pt")
    with ONE_AT_A_TIME:
        out = MODEL.generate(
            **inputs,
            max_new_tokens=request["max_tokens"],
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    ids = out.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    ended = ids[-1] == MODEL.generation_config.eos_token_id
    ids = ids[:-1] if ended else ids
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": PROCESSOR.tokenizer.decode(ids)},
        "finish_reason": "stop" if ended else "length",
        "logprobs": None,
    }
    if request.get("logprobs"):
        near = places(ids, out.logits[: len(ids)], request["top_logprobs"])
        choice["logprobs"] = {"content": near}
    return {"object": "chat.completion", "model": NAME, "choices": [choice]}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.send({"object": "list", "data": [{"id": NAME, "object": "model"}]})

    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.send(complete(request))

    def send(self, answer: dict) -> None:
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    torch.set_num_threads(1)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(f"http://127.0.0.1:{server.server_port}/v1", flush=True)
    server.serve_forever()
