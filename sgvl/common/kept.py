"""Values that are made once, and kept while there is room for them."""

from collections.abc import Callable, Hashable, Iterable


class Kept:
    """Values by key, up to a bound of memory; what comes later is made each time.

    Parameters
    ----------
    room : for the sizes of all values together
    size : function of a value; by default, values are counted
    """

    def __init__(self, room: int, size: Callable = lambda value: 1):
        self.room, self.size = room, size
        self.clear()

    def __contains__(self, key: Hashable) -> bool:
        return key in self._values

    def clear(self) -> None:
        """Forget all values."""
        self._values, self._left = {}, self.room

    def of(self, keys: Iterable[Hashable], items: Iterable, make: Callable) -> list:
        """Return the value of each key; ``make`` takes the items of new keys and returns theirs."""
        keys = list(keys)
        found = {key: self._values[key] for key in keys if key in self._values}
        if new := {k: one for k, one in zip(keys, items, strict=True) if k not in found}:
            made = dict(zip(new, make([*new.values()]), strict=True))
            for key, value in made.items():
                if (size := self.size(value)) <= self._left:
                    self._values[key], self._left = value, self._left - size
            found |= made
        return [found[key] for key in keys]
