"""Rows that wait on the disk: what a run over very many items returns, without their text."""

import json
import tempfile
import threading
import weakref
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

from sgvl.common.errors import InputError
from sgvl.common.files import disk_fault

IN_MEMORY = 1_000_000  # bytes of rows, before they go to a temporary file


class Spool(Sequence):
    """A sequence of dicts of plain JSON values, each read from the disk when it is asked for.

    Eight bytes of memory a row; the file is temporary, and the system removes it. Threads may share
    it. Where it is pickled or copied, its rows are.
    """

    def __init__(self, rows: Iterable[dict] = ()):
        self._file = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115, closed with the spool
        self._ends = array("q", [0])  # where each row ends, after the 0 where the first begins
        self._lock = threading.Lock()  # of the place in the file
        weakref.finalize(self, _close, self._file)
        self.extend(rows)

    def extend(self, rows: Iterable[dict]) -> None:
        """Add rows.

        Raises DiskFault where the folder of temporary files has no room, and InputError where there
        is no such folder.
        """
        for row in rows:
            text = json.dumps(row).encode()
            with self._lock, _writing():
                self._file.seek(self._ends[-1])
                self._file.write(text)
                self._ends.append(self._ends[-1] + len(text))
        with self._lock, _writing():
            self._file.flush()

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index):
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = range(len(self))[index]  # also counted from the end
        with self._lock:
            self._file.seek(self._ends[place])
            text = self._file.read(self._ends[place + 1] - self._ends[place])
        return json.loads(text)

    def __eq__(self, other) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    def __repr__(self) -> str:
        return repr(list(self))

    def __reduce__(self) -> tuple:
        return Spool, (list(self),)


@contextmanager
def _writing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = tempfile.tempdir or "folder of temporary files"
        if fault := disk_fault(error, folder):
            raise fault from error
        raise InputError(
            f"{folder}: cannot be written ({error.strerror}); set TMPDIR to a folder that can be"
        ) from None


def _close(file) -> None:
    with suppress(OSError):  # what it holds has no room, and nobody needs it any more
        file.close()
