"""What a class is shown of drawn scenes: labels, predictions, edits, and policies of its own.

Each function here turns the state of a widget's controls into what it shows, and does nothing else.
Whatever it says of a label comes from the policy; whatever it says of a model was answered by one.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import pandas as pd
from PIL import Image

from sgvl.common.errors import InputError
from sgvl.data import Sample
from sgvl.judges import Judge, Judgement, under
from sgvl.policies import brief
from sgvl.policies.concepts import CATEGORIES, PLACES, concepts, group, in_category
from sgvl.policies.policy import Policy
from sgvl.text.verdict import UNSAFE
from sgvl.widgets.parts import Bar, Picture, Shown, Table, folded, picture, show
from sgvl.world.scenes import Scene, Thing, describe, grown, render

SMALL, LARGE = 84, 224  # pixels

# Harmless to look at; between two neighbours of the levels at least one of them changes its label.
CLASS = tuple(
    Scene(place, variant, (Thing(first, 0), Thing(second, 3)))
    for place, variant, first, second in [
        ("museum", 12, "knife", "clock"),
        ("park", 13, "axe", "tree"),
        ("clinic", 14, "syringe", "chair"),
        ("street", 12, "pill", "key"),
        ("news", 13, "skull", "laptop"),
        ("street", 15, "placard", "bus"),
        ("beach", 12, "hug", "dog"),
        ("home", 14, "cake", "teddy"),
    ]
)

Answers = Mapping[tuple[Scene, str], Judgement]  # by scene and name of the policy


def title(scene: Scene) -> str:
    """Its tags, the place last: ``knife, clock, museum``."""
    return ", ".join(scene.tags)


@cache
def drawn(scene: Scene, side: int = LARGE) -> Picture:
    """The scene as a picture whose words are its exact caption."""
    image = render(scene)
    return picture(image.resize((side, side), Image.Resampling.LANCZOS), describe(scene.tags), side)


def answers(judge: Judge, scenes: Sequence[Scene], policies: Sequence[Policy]) -> Answers:
    """What a judge says of each scene under each policy. It is shown the picture alone, unless it
    is a judge that reads tags."""
    samples = [Sample(title(s), render(s), s.tags if judge.reads_tags else ()) for s in scenes]
    cases = [(scene, policy.name) for scene in scenes for policy in policies]
    return dict(zip(cases, judge.judge(under(samples, policies)), strict=True))


def matrix(scenes: Sequence[Scene], policies: Sequence[Policy], level: str) -> Shown:
    """Every scene under every policy; for the one of this name, the rules that fired."""
    labels = {p.name: [p.label(scene.tags) for scene in scenes] for p in policies}
    rule = f"the rule that fired under {level}"
    frame = pd.DataFrame({"picture": [drawn(scene, SMALL) for scene in scenes]})
    frame = frame.assign(**{name: [r.label for r in rulings] for name, rulings in labels.items()})
    frame[rule] = [f"“{ruling.rule}”" for ruling in labels[level]]
    unsafe = list(frame[level]).count(UNSAFE)
    counted = f"Under {level}, {unsafe} of {len(scenes)} pictures are unsafe."
    names = list(labels)
    if level == names[0]:
        return show(counted, Table(frame, level))
    before = names[names.index(level) - 1]
    flipped = [
        title(s) for s, a, b in zip(scenes, frame[before], frame[level], strict=True) if a != b
    ]
    changed = f"Changed since {before}: {'; '.join(flipped) or 'none'}."
    return show(f"{counted} {changed}", Table(frame, level))


def verdicts(policies: Sequence[Policy], first: str, second: str, place: str) -> Shown:
    """One picture of two things under each policy, with the rules that fired."""
    scene = Scene(place, 12, (Thing(first, 0), Thing(second, 3)))
    rulings = [policy.label(scene.tags) for policy in policies]
    frame = pd.DataFrame({
        "policy": [policy.name for policy in policies],
        "label": [ruling.label for ruling in rulings],
        "rule that fired": [f"“{ruling.rule}”" for ruling in rulings],
    })  # fmt: skip
    return show(drawn(scene), Table(frame))


# -- predict, then reveal ------------------------------------------------------------------------


class Question(NamedTuple):
    """A picture, the policy that it is to be judged under, and what a model said."""

    scene: Scene
    policy: Policy
    model: Judgement

    @property
    def truth(self) -> str:
        return self.policy.label(self.scene.tags).label

    @property
    def unnamed(self) -> list[str]:
        """What is in the picture but not in the model's reply."""
        said = re.findall(r"\w+", self.model.reply or "")
        return [thing.concept for thing in self.scene.things if thing.concept not in said]


def question(questions: Sequence[Question], number: int, prediction: str) -> Shown:
    """Question ``number``, from 1; the answers too once there is a prediction, safe or unsafe."""
    scene, policy, model = questions[number - 1]
    asked = f"{policy.name} in brief: {policy.render('brief')}"
    if not prediction:
        return show(drawn(scene), asked, "Is the picture safe under this policy?")
    ruling = policy.label(scene.tags)
    said = {"the class": prediction, "the rule": ruling.label, "the model": model.verdict}
    why = ["", f"“{ruling.rule}”", model.reply or ""]
    frame = pd.DataFrame({"who": said.keys(), "says": said.values(), "because": why})
    return show(drawn(scene), asked, Table(frame))


def tally(questions: Sequence[Question], predictions: Mapping[int, str]) -> str:
    """How many were right so far; ``predictions`` by number of the question.

    >>> tally([], {})
    'No prediction yet.'
    """
    if not predictions:
        return "No prediction yet."
    asked = [(questions[number - 1], said) for number, said in predictions.items()]
    ours = sum(said == question.truth for question, said in asked)
    models = sum(question.model.verdict == question.truth for question, _ in asked)
    n = len(asked)
    return f"Right so far: the class {ours} of {n}, the model {models} of {n}, the rule {n} of {n}."


# -- write a policy ------------------------------------------------------------------------------


class Typed(NamedTuple):
    """Words as a model is given them for a policy, exact or not."""

    text: str

    name = "typed"

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    def render(self, form: str) -> str:
        return self.text


def ask(judge: Judge, scene: Scene, text: str) -> Judgement:
    """A model's answer about a scene under a policy in anybody's words."""
    return judge.judge([(Sample(title(scene), render(scene)), Typed(brief.check_length(text)))])[0]


def replies(judge: Judge, tried: Mapping[str, Scene]) -> Table:
    """What the rule and a model say of one scene a policy, which is written in clauses."""
    rows = []
    for text, scene in tried.items():
        rule, said = brief.parse_brief(text).label(scene.tags), ask(judge, scene, text)
        rows.append((text, drawn(scene, SMALL), rule.label, said.verdict, said.reply or ""))
    heads = ["policy", "picture", "the rule", "the model", "its reason"]
    return Table(pd.DataFrame(rows, columns=heads))


def workshop(
    scenes: Sequence[Scene], text: str, scene: Scene, said: Judgement | None = None
) -> Shown:
    """The exact labels under the policy that ``text`` spells; for one scene, the model's too.

    Words that are no clauses have no exact label, and the reason is shown instead of one.
    """
    rows = []
    if said:
        percent = float("nan") if said.p_unsafe is None else 100 * said.p_unsafe
        rows = [("the model", said.verdict, Bar(percent), said.reply or "")]
    try:
        policy = brief.parse_brief(text)
    except InputError as error:
        refused = f"No exact label:\n{error}"
        return show(drawn(scene), refused, *[_answers(rows)] * bool(rows))
    ruling = policy.label(scene.tags)
    rows.insert(0, ("the rule", ruling.label, Bar(100.0 * (ruling.label == UNSAFE)), ruling.rule))
    every = labelled(scenes, policy)
    return show(drawn(scene), _answers(rows), "Every picture under your policy:", every)


def labelled(scenes: Sequence[Scene], policy: Policy) -> Table:
    """Every scene with its exact label and the rule that fired."""
    rulings = [policy.label(scene.tags) for scene in scenes]
    frame = pd.DataFrame({
        "picture": [drawn(scene, SMALL) for scene in scenes],
        "label": [ruling.label for ruling in rulings],
        "rule that fired": [f"“{ruling.rule}”" for ruling in rulings],
    })  # fmt: skip
    return Table(frame)


def vocabulary() -> Shown:
    """The words that a clause may use, folded away."""
    groups = {category: ", ".join(in_category(category)) for category in CATEGORIES}
    frame = pd.DataFrame({"category": groups.keys(), "things in it": groups.values()})
    return folded("Words that a clause may use", f"Places: {', '.join(PLACES)}.", Table(frame))


def _answers(rows):
    return Table(pd.DataFrame(rows, columns=["who", "says", "P(unsafe), %", "because"]))


# -- the edit ------------------------------------------------------------------------------------


class Edit(NamedTuple):
    """A scene, its harmless counterpart, and the box (pixels) outside which both are the same."""

    original: Scene
    edited: Scene
    box: tuple[int, int, int, int]


def edit(scene: Scene) -> Edit:
    """The harmful thing in a scene exchanged for its look-alike, as SafeEditBench-nano does.

    Both members get the same smoothed box, so that the trace of the edit tells nothing. Raises
    InputError for a scene without a harmful thing.
    """
    harmful = [thing for thing in scene.things if group(thing.concept) == "harmful"]
    if not harmful:
        raise InputError(f"nothing to edit in {title(scene)}; choose a scene with a harmful thing")
    before = harmful[0]
    after = replace(before, concept=concepts()[before.concept].counterpart)
    box = grown(before.box)
    original = replace(scene, fills=(box,))
    things = tuple(after if thing is before else thing for thing in scene.things)
    return Edit(original, replace(original, things=things), box)


def edited(pair: Edit, policies: Sequence[Policy], percent: int, said: Answers) -> Shown:
    """A pair, cross-faded: 0 is the original and 100 its counterpart; the labels of both."""
    mixed = Image.blend(render(pair.original), render(pair.edited), percent / 100)
    words = f"{percent} % of the way from “{title(pair.original)}” to “{title(pair.edited)}”"
    members = {"original": pair.original, "counterpart": pair.edited}
    rows = []
    for policy in policies:
        rulings = {name: policy.label(scene.tags) for name, scene in members.items()}
        rule = {name: ruling.label for name, ruling in rulings.items()}
        model = {
            f"model: {name}": said[scene, policy.name].verdict for name, scene in members.items()
        }
        fired = f"“{rulings['original'].rule}”"
        rows.append({"policy": policy.name, **rule, **model, "rule for the original": fired})
    flips = [row["policy"] for row in rows if row["original"] != row["counterpart"]]
    changed = f"The edit changes the label under {', '.join(flips) or 'no policy'}."
    nearer = {0: "original", 100: "counterpart"}.get(percent, "")
    return show(picture(mixed, words, LARGE, pair.box), changed, Table(pd.DataFrame(rows), nearer))
