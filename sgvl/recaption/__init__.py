"""Captions in two steps: a base model describes, a recaptioner restores what was suppressed.

    step1 = make_captioner({"kind": "chat", "model": "nano"})
    step2 = make_captioner({"kind": "exact", "prompt": "minimal_edit"})
    first = caption_all(step1, pictures := items(dataset), "caption.jsonl")
    second = caption_all(step2, with_captions(pictures, first), "minimal_edit.jsonl")

Both steps are captioners behind one interface, so both are kept, resumed and priced alike. What a
recaptioner refused, cut short or garbled is counted and left out; ``departure`` measures the rest.
"""

from sgvl.common.registry import make
from sgvl.models.reply import Reply
from sgvl.recaption.base import Captioner, Item, items, read, with_captions
from sgvl.recaption.batch import caption_all, counts, estimate, left_out
from sgvl.recaption.dataset import examples, figure_words, to_dataset
from sgvl.recaption.departure import changes, departure, measure, measure_all

__all__ = [
    "KINDS",
    "Captioner",
    "Item",
    "Reply",
    "caption_all",
    "changes",
    "counts",
    "departure",
    "estimate",
    "examples",
    "figure_words",
    "items",
    "left_out",
    "make_captioner",
    "measure",
    "measure_all",
    "read",
    "to_dataset",
    "with_captions",
]

# Named by string, as judges are: a model's libraries load when such a captioner is made.
KINDS = {
    "served": "sgvl.recaption.served:ServedCaptioner",
    "exact": "sgvl.recaption.exact:ExactCaptioner",
    "chat": "sgvl.recaption.chat:ChatCaptioner",
}


def make_captioner(spec: str | dict) -> Captioner:
    """Build a captioner from a parameter file: its kind, or its kind with options.

    Raises InputError with the nearest valid name for an unknown kind, option or prompt.
    """
    return make("captioner", KINDS, spec)
