"""Asking: only for what is not stored yet, with every answer stored as it comes.

``ask_all`` serves every judge and every kind of request. ``ask_missing`` is the one loop beneath
it, which captioners share.
"""

import hashlib
import json
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

from sgvl.common.errors import InputError
from sgvl.common.files import writing
from sgvl.common.spool import Spool
from sgvl.data import Sample
from sgvl.data.images import image_digest
from sgvl.judges.base import Judge, Judgement
from sgvl.judges.records import Records
from sgvl.models.reply import REFUSED, Filtered, OfRequest, Refused, Reply
from sgvl.policies.policy import Policy
from sgvl.text.verdict import SAFE, UNPARSEABLE, UNSAFE

PATIENCE = 20  # failures in a row that end a run: then it is not the request
PIXELS = 250_000_000  # of pictures in memory at a time, 0.75 GB: 20 photographs of 12 megapixels
LISTED = 3  # errors that a message lists in full
TIMES = ".times"  # ending of the file that says how long answers took
REPLY = ("reply", "finish")  # stored fields of a reply to a plain request


class Request(NamedTuple):
    """One request, and what identifies it."""

    id: str  # of the picture or question, for readers of the file
    name: str  # of the policy or prompt, likewise
    pictures: str  # digest of the picture or pictures
    text: str  # digest of the policy or the text
    content: object  # what is handed to the judge or captioner

    @property
    def key(self) -> tuple[str, str]:
        """The digests that identify the request to one judge."""
        return self.pictures, self.text


def ask_all(
    judge: Judge,
    cases: Iterable[tuple[Sample, Policy]] | Iterable[tuple[Sample, str]],
    folder: str | Path,
    *,
    batch_size: int | None = None,
    worker: tuple[int, int] = (0, 1),
    progress: Callable[[int], object] | None = None,
    keep_failed: bool = False,
    timed: bool = False,
) -> Spool:
    """Ask a judge about every case, except for what ``folder`` holds already.

    Parameters
    ----------
    cases : all (sample, policy), to be judged, or all (sample, text), to be answered; those of one
        picture next to each other. Read once, a batch at a time, so a generator that decodes
        pictures will do.
    folder : holds ``<judge id>.jsonl`` for policies and ``<judge id>.replies.jsonl`` for texts
    batch_size : pictures between two writes, by default the judge's own
    worker : (k, n): number k, from 0, of n workers that share the pictures
    progress : called with the number of pictures settled since the last call
    keep_failed : return requests that failed, with the reason as ``error``, instead of raising
    timed : note how long new answers took, beside the file, for ``time_spent``

    Returns
    -------
    Spool
        A sequence of dicts, whose text stays on the disk: one for each of this worker's cases, in
        order. Policies: id, policy (its name), verdict, p_unsafe, rationale, reply. Texts: id,
        reply, finish. A second run returns the same.

    Raises
    ------
    InputError
        For requests that failed, once all others are answered and stored; for a judgement that is
        none (a probability of nan); for a damaged file.
    """
    if batch_size is None:
        batch_size = judge.pictures_at_once
    if batch_size < 1:
        raise InputError(f"batch_size is at least 1, not {batch_size}")
    first, cases = _peek(cases)
    texts = first is not None and isinstance(first[1], str)
    path, identity, fields = _store(judge, texts, folder)
    answers, refused, problems = Spool(), [], []
    with Records(path, identity, fields, worker) as records:
        begun, before = time.monotonic(), len(records)
        for batch in _batches(judge, cases, batch_size, records.takes):
            results = judge.replies if texts else judge.results
            errors = ask_missing(f"judge {judge.id}", records, batch, results)
            rows = [
                {"id": r.id}
                | ({} if texts else {"policy": r.name})
                | (records.get(*r.key) or {"error": errors[r.key]})
                for r in batch
            ]
            answers.extend(rows)
            refused += filter(_is_refusal, rows)
            failed = (r for r in batch if r.key in errors)
            problems += [f"{r.id} under {r.name}: {errors[r.key]}" for r in failed]
            if progress:
                progress(len({id(request.content[0]) for request in batch}))
            del batch  # its pictures, before the next ones are decoded
        if timed and len(records) > before:
            _note_time(path, identity, len(records) - before, time.monotonic() - begun)
        if problems and not keep_failed:
            raise InputError(_listed(judge, problems))
    if refused:
        _warn_of_refusals(judge, refused, len(answers), path)
    return answers


def _note_time(path: Path, identity: dict, requests: int, seconds: float) -> None:
    line = {"identity": _identity_digest(identity), "requests": requests, "seconds": seconds}
    times = path.with_suffix(TIMES)
    with writing(times), open(times, "a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")


def time_spent(judges: Iterable[Judge], folder: str | Path) -> tuple[int, float]:
    """Return how many answers of a judge were timed, and how many seconds they took.

    ``judges`` are the judge in the ways in which it was asked. Answers of other weights or prompts
    under the same id are left out, and so are those that ``ask_all`` did not time.
    """
    known, paths = set(), set()
    for judge in judges:
        known.add(_identity_digest(judge.identity()))
        paths.add(Path(folder) / f"{judge.id}{TIMES}")
        if judge.takes_requests:
            known.add(_identity_digest(judge.reply_identity()))
            paths.add(Path(folder) / f"{judge.id}.replies{TIMES}")
    own = [line for path in paths for line in _times(path) if line["identity"] in known]
    return sum(line["requests"] for line in own), sum(line["seconds"] for line in own)


def _times(path: Path) -> Iterator[dict]:
    """Yield the whole lines of a file of times; a killed run can leave a torn one."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        with suppress(ValueError):
            yield json.loads(line)


def _identity_digest(identity: dict) -> str:
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def unanswered(
    judge: Judge,
    cases: Iterable[tuple[Sample, Policy]] | Iterable[tuple[Sample, str]],
    folder: str | Path,
) -> list[Request]:
    """Return the requests that ``ask_all`` would send now, without their contents; send none.

    Each picture is decoded once. Cases with the same pixels and policy are one request.
    """
    first, cases = _peek(cases)
    texts = first is not None and isinstance(first[1], str)
    with Records(*_store(judge, texts, folder)) as records:
        batches = _batches(judge, cases, 1, records.takes)
        requests = (request._replace(content=None) for batch in batches for request in batch)
        return missing(records, requests)


def missing(records: Records, requests: Iterable[Request]) -> list[Request]:
    """Return the requests whose answers ``records`` lacks, in order; of equal ones, the first."""
    found: dict[tuple, Request] = {}
    for request in requests:
        if not records.holds(*request.key):
            found.setdefault(request.key, request)
    return list(found.values())


def ask_missing(
    who: str,
    records: Records,
    requests: Sequence[Request],
    results: Callable[[list], Iterator],
    progress: Callable[[int, int], object] | None = None,
) -> dict[tuple[str, str], str]:
    """Ask for what ``records`` lacks, and store each answer as it comes.

    Parameters
    ----------
    who : is asked, for error messages
    results : takes the contents of the missing requests and yields lists of (index, Judgement or
        Reply, error)
    progress : called with how many of them are settled, and of how many

    Returns
    -------
    dict
        The reason for each request that failed, by its key. It is not stored: the next run asks
        again. What a server that answers others has refused for good is stored and not listed.

    Raises
    ------
    InputError
        If ``PATIENCE`` requests in a row fail, and whatever ``results`` raises; what was answered
        before is stored by then.
    """
    order, errors, in_a_row, done = missing(records, requests), {}, 0, 0
    if not order:
        return {}
    works, refused = False, []  # whether the server answers, and what waits for that to be known
    with closing(results([request.content for request in order])) as batches:
        for batch in batches:
            answered = [(i, answer) for i, answer, error in batch if not error]
            refused += [(i, answer) for i, answer, error in batch if isinstance(error, Refused)]
            works |= any(not e or isinstance(e, Filtered) for _, _, e in batch)
            if works:
                answered, refused = answered + refused, []
            records.append(_row(records, order[i], answer) for i, answer in answered)
            for i, _, error in batch:
                fails = error and not isinstance(error, OfRequest)
                fails = fails and not (works and isinstance(error, Refused))
                in_a_row = in_a_row + 1 if fails else 0
                if error:
                    errors[order[i].key] = error
                if in_a_row == PATIENCE:
                    raise InputError(every_request_fails(who, error, records.path))
            done += len(batch)
            if progress:
                progress(done, len(order))
    if refused and len(records):
        records.append(_row(records, order[i], answer) for i, answer in refused)
    return {key: error for key, error in errors.items() if not records.holds(*key)}


def every_request_fails(who: str, error: str, path: str | Path) -> str:
    """Build the error message for a server that has stopped answering."""
    todo = _without_p_unsafe([error]) or "look at the server"
    return (
        f"{who}: every request fails now, the last with: {error}. {todo.capitalize()}, then run "
        f"again; finished answers are in {path} and are not asked for again"
    )


# -- the cases of a judge --------------------------------------------------------------------------


def _store(judge: Judge, texts: bool, folder: str | Path) -> tuple[Path, dict, tuple]:
    """Return file, identity and fields of a judge's verdicts, or of its replies to texts."""
    if not texts:
        return Path(folder) / f"{judge.id}.jsonl", judge.identity(), Judgement._fields
    if not judge.takes_requests:
        raise InputError(f"judge {judge.id} gives verdicts only; it cannot reply to a text")
    return Path(folder) / f"{judge.id}.replies.jsonl", judge.reply_identity(), REPLY


def _peek(cases: Iterable) -> tuple[object, Iterator]:
    """Return the first case, or None, and all cases."""
    cases = iter(cases)
    first = list(islice(cases, 1))
    return (first[0] if first else None), chain(first, cases)


def _batches(
    judge: Judge, cases: Iterable[tuple], pictures: int, takes: Callable[[str], bool]
) -> Iterator[list[Request]]:
    """Yield the requests of this worker, those of ``pictures`` pictures at a time.

    Fewer at a time, where they have more than ``PIXELS`` together.
    """
    batch, n, pixels, before, digest = [], 0, 0, None, ""
    for sample, question in cases:
        if sample is not before:
            before, digest = sample, _content_digest(judge, sample)
            if n == pictures or pixels > PIXELS:
                yield batch
                batch, n, pixels = [], 0, 0
            if takes(digest):
                n += 1
                pixels += sum(image.width * image.height for image in _images(sample))
        if takes(digest):
            batch.append(_request(sample, question, digest))
    if batch:
        yield batch


def _request(sample: Sample, question, digest: str) -> Request:
    if isinstance(question, str):
        text = hashlib.sha256(question.encode()).hexdigest()
        return Request(sample.id, question[:80], digest, text, (sample, question))
    return Request(sample.id, question.name, digest, question.digest, (sample, question))


def _content_digest(judge: Judge, sample: Sample) -> str:
    """Return the digest of what a judge gets of a sample: pictures, and tags if it reads them."""
    digest = " ".join(map(image_digest, _images(sample)))
    if not judge.reads_tags:
        return digest
    return hashlib.sha256("\n".join([digest, *sorted(sample.tags)]).encode()).hexdigest()


def _is_refusal(row: dict) -> bool:
    return row.get("finish") == REFUSED or str(row.get("rationale")).startswith(f"{REFUSED}:")


def _warn_of_refusals(judge: Judge, refused: Sequence[dict], of: int, path: Path) -> None:
    first = f"{refused[0]['id']}, {refused[0].get('rationale') or REFUSED}"
    warnings.warn(
        f"judge {judge.id}: the server refused {len(refused)} of {of} requests, the "
        f"first about {first}; they count as unparseable. To ask again, remove the lines with "
        f"the word {REFUSED} from {path}",
        stacklevel=3,
    )


def _images(sample: Sample) -> list:
    return sample.image if isinstance(sample.image, list) else [sample.image]


def _row(records: Records, request: Request, answer: Judgement | Reply) -> dict:
    """Return an answer as it is stored; a judgement that is none becomes an error."""
    row = {"key": records.key(*request.key), "id": request.id}
    if isinstance(answer, Reply):
        return row | {"prompt": request.name, "reply": answer.text, "finish": answer.finish}
    row |= {"policy": request.name} | answer._asdict()
    if answer.verdict not in (SAFE, UNSAFE, UNPARSEABLE):
        return row | {"verdict": None, "error": f"{answer.verdict!r} is not a verdict"}
    if answer.p_unsafe is not None and not 0 <= answer.p_unsafe <= 1:  # also true for nan
        error = f"P(unsafe) is {answer.p_unsafe}"
        return row | {"verdict": None, "p_unsafe": None, "error": error}
    return row


def _listed(judge: Judge, problems: Sequence[str]) -> list[str]:
    """List the first problems, how many more there are, and what to do."""
    more = [f"and {len(problems) - LISTED} more"] if len(problems) > LISTED else []
    todo = "mend what the error names, then run again; what is stored is not asked for again"
    todo = "; ".join(filter(None, [_without_p_unsafe(problems), todo]))
    return [*problems[:LISTED], *more, f"judge {judge.id}: {todo}"]


def _without_p_unsafe(errors: Iterable[object]) -> str:
    """Say how to do without log-probabilities where an error speaks of them; "" elsewhere."""
    if any("logprob" in str(error).lower() for error in errors):
        return "if the server sends no log-probabilities, set with_p_unsafe to false"
    return ""
