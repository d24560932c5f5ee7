"""Progress in a line now and then, which an executed notebook can keep."""

import time
from collections.abc import Callable


def printer(every: float = 10.0) -> Callable[[int, int], None]:
    """What to tell how many are done, of how many: it prints at most one line in ``every`` seconds,
    and one at the end."""
    begun = last = time.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if done < total and now - last < every:
            return
        last = now
        left = (now - begun) / done * (total - done)
        print(f"{done} of {total}, {now - begun:.0f} s, about {left:.0f} s left", flush=True)

    return say
