"""The append-only store of answers: an answered request is never sent again, and never lost.

One JSONL file per judge, one line per judgement, one write per batch. A line is found again by its
*key*: sha256 over everything that decides the answer (the judge's identity), the picture's pixels
and the policy. Not by name, index or time: a renamed file keeps its answer, a changed one does not.
A killed run leaves at most one torn line, which is cut off when the file is opened next.
Memory holds where each answer stands, some 50 bytes, and never its text.

Several workers share the work: each writes a file of its own, ``judge.0-of-3.jsonl`` and so on, and
takes the pictures whose digest falls to it, so none is asked twice and nobody waits. Whoever opens
a judge's records reads all of its files, so a run goes on with any other number of workers.
"""

import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from sgvl.common.errors import Busy, InputError
from sgvl.common.files import disk_fault, writing
from sgvl.judges.base import Judgement

try:
    import fcntl
except ImportError:  # Windows: no lock, so one run at a time is up to the reader
    fcntl = None

BLOCK = 2**16  # bytes that are read at a time to find the last whole line


class Records:
    """The stored answers of one judge or captioner, as a context manager.

        with Records("answers/rule.jsonl", judge.identity()) as records:
            answer = records.get(image_digest(picture), policy.digest)

    Entering locks the file that is written, cuts off a torn end, and reads that file and those of
    all workers. Answers of another identity (other weights, another prompt) in the same files are
    kept and never returned.

    Parameters
    ----------
    path : JSONL file of a single worker
    identity : everything that decides an answer, as plain JSON values
    fields : of an answer
    worker : (k, n): number k, from 0, of n workers

    Raises
    ------
    Busy
        If another run holds the file, or another number of workers is at it.
    InputError
        For a damaged line, and for two conflicting answers to one request, naming the lines.
    """

    def __init__(
        self,
        path: str | Path,
        identity: dict,
        fields: Sequence[str] = Judgement._fields,
        worker: tuple[int, int] = (0, 1),
    ):
        self._number, self._workers = worker
        if not 0 <= self._number < self._workers:
            raise InputError(
                f"worker {self._number} of {self._workers}: "
                "a worker is a number from 0 to one less than their count"
            )
        self._first, self._fields = Path(path), tuple(fields)  # the file of a single worker
        self.path = self._first
        if self._workers > 1:
            share = f"{self._number}-of-{self._workers}"
            self.path = self._first.with_name(f"{self._first.stem}.{share}{self._first.suffix}")
        # Canonical JSON: equal identities give equal text, whatever the order of their keys.
        self._identity = json.dumps(
            identity, sort_keys=True, separators=(",", ":"), allow_nan=False
        )
        self._count = 0

    def __enter__(self) -> "Records":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: after a write that failed, nothing waits to be written when it is closed.
            self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115, closed in __exit__
        except OSError as error:
            if fault := disk_fault(error, self.path):
                raise fault from None
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); choose a folder that can be"
            ) from None
        self._files = [self._file]
        self._places = sqlite3.connect(":memory:")
        self._places.execute(
            "CREATE TABLE places (key BLOB PRIMARY KEY, file INT, start INT, size INT) "
            "WITHOUT ROWID"
        )
        try:
            self._lock()
            self._mend()
            for path in self._others():
                self._files.append(open(path, "rb", buffering=0))  # noqa: SIM115, likewise
            self._read()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc) -> None:
        self._places.close()
        for file in self._files:
            file.close()

    def __len__(self) -> int:
        return self._count

    def takes(self, image_digest: str) -> bool:
        """Check whether a picture falls to this worker: by its digest, so that all agree."""
        return int(image_digest[:16], 16) % self._workers == self._number

    def key(self, image_digest: str, policy_digest: str) -> str:
        """Return the key of one request: sha256 over identity, picture and text, hex."""
        question = "\n".join([self._identity, image_digest, policy_digest])
        return hashlib.sha256(question.encode()).hexdigest()

    def get(self, image_digest: str, policy_digest: str) -> dict | None:
        """Return the stored answer, its fields by name, or None."""
        return self._stored(self.key(image_digest, policy_digest))

    def holds(self, image_digest: str, policy_digest: str) -> bool:
        """Check whether an answer is stored, without reading it."""
        return self._place(self.key(image_digest, policy_digest)) is not None

    def append(self, rows: Iterable[dict]) -> None:
        """Store rows in one write, on the disk before this returns.

        Parameters
        ----------
        rows : dicts with key, id, policy or prompt (a name) and the answer's fields. One whose
            answer is already there is skipped. One with an "error" is written, so that the file
            tells what happened, but it answers nothing: the next run asks again.

        Raises
        ------
        InputError
            For a conflicting answer (nothing is written), and for rows with an "error".
        DiskFault
            For a full disk, naming the file; what was stored before is kept.
        """
        new = {}
        for row in rows:
            row = {name: _encodable(value) for name, value in row.items()}
            known = new.get(row["key"]) or self._stored(row["key"])
            if known is not None and self._answer(known) != self._answer(row):
                raise InputError(
                    f"{self.path}: {_name(row)} has another answer stored; "
                    "the judge is not deterministic, or its identity leaves something out"
                )
            if known is None:
                new[row["key"]] = row
        lines = [_line(row).encode() for row in new.values()]
        start = self._file.seek(0, os.SEEK_END)
        self._write(b"".join(lines))
        for row, line in zip(new.values(), lines, strict=True):
            if "error" not in row:
                self._note(row["key"], 0, start, len(line))
            start += len(line)
        errors = [row for row in new.values() if "error" in row]
        if errors:
            raise InputError(f"{_name(row)}: {row['error']}" for row in errors)

    def _write(self, content: bytes) -> None:
        with writing(self.path):
            while content:  # a nearly full disk takes a part and says so
                content = content[self._file.write(content) :]
            os.fsync(self._file.fileno())

    def _lock(self) -> None:
        """Hold the file until it is closed. The system drops the lock of a process that dies.

        The files of another number of workers must be free, or a picture could be asked twice.
        """
        if not fcntl:
            return
        _hold(self._file, fcntl.LOCK_EX, self.path)
        for path in self._others():
            if not path.stem.endswith(f"-of-{self._workers}"):
                with open(path, "rb") as file:
                    _hold(file, fcntl.LOCK_SH, path)

    def _others(self) -> list[Path]:
        """The files of other workers, in order of their names."""
        first = self._first
        name = re.compile(rf"{re.escape(first.stem)}(\.\d+-of-\d+)?{re.escape(first.suffix)}")
        files = {path for path in first.parent.iterdir() if name.fullmatch(path.name)}
        return sorted(files - {self.path})

    def _mend(self) -> None:
        begin, last = self._file.seek(0, os.SEEK_END), b""
        while begin and b"\n" not in last:
            size = min(begin, BLOCK)
            begin -= size
            self._file.seek(begin)
            last = self._file.read(size) + last
        whole = last.rfind(b"\n") + 1
        if whole < len(last):  # the last write was cut short
            torn = self.path.with_name(self.path.name + ".torn")
            with writing(torn), open(torn, "ab") as file:
                file.write(last[whole:] + b"\n")
            self._file.truncate(begin + whole)

    def _read(self) -> None:
        for number, file in enumerate(self._files):
            for line, start in self._lines(file):
                row = self._parse(line, file, start)
                if "error" in row or self._note(row["key"], number, start, len(line)):
                    continue
                if self._stored(row["key"]) != self._answer(row):
                    first, begin, _ = self._place(row["key"])
                    places = _where(self._files[first], begin), _where(file, start)
                    raise InputError("{} and {} contradict each other".format(*places))

    def _lines(self, file) -> Iterator[tuple[bytes, int]]:
        """Yield the whole lines of a file, and where each begins.

        What follows the last line break is torn, or another worker is writing it just now.
        """
        start = 0
        with open(file.name, "rb") as again:
            for line in again:
                if line.endswith(b"\n"):
                    yield line, start
                start += len(line)

    def _note(self, key: str, file: int, start: int, size: int) -> bool:
        """Note where an answer stands; False if there is one already."""
        insert = "INSERT OR IGNORE INTO places VALUES (?, ?, ?, ?)"
        new = self._places.execute(insert, (_short(key), file, start, size)).rowcount
        self._count += new
        return bool(new)

    def _place(self, key: str) -> tuple[int, int, int] | None:
        """Return the number of the file that holds an answer, where it begins, and its length."""
        select = "SELECT file, start, size FROM places WHERE key = ?"
        return self._places.execute(select, (_short(key),)).fetchone()

    def _stored(self, key: str) -> dict | None:
        if not (place := self._place(key)):
            return None
        number, start, size = place
        file = self._files[number]
        file.seek(start)
        return self._answer(self._parse(file.read(size), file, start))

    def _parse(self, line: bytes, file, start: int) -> dict:
        try:
            row = json.loads(line)
            if row.keys() >= {"key", *self._fields} and isinstance(row["key"], str):
                return row
        except (ValueError, AttributeError, RecursionError):
            pass
        raise InputError(
            f"{_where(file, start)} is not a record. Remove the line and run again; "
            "only its answer is asked anew"
        )

    def _answer(self, row: dict) -> dict:
        return {name: _encodable(row[name]) for name in self._fields}


def _hold(file, how: int, path: Path) -> None:
    """Lock an open file, or raise Busy. It is let go when it is closed."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy(f"{path}: another run holds it; wait for that run") from None


def _short(key: str) -> bytes:
    """Return what a key is found by: two of a billion keys share it once in 10**20 stores."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()[:16]


def _where(file, start: int) -> str:
    """Name the line of a file that begins at a byte."""
    with open(file.name, "rb") as again:
        number = 1 + again.read(start).count(b"\n")
    return f"{file.name}, line {number}"


def _encodable(value: object) -> object:
    """Return a text with half characters replaced, which no file can hold; else the value."""
    if not isinstance(value, str) or not re.search("[\ud800-\udfff]", value):
        return value
    return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _name(row: dict) -> str:
    return f"{row['id']} under {row.get('policy') or row.get('prompt')}"


def _line(row: dict) -> str:
    # ASCII, so that no reply can hold a line break or a half character of its own; floats as repr.
    return json.dumps(row, allow_nan=False) + "\n"
