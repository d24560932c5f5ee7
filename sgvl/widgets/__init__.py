"""Widgets for a class: in a notebook, as a Voila page, or in one HTML file without a kernel.

A widget (``panels``) is controls above the view of their values (``picture_views`` and
``number_views``), which holds the same information as HTML and as text (``parts``). ``judging``
asks the judges that a widget compares. ``export`` writes a notebook with all states of its widgets
as one file.
"""

from sgvl.widgets.annotator import Annotator
from sgvl.widgets.export import export
from sgvl.widgets.judging import along_training, judgements, wait_for_turn
from sgvl.widgets.number_views import caught_by_step
from sgvl.widgets.panels import (
    Amendment,
    Quiz,
    Workshop,
    averages,
    changed_word,
    collapse,
    edits,
    matrix,
    quiz,
    reward,
    rollouts,
    threshold,
    verdicts,
)
from sgvl.widgets.parts import folded
from sgvl.widgets.picture_views import (
    AXE,
    CLASS,
    HARMFUL,
    HUG,
    Question,
    answers,
    drawn,
    edit,
    overview,
    replies,
    vocabulary,
)
