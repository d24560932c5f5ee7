"""Making SafeEditBench and SafeEditTrain: assess, edit, gate; then annotate and release.

An assessor looks at a picture and says "safe", or how to edit it; an editor applies that; a gate
compares both members of the pair. Notebook 01b_safeedit stores the result in
``runs/<profile>/safeedit/<variant>`` (train or bench) as the set ``made`` (``sgvl.data.store``),
two rows for each pair, the original first. Pairs that the gate rejects are kept, with their reason.

===========  ===================================================================================
column       what it holds
===========  ===================================================================================
id           of the picture: ``x``, or ``x_edited`` (the names of the published SafeEditBench)
image        the picture's file; both members of a pair are encoded alike
source       of the original: a set with its commit, or a drawn set
split        test or train
category     of the original; empty where its set has none
pair         ``x``, for both members
member       original or edit
instruction  what the assessor asked for
gate         passed or rejected
reason       what the gate found; empty where it passed
editor       name of the editor
assessor     name of the assessor
tags         of drawn scenes alone: what is in the picture, the place last
===========  ===================================================================================

Only pairs that passed are annotated and released. A picture without an edit (found safe, refused,
failed) has no row here; ``outcomes.csv`` lists every picture with what became of it.
"""

from sgvl.common.registry import check, make
from sgvl.editing.assess import assess_all, check_assessor, make_assessors, verify_all
from sgvl.editing.base import Editor, edit_all, estimate
from sgvl.editing.gate import make_bounds
from sgvl.editing.made import (
    count_outcomes,
    edited_items,
    make_pairs,
    outcomes,
    passed,
    probe,
    probe_redrawn,
    sets_to_save,
    to_dataset,
    unsafe_by_member,
    with_instructions,
    with_origin,
)

# Named by string: a model's libraries are imported when such an editor is made, not before.
EDITORS = {
    "local": "sgvl.editing.local:LocalEditor",
    "gemini": "sgvl.editing.gemini:GeminiEditor",
    "diffusers": "sgvl.editing.diffusion:DiffusersEditor",
}


def make_editor(spec: str | dict) -> Editor:
    """Build an editor from a parameter file: its kind, or its kind with options.

    Raises InputError for an unknown kind or option, with the nearest valid name, and for a missing
    option or library.
    """
    return make("editor", EDITORS, spec)


def check_editing(assessor: dict, editor: dict, gate: dict) -> None:
    """Check the specs of an assessor, an editor and the gate; nothing is made, no model loads."""
    check_assessor(assessor)
    check("editor", EDITORS, editor)
    make_bounds(gate)
