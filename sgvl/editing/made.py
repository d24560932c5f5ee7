"""Pairs out of edits: members encoded alike, the gate on each, and the sets that are saved."""

import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
from datasets import Dataset
from PIL import Image, JpegImagePlugin

from sgvl.common.errors import InputError
from sgvl.data import arrow, store
from sgvl.data.images import image_digest, load_image
from sgvl.editing.assess import DONE
from sgvl.editing.drawn import find_things, replace_thing
from sgvl.editing.gate import CHANGED, Bounds, Found, compare, traces
from sgvl.recaption.base import FAILED, OK, Item
from sgvl.scores import intervals
from sgvl.text.verdict import UNSAFE

PASSED = "passed"
EDITED = "_edited"  # ends the id of an edited picture, as in the published SafeEditBench
ASPECT = 1.02  # by which the shapes of two pictures may differ that count as one shape
Encoding = Literal["PNG", "JPEG"]


class Pair(NamedTuple):
    """An original and its edit.

    Parameters
    ----------
    item : the original, with the instruction as its caption
    original, edit : the files of both members, encoded alike
    found : what the gate found in the pixels
    content : what the verifier said; "" if it was not asked
    """

    item: Item
    original: bytes
    edit: bytes
    found: Found
    content: str = ""

    @property
    def reason(self) -> str:
        """Why the gate rejects the pair; "" if it passes."""
        return self.found.reason or ("" if self.content == DONE else self.content)


def make_pairs(
    items: Sequence[Item],
    edits: Iterable[Mapping],
    bounds: Bounds,
    encoding: Encoding = "PNG",
    progress: Callable[[int, int], object] | None = None,
) -> list[Pair]:
    """Pair each original with its edited picture, and compare their pixels.

    Parameters
    ----------
    items : the originals, with their instructions
    edits : what ``edit_all`` returned for them; those without a picture are passed over
    """
    pairs = []
    for k, (item, edit) in enumerate(zip(items, edits, strict=True), start=1):
        if edit["status"] == OK:
            one, other = alike(item.open(), edit["file"].read_bytes())
            files = _encoded(one, encoding), _encoded(other, encoding)
            found = compare(*(load_image(file, name=item.id) for file in files), bounds)
            pairs.append(Pair(item, *files, found))
        if progress:
            progress(k, len(items))
    return pairs


def alike(original: Image.Image, edit: bytes) -> tuple[Image.Image, Image.Image]:
    """Give an original the history of its edit: the same JPEG, and the same change of size.

    An edit of another size and the same shape is brought to the size of the original, which then
    goes to the size of the edit and back. One of another shape stays as it is, and the gate
    rejects it.
    """
    edited, original = load_image(edit, name="edit"), original.convert("RGB")
    (width, height), (w, h) = original.size, edited.size
    if (w, h) != original.size and 1 / ASPECT < width * h / (height * w) < ASPECT:
        original = original.resize((w, h), Image.Resampling.LANCZOS).resize((width, height))
        edited = edited.resize((width, height))
    with Image.open(io.BytesIO(edit)) as file:
        if file.format == "JPEG" and edited.size == original.size:
            way = {"qtables": file.quantization, "subsampling": JpegImagePlugin.get_sampling(file)}
            original = load_image(_saved(original, "JPEG", **way), name="original")
    return original, edited


def _encoded(image: Image.Image, encoding: Encoding) -> bytes:
    return _saved(image, encoding, **({"quality": 95} if encoding == "JPEG" else {}))


def _saved(image: Image.Image, encoding: str, **options) -> bytes:
    file = io.BytesIO()
    image.save(file, encoding, **options)
    return file.getvalue()


def edited_items(pairs: Iterable[Pair]) -> list[Item]:
    """Return the edited pictures of pairs as items for ``verify_all``."""
    return [
        Item(
            pair.item.id + EDITED,
            image_digest(picture := load_image(pair.edit)),
            lambda picture=picture: picture,
            pair.item.caption,
        )
        for pair in pairs
    ]


def to_dataset(dataset: Dataset, pairs: Sequence[Pair], editor: str, assessor: str) -> Dataset:
    """Build the made set, as ``sgvl.editing`` describes it.

    Parameters
    ----------
    dataset : the originals, with the columns id, source, split, category and, if drawn, tags
    editor, assessor : their names

    Raises
    ------
    InputError
        If there is no pair.
    """
    from datasets import Features, Image, List, Value

    if not pairs:
        raise InputError("no edit gave a picture: there is nothing to save; see the counts above")
    drawn, text = store.has_tags(dataset), Value("string")
    about = {row["id"]: row for row in dataset.remove_columns("image")}
    records = []
    for pair in pairs:
        row = about[pair.item.id]
        shared = {name: row.get(name, "") for name in ("source", "split", "category")}
        shared |= {
            "pair": row["id"],
            "instruction": pair.item.caption,
            "gate": "rejected" if pair.reason else PASSED,
            "reason": pair.reason,
            "editor": editor,
            "assessor": assessor,
        }
        for member, ending in {"original": "", "edit": EDITED}.items():
            file = {"bytes": getattr(pair, member), "path": None}
            own = {"id": row["id"] + ending, "image": file, "member": member}
            if drawn:
                own["tags"] = (
                    row["tags"] if member == "original" else edited_tags(row["tags"], pair)
                )
            records.append(shared | own)
    features = {"id": text, "image": Image()} | dict.fromkeys((*shared, "member"), text)
    return Dataset.from_list(
        records, features=Features(features | ({"tags": List(text)} if drawn else {}))
    )


def edited_tags(tags: Sequence[str], pair: Pair) -> list[str]:
    """Return what is in an edited drawn scene: what the edit put in the place of what it took.

    The tags name the things in reading order, and ``find_things`` finds their boxes in that order.
    A thing in whose box the pixels differ is taken; the replacements of the instruction stand in
    the same order. Where it found the boxes of 600 scenes, 595 were all right.
    """
    *things, place = tags
    original, edit = (np.asarray(load_image(file), float) for file in (pair.original, pair.edit))
    if original.shape != edit.shape:
        return list(tags)
    differs = np.abs(original - edit).max(-1) > CHANGED
    after = iter(re.findall(r"with an? (\w+)\.", pair.item.caption))
    for k, box in enumerate(find_things(load_image(pair.original), len(things))):
        left, top, right, bottom = box
        if differs[top:bottom, left:right].mean() > 0.1:
            things[k] = next(after, "")
    return [*filter(None, things), place]


def outcomes(
    assessments: Iterable[Mapping], edits: Iterable[Mapping], pairs: Iterable[Pair]
) -> pd.DataFrame:
    """List every picture with what became of it: id, step, outcome and reason.

    The step is assess, edit or gate. Outcomes of the last are passed and rejected; those of the
    others are the statuses of ``assess_all`` and ``edit_all``.
    """
    steps = {row["id"]: ("assess", row["status"], row["reason"]) for row in assessments}
    steps |= {row["id"]: ("edit", row["status"], row["reason"]) for row in edits}
    steps |= {
        pair.item.id: ("gate", "rejected" if pair.reason else PASSED, pair.reason) for pair in pairs
    }
    rows = [(id_, *step) for id_, step in steps.items()]
    return pd.DataFrame(rows, columns=["id", "step", "outcome", "reason"])


def count_outcomes(table: pd.DataFrame) -> pd.DataFrame:
    """Count outcomes by step and, for rejected pairs, by the kind of reason, in pictures and %."""
    kind = table["reason"].where(table["outcome"] == "rejected", "").str.partition(":")[0]
    counts = table.assign(reason=kind).value_counts(["step", "outcome", "reason"], sort=False)
    counts = counts.reset_index(name="pictures")
    return counts.assign(percent=(100 * counts["pictures"] / len(table)).round(1))


def passed(dataset: Dataset, outcome: str = PASSED) -> Dataset:
    """Select the pairs that the gate passed, or rejected."""
    return dataset.select([k for k, gate in enumerate(dataset["gate"]) if gate == outcome])


def with_origin(pictures: Dataset, sets: Mapping[str, Dataset]) -> Dataset:
    """Add to distinct pictures what their sets say of them: source, split and category."""
    about = {}
    for name, rows in sets.items():
        known = [c for c in ("id", "source", "split", "category") if c in rows.column_names]
        for row in rows.select_columns(known):
            about.setdefault(row["id"] if len(sets) == 1 else f"{name}/{row['id']}", row)
    columns = ("source", "split", "category")
    return arrow.join(
        pictures, {c: [about[id_].get(c, "") for id_ in pictures["id"]] for c in columns}
    )


def with_instructions(
    items: Iterable[Item], assessments: Iterable[Mapping], unknown: bool = False
) -> list[Item]:
    """Return the items to edit, with their instructions.

    ``unknown`` keeps those that are not assessed yet, for an estimate.
    """
    kept = (OK, FAILED) if unknown else (OK,)
    return [
        item._replace(caption=row["text"])
        for item, row in zip(items, assessments, strict=True)
        if row["status"] in kept
    ]


def probe(dataset: Dataset, fit_probe: Callable) -> dict:
    """Tell originals from edits by their traces.

    Each half of the pairs is told by a probe that was fitted on the other half. With fewer than ten
    pairs in a half there is no score.

    Parameters
    ----------
    fit_probe : ``sgvl.experiments.controls.fit_probe``

    Returns
    -------
    dict
        n (pictures), value, low, high (balanced accuracy in percent, as
        ``intervals.pairs_told_apart``), at_chance.
    """
    columns = (dataset[name] for name in ("image", "member", "pair"))
    return _probe(zip(*columns, strict=True), fit_probe)


def probe_redrawn(dataset: Dataset, fit_probe: Callable) -> dict:
    """Tell originals from themselves with one thing drawn again in its place, as ``probe`` does.

    That is an edit by ``drawn.replace_thing`` which changes no content, so all that a probe finds
    is traces; between a picture and an edit of its content it finds the content as well. Drawn
    scenes in the usual style only.
    """

    def members() -> Iterator[tuple[Image.Image, str, str]]:
        for n, row in enumerate(dataset):
            if row["member"] == "original":
                things = row["tags"][:-1]
                k = n % len(things)
                box = find_things(row["image"], len(things))[k]
                yield row["image"], "original", row["pair"]
                yield replace_thing(row["image"], box, things[k], seed=n), "edit", row["pair"]

    return _probe(members(), fit_probe)


def _probe(members: Iterable[tuple], fit_probe: Callable) -> dict:
    """Score the probe on pictures with their member and pair, the two of a pair side by side."""
    rows = [(traces(image), member) for image, member, _ in members]
    half = len(rows) // 4 * 2
    if half < 20:
        return dict.fromkeys(("n", "value", "low", "high", "at_chance")) | {"n": len(rows)}
    right: list[bool] = []
    for own, other in ((rows[:half], rows[half:]), (rows[half:], rows[:half])):
        (features, truth), fitted = zip(*own, strict=True), fit_probe(*zip(*other, strict=True))
        right += list(fitted.predict(features) == np.array(truth))
    pairs = np.array(right).reshape(-1, 2)
    alike = int(pairs.all(1).sum()), int((~pairs).all(1).sum())
    score = intervals.pairs_told_apart(*alike, len(pairs))
    at_chance = score.low <= 50 <= score.high
    return {"n": len(rows), **score._asdict(), "at_chance": at_chance}


def sets_to_save(dataset: Dataset, name: str) -> tuple[dict[str, Dataset], dict[str, str]]:
    """Return the made set and, of drawn scenes, the pairs that passed under ``name``.

    Where these cannot be had, the second part says why, as ``store.save`` takes it.
    """
    chosen = passed(dataset)
    if len(chosen) and store.has_tags(dataset):
        return {"made": dataset, name: chosen}, {}
    reason = "its pairs are not annotated yet" if len(chosen) else "no pair passed the gate"
    return {"made": dataset}, {name: f"{reason}; see 01b_safeedit"}


def unsafe_by_member(dataset: Dataset, levels: Sequence[str]) -> pd.DataFrame:
    """Return the percentage of unsafe pictures under each level, for originals and for edits."""
    from sgvl.data.cases import label_cases
    from sgvl.policies.policy import load_all

    table = label_cases(dataset, load_all(levels))
    members = dict(zip(dataset["id"], dataset["member"], strict=True))
    unsafe = 100 * (table["label"] == UNSAFE)
    return unsafe.groupby([table["id"].map(members), table["policy"]]).mean().unstack(0)
