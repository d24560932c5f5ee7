"""The skins: ipywidgets controls above what a function of their values shows.

A panel adds no knowledge. Set a control's ``value`` and read ``text``: that is all of its state,
with a browser or without. Executed without a frontend, a panel leaves a still picture of its state.
"""

import html
import os
from collections.abc import Callable, Sequence
from functools import cache, partial
from itertools import product

import ipywidgets
import pandas as pd
from IPython import get_ipython

from sgvl.common.errors import InputError
from sgvl.judges import Judge
from sgvl.policies import brief
from sgvl.policies.concepts import PLACES, concepts, named
from sgvl.text.verdict import SAFE, UNSAFE
from sgvl.widgets import number_views, picture_views
from sgvl.widgets.parts import Shown, show, style
from sgvl.world.scenes import Scene

MILD = ("knife", "axe", "syringe", "skull", "placard")  # harmful to a policy, harmless to look at
STILL = "still picture of a widget: run the notebook to use its controls"
LAYOUT = {"style": {"description_width": "initial"}, "layout": {"width": "auto"}}


def slider(description: str, options: Sequence) -> ipywidgets.SelectionSlider:
    """A slider over given stops; the arrow keys move it."""
    look = LAYOUT | {"layout": {"width": "420px", "max_width": "100%"}}
    return ipywidgets.SelectionSlider(options=options, description=description, **look)


def choice(description: str, options: Sequence) -> ipywidgets.Dropdown:
    """One of several by name; ``options`` are names, or pairs of name and value."""
    return ipywidgets.Dropdown(options=options, description=description, **LAYOUT)


def writing(description: str, text: str, rows: int = 4) -> ipywidgets.Textarea:
    look = LAYOUT | {"layout": {"width": "100%", "max_width": "900px"}}
    return ipywidgets.Textarea(text, description=description, rows=rows, **look)


class Panel(ipywidgets.VBox):
    """Controls above what ``view`` shows of their values, which it is given by name.

    ``shown`` has both forms, ``text`` the words alone; the box "in words" exchanges the two on
    screen. An InputError of ``view`` is shown as its message.
    """

    def __init__(self, view: Callable[..., Shown], **controls: ipywidgets.Widget):
        self.view, self.controls = view, controls
        self.in_words = ipywidgets.Checkbox(description="in words", indent=False)
        self.in_words.layout.width = "auto"
        self.screen = ipywidgets.HTML()
        for control in [*controls.values(), self.in_words]:
            control.observe(self.redraw, "value")
        row = {"flex_flow": "row wrap", "grid_gap": "4px 24px", "align_items": "center"}
        super().__init__([ipywidgets.HBox(self.head, layout=row), self.screen])
        self.add_class("sgvl")
        self.redraw()

    @property
    def head(self) -> list[ipywidgets.Widget]:
        """What stands above the screen."""
        return [*self.controls.values(), self.in_words]

    @property
    def text(self) -> str:
        return self.shown.text

    def look(self) -> Shown:
        """What the controls ask for."""
        return self.view(**{name: control.value for name, control in self.controls.items()})

    def redraw(self, _=None) -> None:
        try:
            self.shown = self.look()
        except InputError as error:
            self.shown = show(str(error))
        words = f"<pre>{html.escape(self.text)}</pre>"
        drawn = words if self.in_words.value else self.shown.html
        announced = drawn.replace("<p>", '<p role="status">')  # sentences are read out, tables not
        self.screen.value = f"<style>{style()}</style>{announced}"

    def states(self) -> dict[str, Shown]:
        """What is shown for every state of the controls, by the places of the choices: ``0,2``.

        Raises InputError if one writes into a control, which has no last state.
        """
        if not all(hasattr(control, "options") for control in self.controls.values()):
            raise InputError("one writes into this panel, which needs a kernel; leave it out")
        stops = [
            [stop[1] if isinstance(stop, tuple) else stop for stop in control.options]
            for control in self.controls.values()
        ]
        states = {}
        for places in product(*map(range, map(len, stops))):
            chosen = [own[place] for own, place in zip(stops, places, strict=True)]
            shown = self.view(**dict(zip(self.controls, chosen, strict=True)))
            states[",".join(map(str, places))] = shown
        return states

    @property
    def twin_controls(self) -> dict[str, ipywidgets.Widget]:
        """The controls that the exported page has, too."""
        return self.controls

    def twin(self) -> dict:
        """What the exported page is given: here HTML for every state of the controls."""
        return {"states": {places: shown.html for places, shown in self.states().items()}}

    def _repr_mimebundle_(self, **kwargs) -> dict[str, str | dict]:
        """Return the widget with a static copy of its state for readers without a kernel.

        A frontend that can show widgets prefers the widget. It is left out where there is no
        frontend, because a saved widget is blank, or moves while nothing answers.
        """
        state = "; ".join(
            f"{control.description}: {getattr(control, 'label', control.value)}"
            for control in self.controls.values()
        )
        still = f'<p class="still">{html.escape(state)} · {STILL}</p>{self.shown.html}'
        static = {"text/plain": self.text, "text/html": Shown(still, self.text)._repr_html_()}
        return (super()._repr_mimebundle_(**kwargs) if _has_frontend() else {}) | static


def _has_frontend() -> bool:
    """Return False in a notebook that papermill or nbconvert executes.

    They alone, and Voila, tell the kernel that nobody can type an answer to ``input()``.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None or "VOILA_BASE_URL" in os.environ:
        return True
    return kernel.get_parent("shell").get("content", {}).get("allow_stdin", True)


def matrix(drawings: Sequence[Scene], policies: Sequence) -> Panel:
    """Pictures under policies: one slider flips the labels and quotes the rules."""
    view = partial(picture_views.matrix, drawings, policies)
    return Panel(view, level=slider("policy", [policy.name for policy in policies]))


def verdicts(policies: Sequence) -> Panel:
    """A picture of your own under each policy."""
    return Panel(
        partial(picture_views.verdicts, policies),
        first=choice("first thing", [*MILD, *named("sensitive")]),
        second=choice("second thing", named("neutral")),
        place=choice("place", PLACES),
    )


class Quiz(Panel):
    """Predict, then reveal: a prediction is final, and ``score`` counts who was right."""

    PREDICTIONS = (("not yet", ""), ("safe", SAFE), ("unsafe", UNSAFE))

    def __init__(self, questions: Sequence[picture_views.Question]):
        self.questions, self.predictions = questions, {}
        self.score = ipywidgets.Label()
        number = slider("question", list(range(1, len(questions) + 1)))
        said = ipywidgets.ToggleButtons(options=self.PREDICTIONS, description="we predict")
        super().__init__(partial(picture_views.question, questions), number=number, prediction=said)
        self.children = [*self.children, self.score]

    @property
    def text(self) -> str:
        return f"{self.shown.text}\n\n{self.score.value}"

    def redraw(self, change=None) -> None:
        number, said = self.controls.values()
        moved = change is not None and change["owner"] is number
        if said.value and not moved:
            self.predictions.setdefault(number.value, said.value)
        said.value = self.predictions.get(number.value, "")
        said.disabled = number.value in self.predictions
        self.score.value = picture_views.tally(self.questions, self.predictions)
        super().redraw()

    def twin(self) -> dict:
        """The page counts for itself, so it is told the truth and what the model said."""
        return super().twin() | {"quiz": [[q.truth, q.model.verdict] for q in self.questions]}


class Workshop(Panel):
    """Write a policy: exact labels follow every key, and the model answers when it is asked.

    An answer is shown beside the very words that it was given, and gone when they change.
    """

    def __init__(self, drawings: Sequence[Scene], judge: Judge, text: str):
        self.drawings, self.ask = drawings, cache(partial(picture_views.ask, judge))
        self.last_asked = None
        self.button = ipywidgets.Button(description="Ask the model")
        self.button.on_click(self._press)
        super().__init__(
            partial(picture_views.workshop, drawings),
            text=writing("policy", text),
            scene=choice("picture", [(picture_views.title(scene), scene) for scene in drawings]),
        )

    @property
    def head(self):
        return [*self.controls.values(), self.button, self.in_words]

    def look(self) -> Shown:
        text, scene = (control.value for control in self.controls.values())
        said = self.ask(scene, text) if self.last_asked == (scene, text) else None
        return self.view(text, scene, said)

    def _press(self, _) -> None:
        self.last_asked = self.controls["scene"].value, self.controls["text"].value
        self.redraw()

    @property
    def twin_controls(self):
        return {"text": self.controls["text"]}

    def twin(self) -> dict:
        """The page has no model but reads and labels for itself: it is given the words and tags."""
        category = {name: concept.category for name, concept in concepts().items()}
        return {
            "workshop": {
                "html": show(
                    "The page computes the labels; the model answers in the notebook alone.",
                    picture_views.labelled(self.drawings, brief.parse_brief("all else permitted")),
                ).html,
                "scenes": [scene.tags for scene in self.drawings],
                "words": {"concepts": category, "places": PLACES},
            }
        }


def edits(
    pairs: Sequence[picture_views.Edit], policies: Sequence, said: picture_views.Answers
) -> Panel:
    """Slide from an unsafe picture to its safe counterpart."""
    return Panel(
        lambda pair, percent: picture_views.edited(pair, policies, percent, said),
        pair=choice("pair", [(picture_views.title(pair.original), pair) for pair in pairs]),
        percent=slider("edited (%)", [0, 25, 50, 75, 100]),
    )


def rollouts(frame: pd.DataFrame, rows) -> Panel:
    """Step through the groups of a GRPO run; ``rows`` are the prompts that it was trained on."""
    groups = frame.groupby("step")["sample"].nunique().min()
    return Panel(
        partial(number_views.rollouts, frame, number_views.prompts(rows)),
        step=slider("step", sorted(frame["step"].unique().tolist())),
        number=slider("prompt", list(range(1, groups + 1))),
    )


def collapse(judgements: pd.DataFrame) -> Panel:
    """Watch a judge that is trained on one level forget the others."""
    steps = sorted(judgements["step"].unique().tolist())
    return Panel(
        partial(number_views.collapse, judgements), step=slider("steps of training", steps)
    )


def averages(judgements: pd.DataFrame, pairs: Sequence[int]) -> Panel:
    """Macro, pooled and their intervals on more and more pairs."""
    return Panel(
        cache(partial(number_views.averages, judgements)),  # a bootstrap a stop
        judge=choice("judge", judgements["judge"].unique().tolist()),
        pairs=slider("pairs", pairs),
    )


def threshold(judgements: pd.DataFrame) -> Panel:
    """What a threshold on P(unsafe) trades, for every judge that gives one."""
    judges = judgements.dropna(subset="p_unsafe")["judge"].unique().tolist()
    return Panel(
        partial(number_views.threshold, judgements),
        judge=choice("judge", judges),
        percent=slider("threshold (%)", list(range(0, 101, 5))),
    )


def reward(reply: str) -> Panel:
    """Type a reply and see what each reward pays for it."""
    label = choice("label", [UNSAFE, SAFE])
    return Panel(number_views.rewarded, label=label, reply=writing("reply", reply, rows=2))
