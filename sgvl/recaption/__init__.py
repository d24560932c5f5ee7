"""Captions in two steps: a base model describes a picture, a recaptioner adds what it suppressed.

    step1 = make_captioner({"kind": "chat", "model": "nano"})
    (step2,) = make_captioners({"kind": "exact"}, ["minimal_edit"])
    pictures = items(dataset)
    captions = caption_all(step1, pictures, "caption.jsonl")
    recaptions = caption_all(step2, with_captions(pictures, captions), "minimal_edit.jsonl")

Both steps use one interface, ``Captioner``: ``caption_all`` stores every reply and resumes, and
``estimate`` returns the cost in advance. Refusals, cut replies and garbage are counted and left
out; ``departure`` measures how far a recaption is from its caption.
"""

import copy
from collections.abc import Sequence

from sgvl.common.errors import need_known
from sgvl.common.registry import check, make, options_of
from sgvl.recaption.base import Captioner, Item, items, parse_caption, with_captions
from sgvl.recaption.batch import caption_all, counts, estimate, left_out
from sgvl.recaption.dataset import distinct, examples, figure_words, to_dataset
from sgvl.recaption.departure import changes, departure, measure, measure_all, read_terms
from sgvl.text.prompts import RECAPTION

# Named by string: a model's libraries are imported when such a captioner is made, not before.
CAPTIONERS = {
    "served": "sgvl.recaption.served:ServedCaptioner",
    "exact": "sgvl.recaption.exact:ExactCaptioner",
    "chat": "sgvl.recaption.chat:ChatCaptioner",
}


def check_captioners(first: dict, second: dict) -> None:
    """Check the specs of both steps without a prompt; no captioner is made, no model loads."""
    for spec, prompt in ((first, "caption"), (second, "minimal_edit")):
        check("captioner", CAPTIONERS, {**spec, "prompt": prompt})


def make_captioner(spec: str | dict) -> Captioner:
    """Build a captioner from a parameter file: its kind, or its kind with options.

    Raises InputError for an unknown kind, option or prompt, with the nearest valid name, and for a
    missing option.
    """
    return make("captioner", CAPTIONERS, spec)


def make_captioners(spec: str | dict, names: Sequence[str]) -> list[Captioner]:
    """Build one captioner for each prompt of step 2 in ``names``; they share one model.

    Raises InputError as ``make_captioner`` does, and without a prompt.
    """
    for name in names or [""]:
        need_known("prompts: unknown caption prompt", name, RECAPTION)
    first = make_captioner({**options_of(spec), "prompt": names[0]})
    others = [copy.copy(first) for _ in names[1:]]
    for other, name in zip(others, names[1:], strict=True):
        other.prompt = name
    return [first, *others]
