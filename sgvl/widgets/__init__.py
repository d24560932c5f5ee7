"""What a class plays with, in a notebook, as a Voila page, and as one HTML file without a kernel.

A widget is a skin (``panels``) over a function of its controls (``scenes``, ``numbers``) whose
result says the same in HTML and in words (``views``). ``export`` writes a notebook with all their
states as one file.
"""

from sgvl.widgets.export import export
from sgvl.widgets.panels import (
    Panel,
    Quiz,
    Workshop,
    averages,
    collapse,
    edits,
    matrix,
    reward,
    rollouts,
    threshold,
    verdicts,
)
from sgvl.widgets.parts import folded
from sgvl.widgets.picture_views import CLASS, Question, answers, drawn, edit, replies, vocabulary

__all__ = [
    "CLASS",
    "Panel",
    "Question",
    "Quiz",
    "Workshop",
    "answers",
    "averages",
    "collapse",
    "drawn",
    "edit",
    "edits",
    "export",
    "folded",
    "matrix",
    "replies",
    "reward",
    "rollouts",
    "threshold",
    "verdicts",
    "vocabulary",
]
