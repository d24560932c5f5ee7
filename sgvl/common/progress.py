"""Progress as a few printed lines, which an executed notebook can keep, and counts in words."""

import time
from collections.abc import Callable


def printer(every: float = 10.0) -> Callable[[int, int], None]:
    """Return a callback ``say(done, total)`` that prints progress at most every ``every`` seconds.

    It always prints at the end, then without an estimate of what is left.
    """
    begun = last = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < every:
            return
        last = now
        left = f", about {(now - begun) / done * (total - done):.0f} s left" * (done < total)
        print(f"{done} of {total}, {now - begun:.0f} s{left}", flush=True)

    return say


def counted(number: int, noun: str) -> str:
    """Return a number with its noun, whose plural ends in s.

    >>> counted(1, "picture"), counted(1200, "picture")
    ('1 picture', '1,200 pictures')
    """
    return f"{number:,} {noun}{'s' * (number != 1)}"
