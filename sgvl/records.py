"""The append-only store of judgements: what was answered is never asked again, and never lost.

One JSONL file per judge, one line per judgement, one write per batch. A line is found again by its
*key*: sha256 over everything that decides the answer (the judge's identity), the picture's pixels
and the policy. Not by name, index or time: a renamed file keeps its answer, a changed one does not.
A killed run leaves at most one torn line, which is cut off when the file is opened next.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path

from sgvl.errors import Busy, InputError
from sgvl.images import image_digest
from sgvl.judges.base import Judge, Judgement, Sample
from sgvl.verdict import SAFE, UNPARSEABLE, UNSAFE

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
    batch_size: int = 32,
    progress: Callable[[int], object] | None = None,
) -> list[dict]:
    """Judge every sample under every policy, asking only for what ``path`` does not hold yet.

    ``path`` is this judge's JSONL file. ``samples`` is read once and one batch is in memory at a
    time, so a generator that loads pictures will do. ``progress`` is called with the number of
    samples just settled (the ``update`` of a tqdm bar fits).

    Returns one dict per judgement, samples in order and policies within each: id, policy (its
    name), verdict, p_unsafe, rationale, reply. A rerun returns the same list and leaves the same
    bytes in the file. Raises InputError for a damaged file, and for an answer that is no judgement
    (a probability of nan), after the sound answers of its batch are stored.
    """
    if batch_size < 1:
        raise InputError(f"batch_size is at least 1, not {batch_size}")
    samples, seen = iter(samples), []
    with Records(path, judge.identity()) as records:
        while batch := list(islice(samples, batch_size)):
            digests = [_content(judge, sample) for sample in batch]
            # One question for the same picture twice, and one call for samples that lack the same
            # policies: all of them in a fresh run, fewer after a torn line or for a new policy.
            calls: dict[tuple[int, ...], dict[str, Sample]] = {}
            for digest, sample in zip(digests, batch, strict=True):
                known = (records.get(digest, policy.digest) for policy in policies)
                lacking = tuple(i for i, answer in enumerate(known) if answer is None)
                calls.setdefault(lacking, {}).setdefault(digest, sample)
            for lacking, asked in calls.items():
                if lacking:
                    _ask(judge, asked, [policies[i] for i in lacking], records)
            seen += [(s.id, digest) for s, digest in zip(batch, digests, strict=True)]
            if progress:
                progress(len(batch))
        return [
            {"id": id_, "policy": policy.name} | records.get(digest, policy.digest)
            for id_, digest in seen
            for policy in policies
        ]


def _ask(judge: Judge, asked: dict[str, Sample], policies: Sequence, records: "Records") -> None:
    answers = judge.judge_batch(list(asked.values()), policies)
    records.append(
        _record(records.key(digest, policy.digest), sample.id, policy.name, judgement)
        for (digest, sample), row in zip(asked.items(), answers, strict=True)
        for policy, judgement in zip(policies, row, strict=True)
    )


class Records:
    """The records of one judge in one file: locks it, mends a torn end, reads what is there.

        with Records("records/rule.jsonl", judge.identity()) as records:
            answer = records.get(image_digest(picture), policy.digest)

    Answers of another identity (other weights, another prompt) in the same file are kept and never
    returned. Raises Busy if another run holds the file, and InputError for a damaged line or two
    conflicting answers to one question, naming the line.

    What is asked about a picture need not be a policy: captions are kept in the same way, under the
    digest of what is to be recaptioned, with ``fields`` of their own for the answer.
    """

    def __init__(self, path: str | Path, identity: dict, fields: Sequence[str] = ANSWER):
        self.path, self._fields = Path(path), tuple(fields)
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
            self._read()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *exc) -> None:
        self._file.close()

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
        """Hold the file until it is closed. The system drops the lock of a process that dies."""
        if fcntl:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(f"{self.path}: another run holds it; wait for that run") from None

    def _read(self) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):  # the last write was cut short
            torn = self.path.with_name(self.path.name + ".torn")
            with open(torn, "ab") as file:
                file.write(content[whole:] + b"\n")
            self._file.truncate(whole)
        lines: dict[str, int] = {}  # key -> number of the line that answers it
        for number, line in enumerate(content[:whole].split(b"\n")[:-1], start=1):
            row = self._parse(line, number)
            if "error" in row:
                continue
            first = lines.setdefault(row["key"], number)
            answer = self._answer(row)
            if self._answers.setdefault(row["key"], answer) != answer:
                raise InputError(f"{self.path}: lines {first} and {number} contradict each other")

    def _parse(self, line: bytes, number: int) -> dict:
        try:
            row = json.loads(line)
            if row.keys() >= {"key", *self._fields}:
                return row
        except (ValueError, AttributeError, RecursionError):
            pass
        raise InputError(
            f"{self.path}: line {number} is not a record. Remove the line and run again; "
            "only its answer is asked anew"
        )

    def _answer(self, row: dict) -> dict:
        return {name: row[name] for name in self._fields}


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
