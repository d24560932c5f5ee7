"""Phrases: what has followed the last few tokens before, to draft what comes next.

A judge's replies repeat each other: they quote the policy, and say the same of the same thing. A
draft costs nothing if it is wrong but the time to check it; see ``sgvl.judges.chat.rows``.
"""

from collections.abc import Sequence

LONGEST = 4  # tokens that a phrase goes on from, at most
LIMIT = 1_000_000  # phrases that are remembered: about 200 MB


class Phrases:
    """Remembers which token followed runs of one to four, and how often without exception."""

    def __init__(self):
        self.after: dict[tuple[int, ...], tuple[int, int]] = {}

    def learn(self, tokens: Sequence[int]) -> None:
        if len(self.after) > LIMIT:
            self.after.clear()
        for i in range(1, len(tokens)):
            for start in range(max(0, i - LONGEST), i):
                run = tuple(tokens[start:i])
                token, times = self.after.get(run, (tokens[i], 0))
                self.after[run] = tokens[i], times + 1 if token == tokens[i] else 0


def draft(known: Sequence[Phrases], tokens: Sequence[int], most: int) -> list[int]:
    """Return up to ``most`` tokens that probably come next.

    Each is the one that has followed most often without exception, in any of ``known``; of equals,
    after the longest run. The draft ends where the last run had another continuation before.
    """
    drafted, last = [], tuple(tokens[-LONGEST:])
    while len(drafted) < most:
        runs = [last[start:] for start in range(len(last))]
        found = [phrases.after[run] for run in runs for phrases in known if run in phrases.after]
        token, times = max(found, key=lambda one: one[1], default=(0, 0))
        if not times:
            break
        drafted.append(token)
        last = (*last, token)[-LONGEST:]
    return drafted
