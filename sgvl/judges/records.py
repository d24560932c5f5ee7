"""The append-only store of judgements: what was answered is never asked again, and never lost.

One JSONL file per judge, one line per judgement, one write per batch. A line is found again by its
*key*: sha256 over everything that decides the answer (the judge's identity), the picture's pixels
and the policy. Not by name, index or time: a renamed file keeps its answer, a changed one does not.
A killed run leaves at most one torn line, which is cut off when the file is opened next.

Several workers share the work: each writes a file of its own, ``judge.0-of-3.jsonl`` and so on, and
takes the pictures whose digest falls to it, so none is asked twice and nobody waits. Whoever opens
a judge's records reads all of its files, so a run goes on with any other number of workers.
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

from sgvl.common.errors import Busy, InputError
from sgvl.data.images import image_digest
from sgvl.judges.base import Judge, Judgement, Sample, Unanswered
from sgvl.text.verdict import SAFE, UNPARSEABLE, UNSAFE

try:
    import fcntl
except ImportError:  # Windows: no lock, so one run at a time is up to the reader
    fcntl = None

# The answer itself; "id" and "policy" stand in a record for its reader and decide nothing.
ANSWER = ("verdict", "p_unsafe", "rationale", "reply")


def judge_all(
    judge: Judge,
    samples: Iterable[Sample],
    policies: Sequence,
    path: str | Path,
    batch_size: int | None = None,
    progress: Callable[[int], object] | None = None,
    worker: tuple[int, int] = (0, 1),
) -> list[dict]:
    """Judge every sample under every policy, asking only for what ``path`` does not hold yet.

    ``path`` is this judge's JSONL file. ``samples`` is read once and one batch is in memory at a
    time, so a generator that loads pictures will do; ``batch_size`` is in pictures, by default the
    judge's own. ``progress`` is called with the number of samples just settled (the ``update`` of a
    tqdm bar fits). ``worker`` is (k, n): of n workers that may be at it at the same time, this is
    number k, from 0; it judges its share of the samples and returns that.

    Returns one dict per judgement, samples in order and policies within each: id, policy (its
    name), verdict, p_unsafe, rationale, reply. A rerun returns the same list and leaves the same
    bytes in the file. Raises InputError for a damaged file, and for an answer that is no judgement
    (a probability of nan), after the sound answers of its batch are stored.
    """
    if batch_size is None:
        batch_size = judge.pictures_at_once
    if batch_size < 1:
        raise InputError(f"batch_size is at least 1, not {batch_size}")
    seen = []
    with Records(path, judge.identity(), worker=worker) as records:
        shown = ((_content(judge, sample), sample) for sample in samples)
        own = ((digest, sample) for digest, sample in shown if records.takes(digest))
        while batch := list(islice(own, batch_size)):
            # One question for the same picture twice, and one call for samples that lack the same
            # policies: all of them in a fresh run, fewer after a torn line or for a new policy.
            calls: dict[tuple[int, ...], dict[str, Sample]] = {}
            for digest, sample in batch:
                known = (records.get(digest, policy.digest) for policy in policies)
                lacking = tuple(i for i, answer in enumerate(known) if answer is None)
                calls.setdefault(lacking, {}).setdefault(digest, sample)
            for lacking, asked in calls.items():
                if lacking:
                    _ask(judge, asked, [policies[i] for i in lacking], records)
            seen += [(sample.id, digest) for digest, sample in batch]
            if progress:
                progress(len(batch))
        return [
            {"id": id_, "policy": policy.name} | records.get(digest, policy.digest)
            for id_, digest in seen
            for policy in policies
        ]


def _ask(judge: Judge, asked: dict[str, Sample], policies: Sequence, records: "Records") -> None:
    unanswered = None
    try:
        answers = judge.judge_batch(list(asked.values()), policies)
    except Unanswered as error:
        answers, unanswered = error.answers, error
    records.append(
        _record(records.key(digest, policy.digest), sample.id, policy.name, judgement)
        for (digest, sample), row in zip(asked.items(), answers, strict=True)
        for policy, judgement in zip(policies, row, strict=True)
        if judgement is not None
    )
    if unanswered:
        raise unanswered


class Records:
    """The records of one judge: locks the file that it writes, mends its torn end, and reads that
    file and those of all workers there ever were.

        with Records("records/rule.jsonl", judge.identity()) as records:
            answer = records.get(image_digest(picture), policy.digest)

    ``worker`` is (k, n) as in ``judge_all``. Answers of another identity (other weights, another
    prompt) in the same files are kept and never returned. Raises Busy if another run holds the
    file, or another number of workers is at it, and InputError for a damaged line or two
    conflicting answers to one question, naming the lines.

    What is asked about a picture need not be a policy: captions are kept in the same way, under the
    digest of what is to be recaptioned, with ``fields`` of their own for the answer.
    """

    def __init__(
        self,
        path: str | Path,
        identity: dict,
        fields: Sequence[str] = ANSWER,
        worker: tuple[int, int] = (0, 1),
    ):
        self._number, self._workers = worker
        if not 0 <= self._number < self._workers:
            raise InputError(
                f"worker {self._number} of {self._workers}: workers are numbered from 0, "
                "and there is one at least"
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
        self._answers: dict[str, dict] = {}

    def __enter__(self) -> "Records":
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # Unbuffered: after a write that failed, nothing waits to be written when it is closed.
            self._file = open(self.path, "a+b", buffering=0)  # noqa: SIM115, closed in __exit__
        except OSError as error:
            raise InputError(
                f"{self.path}: cannot be written ({error.strerror}); choose a folder that can be"
            ) from None
        try:
            self._lock()
            self._mend()
            self._read()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *exc) -> None:
        self._file.close()

    def takes(self, image_digest: str) -> bool:
        """Whether a picture falls to this worker: by its digest, so that all of them agree."""
        return int(image_digest[:16], 16) % self._workers == self._number

    def key(self, image_digest: str, policy_digest: str) -> str:
        """The name of one question to this judge: sha256, hex."""
        question = "\n".join([self._identity, image_digest, policy_digest])
        return hashlib.sha256(question.encode()).hexdigest()

    def get(self, image_digest: str, policy_digest: str) -> dict | None:
        """The stored answer (a judge's: verdict, p_unsafe, rationale, reply), or None."""
        return self._answers.get(self.key(image_digest, policy_digest))

    def append(self, rows: Iterable[dict]) -> None:
        """Store rows as made by ``judge_all``: one write, on the disk before this returns.

        A row is a dict with key, id, policy or prompt (a name) and the answer's fields. One whose
        answer is already there is skipped. Raises InputError for a conflicting one (nothing is
        written) and for rows with an "error". Those are written too, so that the file tells what
        happened, but they answer nothing: the next run asks again. Raises OSError that names the
        file for a full disk; what was stored before is kept.
        """
        new = {}
        for row in rows:
            known = new.get(row["key"], self._answers.get(row["key"]))
            if known is not None and self._answer(known) != self._answer(row):
                raise InputError(
                    f"{self.path}: {_name(row)} has another answer stored; "
                    "the judge is not deterministic, or its identity leaves something out"
                )
            if known is None:
                new[row["key"]] = row
        self._write("".join(_line(row) for row in new.values()).encode())
        self._answers |= {k: self._answer(row) for k, row in new.items() if "error" not in row}
        errors = [row for row in new.values() if "error" in row]
        if errors:
            raise InputError(f"{_name(row)}: {row['error']}" for row in errors)

    def _write(self, content: bytes) -> None:
        try:
            while content:  # a nearly full disk takes a part and says so
                content = content[self._file.write(content) :]
            os.fsync(self._file.fileno())
        except OSError as error:
            told = f"{error.strerror}; earlier answers are kept, so mend this and run again"
            raise OSError(error.errno, told, str(self.path)) from None

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
        found = {path for path in first.parent.iterdir() if name.fullmatch(path.name)}
        return sorted(found - {self.path})

    def _mend(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):  # the last write was cut short
            torn = self.path.with_name(self.path.name + ".torn")
            with open(torn, "ab") as file:
                file.write(content[whole:] + b"\n")
            self._file.truncate(whole)

    def _read(self) -> None:
        lines: dict[str, str] = {}  # key -> where it is answered
        for path in (self.path, *self._others()):
            # What follows the last line break is torn, or another worker is writing it just now.
            for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], start=1):
                where = f"{path}, line {number}"
                row = self._parse(line, where)
                if "error" in row:
                    continue
                first = lines.setdefault(row["key"], where)
                answer = self._answer(row)
                if self._answers.setdefault(row["key"], answer) != answer:
                    raise InputError(f"{first} and {where} contradict each other")

    def _parse(self, line: bytes, where: str) -> dict:
        try:
            row = json.loads(line)
            if row.keys() >= {"key", *self._fields}:
                return row
        except (ValueError, AttributeError, RecursionError):
            pass
        raise InputError(
            f"{where} is not a record. Remove the line and run again; only its answer is asked anew"
        )

    def _answer(self, row: dict) -> dict:
        return {name: row[name] for name in self._fields}


def _hold(file, how: int, path: Path) -> None:
    """Lock an open file, or raise Busy. It is let go when it is closed."""
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy(f"{path}: another run holds it; wait for that run") from None


def _content(judge: Judge, sample: Sample) -> str:
    """Digest of what a judge is shown of a sample: the picture, and the tags if it reads them."""
    digest = image_digest(sample.image)
    if not judge.reads_tags:
        return digest
    return hashlib.sha256("\n".join([digest, *sorted(sample.tags)]).encode()).hexdigest()


def _record(key: str, id_: str, policy: str, judgement: Judgement) -> dict:
    row = {"key": key, "id": id_, "policy": policy} | judgement._asdict()
    p = row["p_unsafe"]
    if row["verdict"] not in (SAFE, UNSAFE, UNPARSEABLE):
        return row | {"verdict": None, "error": f"{row['verdict']!r} is not a verdict"}
    if p is not None and not 0 <= p <= 1:  # also true for nan
        return row | {"verdict": None, "p_unsafe": None, "error": f"P(unsafe) is {p}"}
    return row


def _name(row: dict) -> str:
    return f"{row['id']} under {row.get('policy') or row.get('prompt')}"


def _line(row: dict) -> str:
    # ASCII, so that no reply can hold a line break or a half character of its own; floats as repr.
    return json.dumps(row, allow_nan=False) + "\n"
