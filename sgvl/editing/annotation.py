"""What annotators say: their votes on disk, the labels that these decide, and Label Studio's form.

A vote is one annotator's verdict (safe, unsafe or unsure) about one picture under one policy, with
a note that may be empty. Each annotator has one append-only file, ``NAME.jsonl``. A vote that
changes an earlier one is a further line, and the last one counts. It belongs to the pixels and to
the text of the policy that it was given for: if either is changed later, it no longer counts.

Tables of votes have the columns of ``COLUMNS``, tables of cases those of ``cases_of``.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import count, takewhile
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import quoteattr

import numpy as np
import pandas as pd
from datasets import Dataset

from sgvl.common.errors import InputError, Unavailable, need_known, raise_any
from sgvl.common.files import write
from sgvl.common.paths import plain_name, user_path
from sgvl.data import store
from sgvl.data.cases import label_cases
from sgvl.data.images import image_digest
from sgvl.judges.records import Records
from sgvl.policies.policy import Policy
from sgvl.text.verdict import SAFE, UNSAFE

UNSURE = "unsure"
VERDICTS = (SAFE, UNSAFE, UNSURE)
COLUMNS = ["annotator", "id", "policy", "verdict", "note"]


class Vote(NamedTuple):
    """One annotator's verdict about a picture under a policy."""

    id: str
    picture: str  # its ``image_digest``
    policy: Policy
    verdict: str
    note: str = ""


def append(folder: Path, annotator: str, votes: Iterable[Vote]) -> None:
    """Write votes to the annotator's file; one that says what the last one says is passed over.

    Raises
    ------
    InputError
        For a name that cannot be that of a file, for an unknown verdict, and as ``Records`` does.
    """
    path = _file(folder, annotator)
    with Records(path, {"annotator": annotator}, ("verdict", "note")) as records:
        rows = []
        for vote in votes:
            need_known("verdict", vote.verdict, VERDICTS)
            said = {"verdict": vote.verdict, "note": vote.note}
            earlier = list(takewhile(bool, (records.get(*_key(vote, k)) for k in count())))
            if earlier[-1:] != [said]:
                key = records.key(*_key(vote, len(earlier)))
                about = {"id": vote.id, "policy": vote.policy.name}
                digests = {"picture": vote.picture, "text": vote.policy.digest}
                time = {"time": datetime.now(UTC).isoformat(timespec="seconds")}
                rows.append({"key": key} | about | said | digests | time)
        records.append(rows)


def _file(folder: Path, annotator: str) -> Path:
    return folder / f"{plain_name('annotator', annotator)}.jsonl"


def _key(vote: Vote, revision: int) -> tuple[str, str]:
    """Return what a record is found by: the first vote on a case is revision 0."""
    return vote.picture, f"{vote.policy.digest} {revision}"


def read(
    folder: Path, pictures: Mapping[str, str], policies: Sequence[Policy], annotator: str = ""
) -> pd.DataFrame:
    """Return the votes that count, of one annotator or of all, one row each.

    Parameters
    ----------
    folder : of the annotators' files; without it there are no votes
    pictures : ``image_digest`` of each picture by its id, as ``digests`` returns them
    policies : whose votes are read

    Raises
    ------
    InputError
        For a line that is no vote.
    """
    texts = {policy.name: policy.digest for policy in policies}
    files = [_file(folder, annotator)] if annotator else sorted(folder.glob("*.jsonl"))
    latest: dict[tuple, tuple] = {}
    for file in filter(Path.is_file, files):
        # What follows the last line break is torn, or is being written just now.
        for number, line in enumerate(file.read_bytes().split(b"\n")[:-1], start=1):
            try:
                row = json.loads(line)
                case = file.stem, row["id"], row["policy"]
                vote, about = (row["verdict"], row["note"]), (row["picture"], row["text"])
                "".join((*case, *vote, *about))  # all are text
                need_known("verdict", row["verdict"], VERDICTS)
            except (ValueError, KeyError, TypeError, RecursionError):
                raise InputError(
                    f"{file}, line {number} is not a vote; remove it, and its case is asked again"
                ) from None
            if about == (pictures.get(row["id"]), texts.get(row["policy"])):
                latest[case] = vote
    return pd.DataFrame([case + vote for case, vote in latest.items()], columns=COLUMNS)


def digests(dataset: Dataset) -> dict[str, str]:
    """Return the ``image_digest`` of each picture by its id."""
    return {sample.id: image_digest(sample.image) for sample in store.samples(dataset)}


def pairs_to_annotate(made: str, data: Path) -> Dataset:
    """Return the pairs that passed the gate in a folder of 01b_safeedit, or else those of 01_data.

    Parameters
    ----------
    made : the folder; "" for the set ``safeeditbench`` in ``data``

    Raises
    ------
    InputError
        As ``store.read`` does; Unavailable if no pair passed.
    """
    if not made:
        return store.read("safeeditbench", data)
    dataset = store.read("made", user_path(made))
    kept = [k for k, gate in enumerate(dataset["gate"]) if gate == "passed"]
    if not kept:
        raise Unavailable(f"{made}: no pair passed the gate; nothing to annotate")
    return dataset.select(kept)


def cases_of(dataset: Dataset, policies: Sequence[Policy]) -> pd.DataFrame:
    """Return the cases to annotate: each picture under each policy.

    Returns
    -------
    pandas.DataFrame
        id, pair, policy, and clause, what decides the case: the rule of a drawn scene, which also
        has its exact label, or else the category of the picture.
    """
    if store.has_tags(dataset):
        return label_cases(dataset, policies).assign(clause=lambda table: table["rule"])
    about = dataset.select_columns(["id", "pair", "category"]).to_pandas().drop_duplicates("id")
    names = pd.DataFrame({"policy": [policy.name for policy in policies]})
    return names.merge(about, how="cross").rename(columns={"category": "clause"})


def shuffled(ids: Sequence[str], annotator: str, seed: int) -> list[str]:
    """Return ids in an order of the annotator's own, the same each time."""
    own = int.from_bytes(hashlib.sha256(annotator.encode()).digest()[:8])
    return [ids[k] for k in np.random.default_rng((seed, own)).permutation(len(ids))]


# -- what they decide ------------------------------------------------------------------------------


def decide(
    cases: pd.DataFrame, votes: pd.DataFrame, settled: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Decide the label of each case, and keep how its votes are divided.

    Parameters
    ----------
    cases : with id, pair and policy
    votes : of annotators
    settled : votes of adjudicators, which come before a majority

    Returns
    -------
    pandas.DataFrame
        id, pair, policy, the numbers of votes (safe, unsafe, unsure), label (None where there is
        none), and decision: one vote, unanimous, majority, tie, adjudicated, or no vote. An unsure
        vote has no weight.
    """
    table = cases[["id", "pair", "policy"]].reset_index(drop=True)
    index = pd.MultiIndex.from_frame(table[["id", "policy"]])
    counts = _counts(votes).reindex(index, fill_value=0)
    final = _counts(votes.head(0) if settled is None else settled).reindex(index, fill_value=0)
    rows = [
        _decision(own, adjudicated)
        for own, adjudicated in zip(counts.to_numpy(), final.to_numpy(), strict=True)
    ]
    return pd.concat(
        [
            table,
            counts.reset_index(drop=True),
            pd.DataFrame(rows, columns=["label", "decision"], dtype=object),
        ],
        axis=1,
    )


def _counts(votes: pd.DataFrame) -> pd.DataFrame:
    counts = votes.groupby(["id", "policy", "verdict"]).size().unstack(fill_value=0)
    return counts.reindex(columns=list(VERDICTS), fill_value=0)


def _decision(own: np.ndarray, adjudicated: np.ndarray) -> tuple[str | None, str]:
    for (safe, unsafe, _), by in ((adjudicated, "adjudicated"), (own, "")):
        if safe != unsafe:
            alone = "one vote" if safe + unsafe == 1 else "unanimous"
            label = UNSAFE if unsafe > safe else SAFE
            return label, by or ("majority" if min(safe, unsafe) else alone)
    return None, "tie" if own[:2].any() else "no vote"


def divided(decided: pd.DataFrame) -> pd.DataFrame:
    """Return the decided cases that an adjudicator should see: dissent, a tie, or only unsure."""
    return decided[decided[[SAFE, UNSAFE]].all(axis=1) | decided["label"].isna()]


# -- Label Studio ----------------------------------------------------------------------------------


def export_label_studio(
    folder: Path, dataset: Dataset, policies: Sequence[Policy], votes: pd.DataFrame
) -> Path:
    """Write pictures, votes and the form of the question, as Label Studio imports them.

    ``labels.xml`` is the labelling interface: a set of choices for each policy, and a note.
    ``tasks.json`` holds a task for each picture with an annotation for each annotator.

    Returns
    -------
    Path
        of ``tasks.json``
    """
    (folder / "pictures").mkdir(parents=True, exist_ok=True)
    names = [policy.name for policy in policies]
    people = {name: k for k, name in enumerate(sorted(votes["annotator"].unique()), start=1)}
    own = dict(iter(votes.groupby("id")))
    tasks = []
    for number, sample in enumerate(store.samples(store.usable(dataset)), start=1):
        name = f"pictures/{number:05d}.png"  # an id may be no name of a file
        sample.image.save(folder / name)
        annotations = [
            _annotation(rows, {"id": people[annotator], "email": annotator})
            for annotator, rows in own.get(sample.id, votes.head(0)).groupby("annotator")
        ]
        data = {"image": f"/data/local-files/?d={name}", "id": sample.id}
        tasks.append({"id": number, "data": data, "annotations": annotations})
    write(folder / "labels.xml", _interface(names))
    write(folder / "tasks.json", json.dumps(tasks, indent=1) + "\n")
    return folder / "tasks.json"


def _annotation(rows: pd.DataFrame, by: dict) -> dict:
    result = [
        {"from_name": row.policy, "to_name": "image", "type": "choices"}
        | {"value": {"choices": [row.verdict]}}
        for row in rows.itertuples()
    ]
    result += [
        {"from_name": "note", "to_name": "image", "type": "textarea", "value": {"text": [note]}}
        for note in sorted(set(rows["note"]) - {""})
    ]
    return {"completed_by": by, "result": result, "ground_truth": False}


def _interface(policies: Sequence[str]) -> str:
    choices = "".join(f"<Choice value={quoteattr(verdict)}/>" for verdict in VERDICTS)
    fields = "\n".join(
        f'  <Header value={quoteattr(name)}/>\n  <Choices name={quoteattr(name)} toName="image" '
        f'choice="single" showInline="true">{choices}</Choices>'
        for name in policies
    )
    return (
        '<View>\n  <Image name="image" value="$image"/>\n'
        f'{fields}\n  <TextArea name="note" toName="image"/>\n</View>\n'
    )


def import_label_studio(file: Path, ids: Iterable[str], policies: Sequence[Policy]) -> pd.DataFrame:
    """Return the votes in Label Studio's JSON export; decided labels and skipped tasks are none.

    A picture is known by ``id`` in a task's data, or else by the name of its file; a set of choices
    by the name of its policy. The last annotation of an annotator counts.

    Raises
    ------
    InputError
        That names the file and the tasks: for a picture, a policy or a verdict that is not known.
    """
    known, names = set(ids), [policy.name for policy in policies]
    stems: dict[str, list[str]] = {}
    for id_ in sorted(known):
        stems.setdefault(Path(id_).stem, []).append(id_)
    try:
        tasks = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file}: not JSON: {error}") from None
    rows, problems = [], []
    for number, task in enumerate(tasks if isinstance(tasks, list) else [tasks], start=1):
        where = f"{file}, task {number}"
        try:
            data = task["data"]
            alike = stems.get(Path(str(data["image"])).stem, []) if not data.get("id") else []
            id_ = str(data.get("id") or " or ".join(alike) or data["image"])
            found = list(_votes(task))
        except (KeyError, TypeError, AttributeError):
            problems.append(f"{where}: not a task of Label Studio with data and annotations")
            continue
        if id_ not in known or len(alike) > 1:
            which = f"{data['image']!r} may be {id_}; give the task an id" if alike else ""
            problems.append(f"{where}: {which or f'no picture {id_!r} in this set'}")
            continue
        for annotator, policy, verdict, note in found:
            if policy not in names:
                problems.append(f"{where}: choices {policy!r}; allowed: {', '.join(names)}")
            elif verdict not in VERDICTS:
                problems.append(f"{where}: verdict {verdict!r}; allowed: {', '.join(VERDICTS)}")
            else:
                rows.append((annotator, id_, policy, verdict, note))
    raise_any(problems)
    votes = pd.DataFrame(rows, columns=COLUMNS)
    return votes.drop_duplicates(["annotator", "id", "policy"], keep="last", ignore_index=True)


def _votes(task: dict) -> Iterator[tuple[str, str, str, str]]:
    for number, annotation in enumerate(task["annotations"], start=1):
        if annotation.get("was_cancelled") or annotation.get("ground_truth"):
            continue
        by = annotation.get("completed_by") or f"unknown {number}"
        annotator = str(by.get("email") or by["id"]) if isinstance(by, dict) else str(by)
        parts = {"choices": [], "textarea": []}
        for part in annotation["result"]:
            parts.get(part["type"], []).append(part)
        note = " ".join(text for part in parts["textarea"] for text in part["value"]["text"])
        for part in parts["choices"]:
            verdict = " and ".join(part["value"]["choices"]).strip().lower()
            yield annotator, part["from_name"], verdict, note
