"""Widgets: ipywidgets controls above the view of their values.

A panel computes nothing itself. Set a control's ``value`` and read ``text``: that is its whole
state, in a browser or without. Executed without a frontend, it leaves a still picture of its state.
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
from sgvl.policies import Policy, brief
from sgvl.policies.concepts import PLACES, concepts, named
from sgvl.text.verdict import SAFE, UNSAFE
from sgvl.widgets import number_views, picture_views
from sgvl.widgets.parts import Table, View, compose, style
from sgvl.world.scenes import Scene

MILD = ("knife", "axe", "syringe", "skull", "placard")  # harmful to a policy, harmless to look at
STILL = "still picture of a widget: run the notebook to use its controls"
LAYOUT = {"style": {"description_width": "initial"}, "layout": {"width": "auto"}}


def slider(description: str, options: Sequence) -> ipywidgets.SelectionSlider:
    """Make a slider over given stops; the arrow keys move it."""
    look = LAYOUT | {"layout": {"width": "420px", "max_width": "100%"}}
    return ipywidgets.SelectionSlider(options=options, description=description, **look)


def choice(description: str, options: Sequence) -> ipywidgets.Dropdown:
    """Make a drop-down list; ``options`` are names, or pairs of name and value."""
    return ipywidgets.Dropdown(options=options, description=description, **LAYOUT)


def text_field(description: str, text: str, rows: int = 4) -> ipywidgets.Textarea:
    """Make a field of ``rows`` lines to write in, with ``text`` in it."""
    look = LAYOUT | {"layout": {"width": "100%", "max_width": "900px"}}
    return ipywidgets.Textarea(text, description=description, rows=rows, **look)


def options(control: ipywidgets.Widget) -> list[tuple[str, object]]:
    """Return the name and the value of each option of a control."""
    return [
        option if isinstance(option, tuple) else (str(option), option) for option in control.options
    ]


class Panel(ipywidgets.VBox):
    """Controls above the view of their values.

    The box "in words" exchanges the two forms of the view on screen. An InputError of the view is
    displayed as its message.

    Parameters
    ----------
    view : gets the values of the controls by name, returns a ``View``
    controls : widgets with a ``value``

    Attributes
    ----------
    current : the present ``View``
    text : its text
    """

    def __init__(self, view: Callable[..., View], **controls: ipywidgets.Widget):
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
        """Return the widgets above the screen."""
        return [*self.controls.values(), self.in_words]

    @property
    def text(self) -> str:
        """Return the present state in words."""
        return self.current.text

    def current_view(self) -> View:
        """Return the view of the controls' values."""
        return self.view(**{name: control.value for name, control in self.controls.items()})

    def redraw(self, _=None) -> None:
        """Bring the screen up to date with the controls."""
        try:
            self.current = self.current_view()
        except InputError as error:
            self.current = compose(str(error))
        words = f"<pre>{html.escape(self.text)}</pre>"
        form = words if self.in_words.value else self.current.html
        announced = form.replace("<p>", '<p role="status">')  # read out: sentences, but not tables
        self.screen.value = f"<style>{style()}</style>{announced}"

    def states(self) -> dict[str, View]:
        """Return the view of every state, by the indices of the chosen options: ``0,2``.

        Raises InputError if a control is a text field, which has endlessly many states.
        """
        if not all(hasattr(control, "options") for control in self.controls.values()):
            raise InputError("a panel with a text field needs a kernel; leave it out of the page")
        states = {}
        for chosen in product(*(enumerate(options(control)) for control in self.controls.values())):
            indices = ",".join(str(index) for index, _ in chosen)
            values = [value for _, (_, value) in chosen]
            states[indices] = self.view(**dict(zip(self.controls, values, strict=True)))
        return states

    @property
    def page_controls(self) -> dict[str, ipywidgets.Widget]:
        """Return the controls that the panel keeps in the exported page."""
        return self.controls

    def page_data(self) -> dict:
        """Return the JSON data that page.js needs: here HTML for every state of the controls."""
        return {"states": {indices: view.html for indices, view in self.states().items()}}

    def _repr_mimebundle_(self, **kwargs) -> dict[str, str | dict]:
        """Return the widget with a still picture of its state for readers without a kernel.

        A frontend that can show widgets prefers the widget. It is left out where there is no
        frontend, because a saved widget is blank, or has controls that nothing answers.
        """
        state = "; ".join(
            f"{control.description}: {getattr(control, 'label', control.value)}"
            for control in self.controls.values()
        )
        still = f'<p class="still">{html.escape(state)} · {STILL}</p>{self.current.html}'
        static = {"text/plain": self.text, "text/html": View(still, self.text)._repr_html_()}
        return (super()._repr_mimebundle_(**kwargs) if _has_frontend() else {}) | static


def _has_frontend() -> bool:
    """Return False in a notebook that papermill or nbconvert executes.

    Both tell the kernel that nobody can answer ``input()``. So does Voila, but it shows widgets.
    """
    kernel = getattr(get_ipython(), "kernel", None)
    if kernel is None or "VOILA_BASE_URL" in os.environ:
        return True
    return kernel.get_parent("shell").get("content", {}).get("allow_stdin", True)


def matrix(scenes: Sequence[Scene], policies: Sequence[Policy]) -> Panel:
    """Show scenes under policies; one slider flips the labels and quotes the rules."""
    view = partial(picture_views.matrix, scenes, policies)
    return Panel(view, level=slider("policy", [policy.name for policy in policies]))


def verdicts(policies: Sequence[Policy]) -> Panel:
    """Compose a picture from lists, and show its label under each policy."""
    return Panel(
        partial(picture_views.verdicts, policies),
        first=choice("first thing", [*MILD, *named("sensitive")]),
        second=choice("second thing", named("neutral")),
        place=choice("place", PLACES),
    )


class Quiz(Panel):
    """Questions to predict before the answers are shown; ``score`` counts who was right.

    A prediction is final.
    """

    PREDICTIONS = (("not yet", ""), ("safe", SAFE), ("unsafe", UNSAFE))

    def __init__(self, questions: Sequence[picture_views.Question]):
        self.questions, self.predictions = questions, {}
        self.score = ipywidgets.Label()
        number = slider("question", list(range(1, len(questions) + 1)))
        buttons = ipywidgets.ToggleButtons(options=self.PREDICTIONS, description="we predict")
        view = partial(picture_views.question, questions)
        super().__init__(view, number=number, prediction=buttons)
        self.children = [*self.children, self.score]

    @property
    def text(self) -> str:
        return f"{self.current.text}\n\n{self.score.value}"

    @property
    def reasons(self) -> str:
        """Count how often the model was right, and how often without naming everything it saw."""
        return picture_views.reasons(self.questions)

    def redraw(self, change=None) -> None:
        number, prediction = self.controls.values()
        moved = change is not None and change["owner"] is number
        if prediction.value and not moved:
            self.predictions.setdefault(number.value, prediction.value)
        prediction.value = self.predictions.get(number.value, "")
        prediction.disabled = number.value in self.predictions
        self.score.value = picture_views.tally(self.questions, self.predictions)
        super().redraw()

    def page_data(self) -> dict:
        """Return the states, with the label and the model's verdict of each question to count."""
        return super().page_data() | {"quiz": [[q.truth, q.model.verdict] for q in self.questions]}


def quiz(scenes: Sequence[Scene], policies: Sequence[Policy], judge: Judge) -> Quiz:
    """Ask a judge about each scene under a policy of its own, and make a quiz of its answers.

    The policies are dealt out in turn, three on each time, so that neighbours differ.
    """
    dealt = [policies[(3 * k + 1) % len(policies)] for k in range(len(scenes))]
    samples = [picture_views.sample(scene, judge) for scene in scenes]
    answers = judge.judge(zip(samples, dealt, strict=True))
    return Quiz(list(map(picture_views.Question, scenes, dealt, answers)))


class Asking(Panel):
    """A panel with a button that asks a model; without, it says what needs no model."""

    def __init__(self, view: Callable[..., View], **controls: ipywidgets.Widget):
        self.button = ipywidgets.Button(description="Ask the model")
        self.button.on_click(self._press)
        super().__init__(view, **controls)

    @property
    def head(self):
        return [*self.controls.values(), self.button, self.in_words]

    def page_words(self, note: str, scenes: Sequence[Scene], table: Table) -> dict:
        """Return what the page needs to label on its own, since it has no model.

        Tags of the scenes, words of clauses, and the table whose cells it fills.
        """
        category = {name: concept.category for name, concept in concepts().items()}
        return {
            "html": compose(note, table).html,
            "scenes": [scene.tags for scene in scenes],
            "words": {"concepts": category, "places": PLACES},
        }


class Workshop(Asking):
    """A field to write a policy in: exact labels follow each key, the model answers on request.

    An answer is shown as long as the text and the picture are those that the model was given.
    """

    def __init__(self, scenes: Sequence[Scene], judge: Judge, text: str):
        self.scenes, self.ask = scenes, cache(partial(picture_views.ask, judge))
        self.request = None  # scene and text that the model was last asked about
        super().__init__(
            partial(picture_views.workshop, scenes),
            text=text_field("policy", text),
            scene=choice("picture", [(picture_views.title(scene), scene) for scene in scenes]),
        )

    def current_view(self) -> View:
        text, scene = (control.value for control in self.controls.values())
        answer = self.ask(scene, text) if self.request == (scene, text) else None
        return self.view(text, scene, answer)

    def _press(self, _) -> None:
        self.request = self.controls["scene"].value, self.controls["text"].value
        self.redraw()

    @property
    def page_controls(self):
        return {"text": self.controls["text"]}

    def page_data(self) -> dict:
        note = "The page computes the labels; the model answers in the notebook alone."
        table = picture_views.labelled(self.scenes, brief.parse_brief("all else permitted"))
        return {"workshop": self.page_words(note, self.scenes, table)}


class Amendment(Asking):
    """Two fields, a policy and its edited version: what must flip, and what a model makes of it.

    The expected flips follow each key. The model is asked about every scene under a text once; its
    answers are shown wherever it knows both texts.
    """

    def __init__(self, scenes: Sequence[Scene], judge: Judge, before: str, after: str):
        self.scenes = scenes
        self.ask = cache(partial(picture_views.ask_about, judge, scenes))
        self.requested: set[str] = set()  # texts that the model was to be asked about
        super().__init__(
            partial(picture_views.edited_policy, scenes),
            before=text_field("before", before, rows=2),
            after=text_field("after", after, rows=2),
        )

    @property
    def texts(self) -> list[str]:
        """Return what is written, the version before the edit first."""
        return [control.value for control in self.controls.values()]

    def current_view(self) -> View:
        return self.view(*self.texts, self.ask if self.requested >= {*self.texts} else None)

    def _press(self, _) -> None:
        self.requested |= {*self.texts}
        self.redraw()

    def page_data(self) -> dict:
        note = "The page computes what must flip; the model answers in the notebook alone."
        versions = map(brief.parse_brief, self.texts)
        table = Table(picture_views.flips_under(self.scenes, *versions))
        return {"amendment": self.page_words(note, self.scenes, table)}


def edits(scenes: Sequence[Scene], policies: Sequence[Policy], judge: Judge) -> Panel:
    """Edit the harmful thing out of each scene, and slide from the original to its counterpart.

    The judge is asked about both members of each pair. Raises InputError for a scene without a
    harmful thing.
    """
    pairs = [picture_views.edit(scene) for scene in scenes]
    members = [member for pair in pairs for member in (pair.original, pair.edited)]
    judged = picture_views.answers(judge, members, policies)
    return Panel(
        lambda pair, percent: picture_views.edits(pair, policies, percent, judged),
        pair=choice("pair", [(picture_views.title(pair.original), pair) for pair in pairs]),
        percent=slider("edited (%)", [0, 25, 50, 75, 100]),
    )


def changed_word(
    scenes: Sequence[Scene], text: str, swaps: Sequence[tuple[str, str]], judge: Judge
) -> Panel:
    """Change one word of a policy: which pictures flip, and which must not?

    Parameters
    ----------
    text : the policy, written in clauses
    swaps : old and new, see ``picture_views.change``
    judge : is asked about each scene under the policy and under each change of it

    Raises
    ------
    InputError
        As ``picture_views.change`` does.
    """
    edits = [picture_views.change(text, old, new) for old, new in swaps]
    policies = [edits[0].before, *(edit.after for edit in edits)]
    samples = [picture_views.sample(scene, judge) for scene in scenes]
    answers = judge.judge((sample, policy) for sample in samples for policy in policies)
    before, *after = (answers[k :: len(policies)] for k in range(len(policies)))

    def view(edit: int, stage: str) -> View:
        return picture_views.changed_word(scenes, edits[edit], stage, before, after[edit])

    titles = [(f"{old} → {new}", k) for k, (old, new) in enumerate(swaps)]
    return Panel(view, edit=choice("change", titles), stage=slider("show", picture_views.STAGES))


def rollouts(frame: pd.DataFrame, rows) -> Panel:
    """Step through the groups of a GRPO run.

    ``frame`` is from ``grpo.rollouts``, ``rows`` are the prompts of the training.
    """
    prompts = frame.groupby("step")["sample"].nunique().min()
    return Panel(
        partial(number_views.rollouts, frame, number_views.prompts(rows)),
        step=slider("step", sorted(frame["step"].unique().tolist())),
        number=slider("prompt", list(range(1, prompts + 1))),
    )


def collapse(judgements: pd.DataFrame) -> Panel:
    """Follow a judge that is trained on one level as it forgets the others.

    ``judgements`` is a judgement frame with a column ``step``.
    """
    steps = sorted(judgements["step"].unique().tolist())
    view = partial(number_views.collapse, judgements)
    return Panel(view, step=slider("steps of training", steps))


def averages(judgements: pd.DataFrame) -> Panel:
    """Show macro, pooled and their intervals on a quarter, a half and all of the pairs."""
    n = judgements["pair"].nunique()
    return Panel(
        cache(partial(number_views.averages, judgements)),  # a bootstrap for each state
        judge=choice("judge", judgements["judge"].unique().tolist()),
        pairs=slider("pairs", sorted({n // 4, n // 2, n} - {0})),
    )


def threshold(judgements: pd.DataFrame) -> Panel:
    """Move a threshold on P(unsafe), for every judge that gives one, the most graded first."""
    values = judgements.groupby("judge", sort=False)["p_unsafe"].nunique()
    judges = values[values > 0].sort_values(ascending=False, kind="stable").index.tolist()
    percent = slider("threshold (%)", list(range(0, 101, 5)))
    percent.value = 50
    view = partial(number_views.threshold, judgements)
    return Panel(view, judge=choice("judge", judges), percent=percent)


def reward(reply: str) -> Panel:
    """Type a reply, and see what each reward pays for it."""
    label = choice("label", [UNSAFE, SAFE])
    return Panel(number_views.rewards, label=label, reply=text_field("reply", reply, rows=2))
