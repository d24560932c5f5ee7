"""Drafts of what comes next in a reply: earlier replies to the request, and phrases.

Judges of one base often say the same of a picture under a policy. A judge's replies repeat each
other, too: they quote the policy, and say the same of the same thing. A draft costs nothing if it
is wrong but the time to check it; see ``sgvl.judges.chat.rows``.
"""

from collections.abc import Hashable, Sequence
from typing import NamedTuple

LONGEST = 4  # tokens that a phrase goes on from, at most
LIMIT = 1_000_000  # phrases that are remembered: about 200 MB
DRAFTED = 3  # tokens of a draft from phrases, at most: a wrong one is computed for nothing
WHOLE = 8  # of one from an earlier reply
PROMPTS = 64  # whose phrases are remembered
REPLIES = 4  # to a request that are remembered, the last ones
REQUESTS = 50_000  # whose replies are remembered: about 100 MB


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


class Memory:
    """What judges with one vocabulary have said in this process; it decides speed only."""

    def __init__(self):
        self.said = Phrases()  # of all replies
        self.quoted: dict[str, Phrases] = {}  # of the last prompts, with the replies to them
        self.replies: dict[Hashable, list[list[int]]] = {}  # by request

    def drafter(self, request: tuple, tokens: Sequence[int], seen: Phrases) -> "Drafter":
        """Return what drafts the reply to a request.

        Parameters
        ----------
        request : what identifies it; the last part is the text of the prompt
        tokens : of the prompt
        seen : phrases of replies about the same picture
        """
        prompt = request[-1]
        if prompt not in self.quoted:
            if len(self.quoted) == PROMPTS:
                del self.quoted[next(iter(self.quoted))]
            self.quoted[prompt] = Phrases()
            self.quoted[prompt].learn(tokens)
        return Drafter(self, request, [self.said, self.quoted[prompt], seen])


_memories: dict[int, Memory] = {}  # by vocabulary


def memory_of(vocabulary: int) -> Memory:
    """Return the memory of the judges with a vocabulary."""
    return _memories.setdefault(vocabulary, Memory())


def forget() -> None:
    """Forget all that was said."""
    _memories.clear()


class Drafter(NamedTuple):
    """Drafts the reply to a request, and learns from it."""

    memory: Memory
    request: tuple
    phrases: Sequence[Phrases]

    def draft(self, before: list[int], reply: list[int], most: int) -> list[int]:
        """Return up to ``most`` tokens that may follow those of the prompt and of the reply."""
        for earlier in self.memory.replies.get(self.request, ()):
            if len(earlier) > len(reply) and earlier[: len(reply)] == reply:
                return earlier[len(reply) :][: min(most, WHOLE)]
        return draft(self.phrases, before + reply, min(most, DRAFTED))

    def learn(self, before: list[int], reply: list[int]) -> None:
        """Remember a reply; what another judge has said before is learned already."""
        replies = self.memory.replies
        earlier = replies.get(self.request, [])
        if reply not in earlier:
            for phrases in self.phrases:
                phrases.learn(before + reply)
        if earlier or len(replies) < REQUESTS:
            others = [one for one in earlier if one != reply]
            replies[self.request] = [reply, *others][:REPLIES]
