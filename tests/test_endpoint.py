"""The client of a server, closed while its requests are in flight."""

import time

from scripted_server import says

from sgvl.models.endpoint import GRACE, Endpoint, Requests
from sgvl.models.reply import Reply


def test_closing_starts_no_request_and_does_not_wait_for_a_slow_server(server):
    server.script = {text: [(200, says(text), 20)] for text in ("slow", "slower")}
    endpoint = Endpoint("a test", "m", server.url, "PNG", 0, 2, 60.0, 5, "")
    requests = (Requests(text, [f"Policy: {text}"]) for text in ("quick", "slow", "slower", "last"))
    replies = endpoint.replies(requests)
    assert next(replies) == ("quick", [Reply("quick and a knife")])
    began = time.monotonic()
    replies.close()
    assert time.monotonic() - began < GRACE + 5
    assert "last" not in server.texts() and len(server.asked) <= 3
