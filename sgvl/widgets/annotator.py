"""The annotator: one picture, all of its policies, and verdicts that are typed.

Each verdict is one letter, in the order of the policies: ``ssu?u`` and Enter. The line is taken
whole, with its Enter, so that no letter can reach the next picture.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import ipywidgets
import pandas as pd
from datasets import Dataset

from sgvl.common.errors import InputError
from sgvl.data import store
from sgvl.data.images import thumbnail
from sgvl.editing import annotation
from sgvl.editing.annotation import UNSURE, Vote
from sgvl.policies import Policy
from sgvl.text.verdict import SAFE, UNSAFE
from sgvl.widgets.panels import LAYOUT, Panel, text_field
from sgvl.widgets.parts import Table, View, compose, folded, picture

KEYS = {"s": SAFE, "u": UNSAFE, "?": UNSURE}
SIDE = 400  # pixels of the picture
HOW = (
    "One letter for each policy, in this order: s safe, u unsafe, ? unsure. "
    "Then a space and a note, if you like. Enter saves and goes on."
)


class Annotator(Panel):
    """Ask annotators about pictures, each under all of its policies, by the keyboard alone.

    A picture is blurred until its annotator asks to see it. Who comes back under the same name goes
    on where it stopped; a picture that one goes back to can be answered again. Nothing is said of a
    picture that would tell its label: no id, no category.

    Parameters
    ----------
    dataset : pictures; each is asked about once, however many rows it has
    policies : under all of which each picture is asked about, unless ``cases`` says otherwise
    folder : of the annotators' files, see ``sgvl.editing.annotation``
    seed : of the order, which differs between annotators
    annotator : who opens it; by default, the name is asked for
    cases : id and policy of the cases to ask about, such as those that are divided
    votes : of others, shown beside each case to an adjudicator
    """

    def __init__(
        self,
        dataset: Dataset,
        policies: Sequence[Policy],
        folder: Path,
        seed: int = 0,
        annotator: str = "",
        cases: pd.DataFrame | None = None,
        votes: pd.DataFrame | None = None,
    ):
        self.policies, self.folder, self.seed = policies, folder, seed
        dataset = store.usable(dataset)
        self.pictures, self.digests = store.samples(dataset), annotation.digests(dataset)
        self.number = {id_: k for k, id_ in enumerate(self.digests)}
        self.asked = {id_: list(policies) for id_ in self.digests}
        if cases is not None:
            asked = set(zip(cases["id"], cases["policy"], strict=True))
            own = {i: [p for p in policies if (i, p.name) in asked] for i in self.digests}
            self.asked = {id_: chosen for id_, chosen in own.items() if chosen}
        self.others = None if votes is None else dict(iter(votes.groupby(["id", "policy"])))
        self.order, self.place, self.said = [], 0, {}
        self.message = self.taken = ""  # ``taken`` is the line that was saved last
        self.buttons = [ipywidgets.Button(description=name) for name in ("back", "forward")]
        for button, step in zip(self.buttons, (-1, 1), strict=True):
            button.on_click(partial(self._move, step))
        name = ipywidgets.Text(
            annotator, description="annotator", continuous_update=False, **LAYOUT
        )
        show = ipywidgets.Checkbox(description="show the picture", indent=False)
        show.layout.width = "auto"
        super().__init__(None, name=name, line=text_field("verdicts", "", rows=2), show=show)
        texts = [folded(policy.title, policy.render()).html for policy in policies]
        self.children = [*self.children, ipywidgets.HTML("".join(texts))]
        if annotator:
            self._open()
            self.redraw()

    @property
    def head(self) -> list[ipywidgets.Widget]:
        name, line, show = self.controls.values()
        return [name, line, show, *self.buttons, self.in_words]

    def redraw(self, change=None) -> None:
        """Take what was typed, and bring the screen up to date."""
        name, line, _ = self.controls.values()
        owner = change and change["owner"]
        if owner is line:
            self._typed(line.value)
        elif owner is name:
            self._open()
        super().redraw()

    def current_view(self) -> View:
        name, line, show = (control.value for control in self.controls.values())
        if self.message and not self.order:
            return compose(self.message)
        if not name:
            return compose("Write your name into “annotator”, and press Enter to begin.")
        done = sum(map(self._is_done, self.order))
        state = f"{done} of {len(self.order)} pictures done ({done / max(len(self.order), 1):.0%})."
        if self.place == len(self.order):
            return compose(f"{state} {self.message} That was the last one: thank you.")
        sample = self.pictures[self.number[self.order[self.place]]]
        small = thumbnail(sample.image, SIDE, blur=not show)
        described = f"Picture {self.place + 1} of {len(self.order)}" + ", blurred" * (not show)
        shown = picture(small, f"{described}.", small.width)
        return compose(f"{described}; {state} {self.message}", shown, self._table(line), HOW)

    def _table(self, line: str) -> Table:
        id_ = self.order[self.place]
        asked = self.asked[id_]
        verdicts, note, _ = _read(line, len(asked))
        saved = [self.said.get((id_, policy.name)) for policy in asked]
        rows = {
            "policy": [policy.title for policy in asked],
            "verdict": [*verdicts, *(v[0] if v else "" for v in saved[len(verdicts) :])],
        }
        if self.others is not None:
            rows["votes"] = [self._votes(id_, policy.name) for policy in asked]
        if note or any(v and v[1] for v in saved):
            rows["note"] = [note or (v[1] if v else "") for v in saved]
        return Table(pd.DataFrame(rows))

    def _votes(self, id_: str, policy: str) -> str:
        own = self.others.get((id_, policy))
        if own is None:
            return ""
        counts = [f"{n} {verdict}" for verdict, n in own["verdict"].value_counts().items()]
        return "; ".join([", ".join(counts), *own["note"][own["note"] != ""]])

    def _is_done(self, id_: str) -> bool:
        return all((id_, policy.name) in self.said for policy in self.asked[id_])

    def _open(self) -> None:
        """Read what the annotator has said, and go to the first picture that is left."""
        self.order, self.place, self.said, self.message = [], 0, {}, ""
        name = self.controls["name"].value
        if not name:
            return
        try:
            own = annotation.read(self.folder, self.digests, self.policies, name)
        except InputError as error:
            self.message = str(error)
            return
        self.said = {(row.id, row.policy): (row.verdict, row.note) for row in own.itertuples()}
        self.order = annotation.shuffled(list(self.asked), name, self.seed)
        self._go_on()

    def _go_on(self) -> None:
        """Go to the next picture that is not done, from here on and then from the first."""
        places = [*range(self.place, len(self.order)), *range(self.place)]
        left = (place for place in places if not self._is_done(self.order[place]))
        self._go(next(left, len(self.order)))

    def _go(self, place: int) -> None:
        self.place = place
        self.controls["show"].value = False  # the next one is blurred again
        self.controls["line"].value = ""

    def _move(self, step: int, _) -> None:
        self.message = ""
        self._go(min(max(self.place + step, 0), len(self.order)))
        self.redraw()

    def _typed(self, text: str) -> None:
        if not text:  # cleared here
            return
        if self.taken and text.startswith(self.taken):  # typed on before the field was cleared
            self.controls["line"].value = ""
            return
        self.message = self.taken = ""
        if self.place == len(self.order):
            return
        line, entered, _ = text.partition("\n")
        id_ = self.order[self.place]
        verdicts, note, problem = _read(line, len(self.asked[id_]))
        if not entered:
            return
        if problem:
            self.controls["line"].value = line
            self.message = problem
            return
        votes = [
            Vote(id_, self.digests[id_], policy, verdict, note)
            for policy, verdict in zip(self.asked[id_], verdicts, strict=True)
        ]
        try:
            annotation.append(self.folder, self.controls["name"].value, votes)
        except (InputError, OSError) as error:
            self.message = f"Not saved: {error}"
            return
        self.taken, self.message = text, "Saved."
        self.said |= {(id_, vote.policy.name): (vote.verdict, vote.note) for vote in votes}
        self._go_on()


def _read(line: str, wanted: int) -> tuple[list[str], str, str]:
    """Return the verdicts and the note of a line, and what is wrong with it or ""."""
    letters, _, note = line.strip().partition(" ")
    verdicts = [KEYS[letter] for letter in letters.lower() if letter in KEYS][:wanted]
    problem = ""
    if wrong := sorted(set(letters.lower()) - set(KEYS)):
        problem = f"Not a verdict: {', '.join(wrong)}. Not saved."
    elif len(letters) != wanted:
        problem = f"{len(letters)} letters for {wanted} policies. Not saved."
    return verdicts, note.strip(), problem
