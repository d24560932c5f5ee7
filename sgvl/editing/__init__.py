"""Making SafeEditBench and SafeEditTrain: assess, edit, gate; then annotate and release.

An assessor looks at a picture and says "safe", or how to edit it; an editor applies that; a gate
compares both members of the pair. Notebook 01b_safeedit stores the result in
``runs/<profile>/safeedit`` as the set ``made`` (``sgvl.data.store``), two rows for each pair, the
original first. Pairs that the gate rejects are kept, with their reason.

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
