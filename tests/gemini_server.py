"""A server on this machine with the wire format of Gemini's generateContent."""

import base64
import io
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from PIL import Image


def picture(image: Image.Image, kind: str = "PNG", **options) -> dict:
    """The part of a response, or of a request, that holds a picture."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    data = base64.b64encode(file.getvalue()).decode()
    return {"inlineData": {"mimeType": f"image/{kind.lower()}", "data": data}}


def response(*parts: dict, finish: str = "STOP", **more) -> bytes:
    candidate = {"content": {"role": "model", "parts": list(parts)}, "finishReason": finish}
    return json.dumps({"candidates": [candidate], **more}).encode()


def error(code: int, message: str, status: str = "INVALID_ARGUMENT") -> tuple[int, bytes]:
    return code, json.dumps(
        {"error": {"code": code, "message": message, "status": status}}
    ).encode()


class Server(ThreadingHTTPServer):
    """Paints a red square of 40 pixels into each picture, unless ``script[instruction]`` has
    answers, as (status, body), of which the last one stays."""

    daemon_threads = True

    def __init__(self, delay: float = 0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.asked, self.keys, self.paths = {}, [], [], []
        self.delay, self.lock = delay, threading.Lock()
        self.url = f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        server = self.server
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        parts = request["contents"][0]["parts"]
        text = next(part["text"] for part in parts if "text" in part)
        blob = next(part["inlineData"] for part in parts if "inlineData" in part)
        with server.lock:
            server.asked.append(text)
            server.keys.append(self.headers["x-goog-api-key"])
            server.paths.append(self.path)
            steps = server.script.get(text)
        time.sleep(server.delay)
        if steps:
            status, body = steps.pop(0) if len(steps) > 1 else steps[0]
        else:
            image = Image.open(io.BytesIO(base64.urlsafe_b64decode(blob["data"]))).convert("RGB")
            image.paste((200, 20, 20), (30, 30, 70, 70))
            status, body = 200, response({"text": "Here it is."}, picture(image))
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def start(delay: float = 0.0) -> Server:
    server = Server(delay)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


EDIT = """
import sys
from PIL import Image
from sgvl import editing
from sgvl.data.images import image_digest
from sgvl.recaption import Item
url, folder, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
editor = editing.make_editor(
    {"kind": "gemini", "model": "m", "url": url, "key_variable": "", "concurrency": 1}
)
items = []
for k in range(count):
    image = Image.new("RGB", (96, 96), (k, 90, 90))
    items.append(Item(f"p{k}", image_digest(image), lambda i=image: i, f"edit {k}"))
rows = editing.edit_all(editor, items, folder)
print(*(row["status"] for row in rows))
"""  # the edits of a child process, which a test kills
