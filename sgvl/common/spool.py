"""Rows that wait on the disk: what a run over very many items returns, without their text."""

import json
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Sequence

from sgvl.common.files import writing

IN_MEMORY = 1_000_000  # bytes of rows, before they go to a temporary file


class Spool(Sequence):
    """A sequence of dicts of plain JSON values, each read from the disk when it is asked for.

    Eight bytes of memory a row; the file is temporary, and the system removes it.
    """

    def __init__(self, rows: Iterable[dict] = ()):
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115, closed with the spool
        self._ends = array("q", [0])  # where each row ends, after the 0 where the first begins
        weakref.finalize(self, self._file.close)
        self.extend(rows)

    def extend(self, rows: Iterable[dict]) -> None:
        """Add rows. Raises DiskFault where the folder of temporary files has no room."""
        with writing(tempfile.gettempdir()):
            self._file.seek(self._ends[-1])
            for row in rows:
                size = self._file.write(json.dumps(row).encode())
                self._ends.append(self._ends[-1] + size)

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]  # also counted from the end
        self._file.seek(self._ends[place])
        return json.loads(self._file.read(self._ends[place + 1] - self._ends[place]))

    def __eq__(self, other) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))
