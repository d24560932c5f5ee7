"""What a model replied, whoever asked it."""

from typing import NamedTuple


class OfRequest(str):
    """An error of one request, which says nothing about those that follow."""


class Reply(NamedTuple):
    """One reply of a model to one request.

    Parameters
    ----------
    text : the reply as it came, before anything is parsed; "" if there is an error
    finish : why it ended: "stop", "length" (cut at the limit) or "refusal"
    error : why there is no reply, such as "time-out"; "" if there is one
    tokens : per token of the text, where the server sent log-probabilities: the token and its
        likeliest alternatives as (token, log-probability)
    """

    text: str
    finish: str = "stop"
    error: str = ""
    tokens: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()
