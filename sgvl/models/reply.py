"""What a model replied, whoever asked it."""

from typing import NamedTuple

REFUSED = "refused"  # how a request ended that the server would refuse again


class OfRequest(str):
    """An error of one request, which says nothing about those that follow."""


class Refused(str):
    """An error of one request that a server would repeat, such as HTTP 400.

    It is stored as an answer without text as soon as another request shows that the server works.
    """


class Filtered(Refused):
    """A refusal by a content filter, which says itself that the server works."""


class Reply(NamedTuple):
    """One reply of a model to one request.

    Parameters
    ----------
    text : the reply as it came, before anything is parsed; "" if there is an error
    finish : why it ended: "stop", "length" (cut at the limit), "refusal" (of the model), "refused"
        (by the server, with an error), "picture" (an edit: ``text`` names its file), or another
        word of the server, such as "content_filter"
    error : why there is no reply, such as "time-out"; "" if there is one
    tokens : per token of the text, where the server sent log-probabilities: the token and its
        likeliest alternatives as (token, log-probability)
    """

    text: str
    finish: str = "stop"
    error: str = ""
    tokens: tuple[tuple[str, tuple[tuple[str, float], ...]], ...] = ()
