"""Captions in two steps: a base model describes, a recaptioner restores what was suppressed.

    step1 = make_captioner({"kind": "local", "model": "nano"})
    step2 = make_captioner({"kind": "exact", "prompt": "minimal_edit"})
    first = caption_all(step1, pictures := items(dataset), "caption.jsonl")
    second = caption_all(step2, with_captions(pictures, first), "minimal_edit.jsonl")

Both steps are captioners behind one interface, so both are kept, resumed and priced alike. What a
recaptioner refused, cut short or garbled is counted and left out; ``departure`` measures the rest.
"""

from sgvl.kinds import build
from sgvl.recaption.asking import caption_all, counts, estimate
from sgvl.recaption.base import Captioner, Item, Reply, items, read, with_captions
from sgvl.recaption.measuring import changes, departure, measure
from sgvl.recaption.saving import examples, figure_words, to_dataset

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
    "make_captioner",
    "measure",
    "read",
    "to_dataset",
    "with_captions",
]

# Named by string, as judges are: a model's libraries load when such a captioner is made.
KINDS = {
    "endpoint": "sgvl.recaption.endpoint:EndpointCaptioner",
    "exact": "sgvl.recaption.exact:ExactCaptioner",
    "local": "sgvl.recaption.local:LocalCaptioner",
}


def make_captioner(spec: str | dict) -> Captioner:
    """Build a captioner from a parameter file: its kind, or its kind with options.

    Raises InputError with the nearest valid name for an unknown kind, option or prompt.
    """
    return build("captioner", KINDS, spec)
