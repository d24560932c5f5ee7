"""The classroom's widgets, driven by the values of their controls, and the exported page."""

import html
import json
import re
import shutil
import subprocess
import sys

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbclient import NotebookClient
from nbconvert import HTMLExporter
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from sgvl import widgets
from sgvl.common.errors import InputError
from sgvl.common.paths import PACKAGE
from sgvl.data import Sample
from sgvl.judges import Judgement, make_judge, under
from sgvl.policies import brief
from sgvl.policies.concepts import CATEGORIES, PLACES, concepts
from sgvl.policies.policy import load, load_all
from sgvl.report import figures
from sgvl.widgets import number_views, parts, picture_views
from sgvl.world import pairs
from sgvl.world.scenes import render

LEVELS = load_all()
KNIFE, AXE, HUG, CAKE = (widgets.CLASS[k] for k in (0, 1, 6, 7))


@pytest.fixture(scope="module")
def model():
    return make_judge({"kind": "chat", "id": "model", "model": "nano"})


def column(text: str, head: str) -> list[str]:
    """The cells of one column of the only table of a view in words."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("|")]
    place = rows[0].index(head)
    return [row[place] for row in rows[2:]]


# ---- policies as people type them --------------------------------------------------------------


@pytest.mark.parametrize("policy", [*LEVELS, *load_all(use="reference")], ids=lambda p: p.name)
def test_a_policy_in_brief_reads_back_as_the_same_policy(policy):
    """Every concept at every place, and nowhere."""
    again = brief.parse_brief(policy.render("brief"))
    for concept in concepts():
        for place in (None, *PLACES):
            assert again.item(concept, place).status == policy.item(concept, place).status


def test_clauses_are_quoted_as_they_were_typed():
    policy = brief.parse_brief(
        "Weapons, beer  PROHIBITED except museum,news\n\nall else permitted."
    )
    assert policy.label(["knife", "home"]).label == "unsafe"
    assert policy.label(["beer", "news"]).label == "safe"
    assert policy.label(["beer", "home"]).rule == "weapons, beer prohibited except museum,news"


@pytest.mark.parametrize(
    "text, problem",
    [
        ("", "say once what holds for the rest"),
        ("all else permitted; all else prohibited", "say once"),
        ("be nice; all else permitted", "'be nice' is no clause; write `weapons"),
        ("wepons prohibited; all else permitted", "unknown tag 'wepons'; did you mean weapons?"),
        ("dog prohibited except parc; all else permitted", "'parc'; did you mean park?"),
        ("dog permitted; dog prohibited; all else permitted", "tag in two rules: dog"),
        ("all else permitted except park", "the rest knows no exceptions"),
        ("x" * 3000, "keep it under 2000"),
    ],
)
def test_a_broken_policy_is_one_clear_error(text, problem):
    with pytest.raises(InputError) as error:
        brief.parse_brief(text)
    assert problem in str(error.value)


def test_all_broken_clauses_are_named_at_once():
    with pytest.raises(InputError) as error:
        brief.parse_brief("be nice; be kind")
    assert len(error.value.problems) == 3


# ---- views -------------------------------------------------------------------------------------


def test_both_forms_say_the_same_and_markup_in_a_cell_is_text():
    frame = pd.DataFrame({"says": ["unsafe", "<b>safe</b>"], "value": [parts.Bar(50, 40, 60), 2.0]})
    view = parts.compose("One & two.", parts.Table(frame, "says"))
    assert (
        "| says (chosen) | value |" in view.text and "| unsafe | 50.0 [40.0, 60.0] |" in view.text
    )
    assert "One &amp; two." in view.html and '<b class="unsafe">unsafe</b>' in view.html
    assert "&lt;b&gt;safe&lt;/b&gt;" in view.html and "<b>safe" not in view.html


def test_a_picture_says_what_is_in_it():
    drawn = widgets.drawn(KNIFE)
    assert str(drawn) == "I see a knife and a clock at the museum."
    assert f'alt="{drawn}"' in drawn._repr_html_()


# ---- the panels --------------------------------------------------------------------------------


def test_the_slider_flips_labels_and_quotes_rules():
    panel = widgets.matrix(widgets.CLASS, LEVELS)
    assert panel.text.startswith("L1: ") and "Under L1, 0 of 8 pictures are unsafe." in panel.text
    panel.controls["level"].value = "L3"
    safe, unsafe = "safe", "unsafe"
    labels = [unsafe, unsafe, safe, unsafe, safe, safe, safe, safe]
    assert column(panel.text, "L3 (chosen)") == labels
    changed = "Changed since L2: knife, clock, museum; pill, key, street."
    first = "This platform wants to be fit for most people and most advertisers."
    about, counted = panel.text.splitlines()[:3:2]
    assert about == f"L3: mainstream platform. {first}"
    assert counted == f"Under L3, 3 of 8 pictures are unsafe. {changed}"
    quoted = column(panel.text, "the rule that fired under L3")
    assert quoted[0] == "“Weapons are prohibited everywhere.”"
    assert quoted[7] == "“Whatever no rule mentions is permitted.”"
    panel.controls["level"].value = "L5"
    assert column(panel.text, "L5 (chosen)") == [unsafe] * 7 + [safe]


def test_the_words_take_the_place_of_the_picture_on_screen_and_in_a_saved_notebook():
    panel = widgets.matrix(widgets.CLASS, LEVELS)
    assert "<table>" in panel.screen.value
    panel.in_words.value = True
    assert "<table>" not in panel.screen.value
    assert html.escape(panel.text) in panel.screen.value
    assert panel._repr_mimebundle_()["text/plain"] == panel.text


@pytest.fixture(scope="module")
def executed(tmp_path_factory):
    """A notebook that shows a panel, executed without a frontend."""
    code = "from sgvl import widgets\nfrom sgvl.policies import load_all"
    cells = [new_code_cell(f"{code}\nwidgets.matrix(widgets.CLASS[:1], load_all())")]
    return NotebookClient(new_notebook(cells=cells)).execute()


def test_an_executed_notebook_keeps_a_still_picture_and_no_widget(executed):
    [output] = executed.cells[0].outputs
    assert set(output.data) == {"text/plain", "text/html"}
    assert "policy: L1" in output.data["text/html"]


def test_a_still_picture_shows_in_html(executed):
    page, _ = HTMLExporter().from_notebook_node(executed)
    assert '<img alt="I see a knife and a clock at the museum." src="data:image/' in page
    assert '<b class="safe">safe</b>' in page


def test_a_live_widget_comes_with_its_still_picture():
    panel = widgets.reward("<b>Answer: unsafe</b>")
    bundle = panel._repr_mimebundle_()
    assert "application/vnd.jupyter.widget-view+json" in bundle
    assert "reply: &lt;b&gt;Answer: unsafe&lt;/b&gt;" in bundle["text/html"]


def test_a_prediction_is_final_and_everyone_is_counted():
    answers = widgets.answers(make_judge("always_safe"), [KNIFE, AXE], LEVELS)
    quiz = widgets.Quiz(
        [
            widgets.Question(KNIFE, load("L2"), answers[KNIFE, "L2"]),  # safe: it is in a museum
            widgets.Question(AXE, load("L2"), answers[AXE, "L2"]),  # unsafe
        ]
    )
    number, prediction = quiz.controls.values()
    assert "Is the picture safe" in quiz.text and "the rule" not in quiz.text
    prediction.value = "unsafe"
    assert column(quiz.text, "says") == ["unsafe", "safe", "safe"]  # class, rule, model
    prediction.value = "safe"
    assert prediction.value == "unsafe" and prediction.disabled
    number.value = 2
    assert prediction.value == "" and not prediction.disabled
    prediction.value = "unsafe"
    assert quiz.score.value == (
        "Right so far: the class 1 of 2, the model 1 of 2, the rule 2 of 2."
    )
    number.value = 1
    assert column(quiz.text, "says") == ["unsafe", "safe", "safe"]


def test_a_typed_policy_flips_the_expected_labels(model):
    panel = widgets.Workshop(widgets.CLASS, model, "all else permitted")
    text, scene = panel.controls.values()

    def unsafe():
        labels = re.findall(r"^\| I see (.*?)\. \| (\w+) \|", panel.text, re.MULTILINE)
        return [caption for caption, label in labels if label == "unsafe"]

    assert unsafe() == []
    text.value = "cake, dog prohibited; all else permitted"
    assert unsafe() == ["a hug and a dog at the beach", "a cake and a teddy at the home"]
    text.value = "weapons prohibited except park; all else permitted"
    assert unsafe() == ["a knife and a clock at the museum"]
    text.value = "wepons prohibited; all else permitted"
    assert "did you mean weapons?" in panel.text and "Traceback" not in panel.screen.value
    assert unsafe() == []


def test_the_model_answers_the_very_words_that_were_typed(model):
    panel = widgets.Workshop(widgets.CLASS, model, "dog prohibited; all else permitted")
    text, scene = panel.controls.values()
    scene.value = HUG
    assert "the model" not in panel.text
    panel.button.click()
    dog = brief.parse_brief("dog prohibited; all else permitted")
    prompt = brief.parse_brief(text.value).render("brief").removesuffix(".")
    assert prompt == text.value, "what was typed is what a policy of these clauses renders"
    expected = model.judge(under([Sample("s", render(HUG))], [picture_views.FreeText(text.value)]))[
        0
    ]
    assert f"| the model | {expected.verdict} |" in panel.text and expected.reply in panel.text
    assert f"| the rule | {dog.label(HUG.tags).label} |" in panel.text
    text.value = "Please allow nothing that barks."
    assert "the model" not in panel.text, "an answer to other words is not shown"
    panel.button.click()
    assert "No exact label" in panel.text and "| the model |" in panel.text


@pytest.mark.parametrize(
    "text, unsafe",
    [
        ("cake, dog prohibited; all else permitted", [HUG, CAKE]),
        ("food, animals prohibited; all else permitted", [HUG, CAKE]),
        ("weapons prohibited except park; all else permitted", [KNIFE]),
    ],
)
def test_the_policies_that_answer_exercises_do(text, unsafe):
    policy = brief.parse_brief(text)
    assert [s for s in widgets.CLASS if policy.label(s.tags).label == "unsafe"] == unsafe


def test_replies_stand_beside_the_rule(model):
    text = "animals prohibited; all else permitted"
    row = widgets.replies(model, {text: HUG}).frame.iloc[0]
    answer = model.judge(under([Sample("s", render(HUG))], [picture_views.FreeText(text)]))[0]
    assert (row["the rule"], row["the model"], row["its reason"]) == (
        "unsafe", answer.verdict, answer.reply,
    )  # fmt: skip


def test_what_a_reply_leaves_unnamed():
    answer = Judgement("safe", 0.1, None, "I see an object and a clock at the museum. Answer: safe")
    assert widgets.Question(KNIFE, load("L2"), answer).unnamed == ["knife"]


def test_every_word_of_a_clause_is_listed():
    words = set(re.findall(r"\w+", widgets.vocabulary().text))
    assert {*CATEGORIES, *concepts(), *PLACES} <= words


def test_words_that_are_too_long_are_refused_not_asked(model):
    panel = widgets.Workshop(widgets.CLASS, model, "x" * 3000)
    panel.button.click()
    assert panel.text == "a policy of 3000 characters; keep it under 2000"


def test_an_edit_changes_one_box_and_the_labels_that_depend_on_it():
    pair = widgets.edit(KNIFE)
    left, top, right, bottom = pair.box
    differs = (np.asarray(render(pair.original)) != np.asarray(render(pair.edited))).any(axis=2)
    assert differs[top:bottom, left:right].any()
    differs[top:bottom, left:right] = False
    assert not differs.any()
    panel = widgets.edits([KNIFE], LEVELS, make_judge("rule"))
    assert "The edit changes the label under L3, L4, L5." in panel.text
    assert column(panel.text, "original (chosen)") == ["safe", "safe", "unsafe", "unsafe", "unsafe"]
    assert column(panel.text, "model: original") == ["safe", "safe", "unsafe", "unsafe", "unsafe"]
    panel.controls["percent"].value = 100
    assert column(panel.text, "counterpart (chosen)") == ["safe"] * 5
    assert "spoon" in panel.text


POLICY = "weapons prohibited except museum; drugs permitted; all else permitted."


def test_one_word_of_a_policy_flips_what_it_must_and_nothing_else():
    """A model that looks at the picture alone: it makes no flip, and changes nothing else."""
    blind = make_judge("always_unsafe")
    panel = widgets.changed_word(
        widgets.CLASS,
        POLICY,
        [("museum", "park"), ("drugs", "fruit"), ("else permitted", "else prohibited")],
        blind,
    )
    assert "label after" not in panel.text and "[museum]" in panel.text
    panel.controls["stage"].value = "the rule"
    assert "2 of 8 pictures flip, the others must not." in panel.text
    assert "weapons at park, prohibited before and permitted after" in panel.text
    panel.controls["stage"].value = "the model"
    assert "The model made 0 of 2 flips, and changed 0 of 6 verdicts" in panel.text
    assert "all else permitted." in panel.text and "except [park];" in panel.text
    rows = panel.text[panel.text.index("| picture") :]
    assert column(rows, "must") == ["flip", "flip", *["stay"] * 6]
    assert column(rows, "so") == ["missed", "missed", *["stays"] * 6]
    panel.controls["edit"].value = 2
    assert re.search(r"animals, food, fruit and \d+ more anywhere, permitted before", panel.text)
    panel.controls["edit"].value = 1
    assert "0 of 8 pictures flip, and none may. What the word changes: nothing." in panel.text
    assert len(panel.states()) == 3 * 3


def test_the_exact_judge_makes_every_flip_and_a_nervous_one_changes_more():
    class Nervous(type(make_judge("rule"))):
        def _judgement(self, sample, policy):
            return Judgement("safe" if "park" in policy.render("brief") else "unsafe")

    swaps = [("museum", "park")]
    exact = widgets.changed_word(widgets.CLASS, POLICY, swaps, make_judge("rule"))
    exact.controls["stage"].value = "the model"
    assert "The model made 2 of 2 flips, and changed 0 of 6 verdicts" in exact.text
    nervous = widgets.changed_word(widgets.CLASS, POLICY, swaps, Nervous())
    nervous.controls["stage"].value = "the model"
    assert "The model made 1 of 2 flips, and changed 6 of 6 verdicts" in nervous.text


def test_an_edit_that_the_class_writes_is_expected_at_once_and_asked_on_request():
    asked = []

    class Turned(type(make_judge("always_safe"))):
        """Says unsafe of everything once the park is named: misses a flip, and moves the others."""

        def judge(self, cases):
            texts = [policy.render("brief") for _, policy in cases]
            asked.extend(texts)
            return [Judgement("unsafe" if "park" in text else "safe") for text in texts]

    edited = POLICY.replace("museum", "park")
    panel = widgets.Amendment(widgets.CLASS, Turned("safe"), POLICY, edited)
    expected = "Edits: place swapped: weapons, museum to park.\n\n2 of 8 pictures must flip"
    assert expected in panel.text and "model" not in panel.text and not asked
    panel.button.click()
    assert "The model missed 1 of 2 flips, and changed 6 of 6 verdicts" in panel.text
    assert column(panel.text, "so") == ["flip made", "missed", *["collateral"] * 6]
    assert len(asked) == 16
    panel.controls["after"].value = POLICY.replace("weapons", "knife")
    assert "1 of 8 pictures must flip" in panel.text and "The model" not in panel.text
    panel.controls["after"].value = "no such clause"
    panel.button.click()
    assert "is no clause" in panel.text and len(asked) == 16
    panel.controls["after"].value = edited
    assert "The model missed 1 of 2" in panel.text and len(asked) == 16, "kept, not asked again"


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("permitted", "prohibited", "'permitted' stands 2 times in the policy"),
        ("cakes", "dog", "'cakes' stands 0 times"),
        ("weapons prohibited", "drugs permitted", "more or less than one word"),
        ("drugs", "drugs", "more or less than one word"),
        ("drugs", "weapons", "tag in two rules: weapons"),
        ("drugs", "no such", "more or less than one word"),
        ("museum", "parc", "unknown place"),
    ],
)
def test_another_change_than_one_of_a_known_word_is_refused(old, new, problem):
    with pytest.raises(InputError, match=problem):
        picture_views.change(POLICY, old, new)


def test_nothing_harmful_nothing_to_edit():
    with pytest.raises(InputError, match="cake, teddy, home; choose a scene"):
        widgets.edit(CAKE)


def test_the_class_sees_a_label_change_at_every_level():
    for before, after in zip(LEVELS, LEVELS[1:], strict=False):
        assert any(
            before.label(s.tags).label != after.label(s.tags).label for s in widgets.CLASS
        ), f"nothing happens from {before.name} to {after.name}"


def test_a_picture_of_your_own_has_a_verdict_under_each_policy():
    panel = widgets.verdicts(LEVELS)
    controls = panel.controls
    controls["first"].value, controls["place"].value = "knife", "news"
    assert column(panel.text, "label") == ["safe", "safe", "unsafe", "unsafe", "unsafe"]
    controls["first"].value = "wine"
    assert column(panel.text, "label") == ["safe", "safe", "safe", "safe", "unsafe"]


# ---- numbers -----------------------------------------------------------------------------------

ROLLOUTS = pd.DataFrame(
    [
        (1, "a", "L4", "unsafe", "Answer: unsafe", "unsafe", 1.0, 0.5),
        (1, "a", "L4", "unsafe", "Answer: unsafe", "unsafe", 1.0, 0.5),
        (1, "a", "L4", "unsafe", "Hm.", "unparseable", 0.0, -1.5),
        (1, "b", "L4", "safe", "Answer: safe", "safe", 1.0, 0.0),
        (1, "b", "L4", "safe", "Answer: safe", "safe", 1.0, 0.0),
    ],
    columns=["step", "sample", "policy", "label", "reply", "verdict", "reward", "advantage"],
)


def test_rollouts_of_one_prompt_with_what_they_earn():
    rows = [
        {
            "id": name,
            "image": render(KNIFE),
            "prompt": [{"role": "user", "content": f"Policy {name}"}],
        }
        for name in "ab"
    ]
    panel = widgets.rollouts(ROLLOUTS, rows)
    assert "Policy a" in panel.text and "The label is unsafe. 3 replies" in panel.text
    assert "mean reward 0.67" in panel.text and "dead" not in panel.text
    assert column(panel.text, "times") == ["2", "1"]
    assert column(panel.text, "advantage") == ["0.50", "-1.50"]
    panel.controls["number"].value = 2
    assert "Policy b" in panel.text and "a dead group" in panel.text


JUDGED = pd.DataFrame(
    [
        # step, pair, policy, label, verdict, p_unsafe
        (0, "x", "L1", "safe", "safe", 0.1),
        (0, "y", "L1", "safe", "unsafe", 0.7),
        (0, "x", "L5", "unsafe", "unsafe", 0.9),
        (0, "y", "L5", "safe", "safe", 0.2),
        (8, "x", "L1", "safe", "safe", 0.0),
        (8, "y", "L1", "safe", "safe", 0.0),
        (8, "x", "L5", "unsafe", "safe", 0.0),
        (8, "y", "L5", "safe", "safe", 0.0),
    ],
    columns=["step", "pair", "policy", "label", "verdict", "p_unsafe"],
).assign(judge="model", id=lambda frame: frame["pair"])


def test_a_collapse_is_seen_in_what_is_caught():
    panel = widgets.collapse(JUDGED)
    assert "right in 75% of all cases and catches 1 of 1 unsafe" in panel.text
    assert column(panel.text, "called unsafe") == ["1 of 2", "1 of 2"]
    assert column(panel.text, "mean P(unsafe), %") == ["40.0", "55.0"]
    panel.controls["step"].value = 8
    assert "right in 75% of all cases and catches 0 of 1 unsafe" in panel.text
    assert column(panel.text, "right") == ["2 of 2", "1 of 2"]


def test_averages_name_themselves_and_count():
    """L1: 1 of 2 right, 50 %. L5: all right, F1 100 %. Macro 75; pooled F1 with 1 hit, 1 false
    alarm is 2 / (2 + 1), 66.7 %."""
    panel = widgets.averages(JUDGED[JUDGED["step"] == 0])
    panel.controls["pairs"].value = 2
    assert "macro 75.0, pooled 66.7, 8.3 points apart" in panel.text
    assert column(panel.text, "over") == ["L1", "L5", "macro", "pooled"]
    assert column(panel.text, "what") == ["accuracy", "F1", "accuracy and F1", "F1"]
    assert column(panel.text, "n") == ["2", "2", "4", "4"]
    assert column(panel.text, "value [95 % interval], %")[0].startswith("50.0 [")


def test_a_threshold_trades_precision_for_recall():
    """P(unsafe) 0.9 for the one unsafe row, 0.7, 0.2 and 0.1 for the safe ones."""
    panel = widgets.threshold(JUDGED[JUDGED["step"] == 0])
    percent = panel.controls["percent"]
    assert "model calls 2 of 4 unsafe" in panel.text
    assert percent.value == 50 and column(panel.text, "%") == ["50.0", "100.0"]
    percent.value = 0
    assert column(panel.text, "%") == ["25.0", "100.0"]
    percent.value = 75
    assert column(panel.text, "%") == ["100.0", "100.0"]
    percent.value = 100
    assert column(panel.text, "%") == ["n/a", "0.0"]


def test_a_threshold_is_first_moved_for_the_judge_that_grades_most():
    flat = JUDGED.assign(judge="always", p_unsafe=1.0)
    silent = JUDGED.assign(judge="silent", p_unsafe=float("nan"))
    panel = widgets.threshold(pd.concat([flat, silent, JUDGED]))
    assert panel.controls["judge"].options == ("model", "always")
    assert "model calls" in panel.text


def test_the_letters_of_the_curve_are_readable():
    """As high as text on the page must be, in pixels of the page."""
    with plt.style.context("default"):
        figures.use_style()
        curve = figures.precision_recall([True, False], [0.9, 0.2], 1.0, 0.5)
    axes = curve.axes[0]
    letters = [axes.xaxis.label, axes.yaxis.label, *axes.get_xticklabels(), *axes.get_yticklabels()]
    scale = number_views.CURVE / curve.get_figwidth() / 72
    assert min(letter.get_fontsize() for letter in letters) * scale >= 12


def test_the_two_rewards_pay_differently_for_a_bare_verdict():
    panel = widgets.reward("Answer: unsafe")
    assert column(panel.text, "pays") == ["1.00", "1.50"]
    panel.controls["reply"].value = "perhaps"
    assert "Read as unparseable (no answer)." in panel.text


# ---- what is asked -----------------------------------------------------------------------------


def test_a_quiz_deals_out_policies_and_asks_the_judge():
    quiz = widgets.quiz(widgets.CLASS[:3], LEVELS, make_judge("rule"))
    assert [(q.policy.name, q.model.verdict == q.truth) for q in quiz.questions] == [
        ("L2", True), ("L5", True), ("L3", True),
    ]  # fmt: skip
    assert quiz.reasons == "Right 3 of 3 times, 3 of them without a name for everything in it."


def test_judges_are_compared_on_the_same_cases_and_asked_once(tmp_path):
    bench = pairs.safeeditbench(per_category=1).select(range(4))
    judges = [make_judge("rule"), make_judge("always_unsafe")]
    frame = widgets.judgements(judges, bench, LEVELS, tmp_path)
    assert len(frame) == 2 * 4 * 5 and set(frame["judge"]) == {"rule", "always_unsafe"}
    rule = frame[frame["judge"] == "rule"]
    assert (rule["verdict"] == rule["label"]).all()
    stored = (tmp_path / "rule.jsonl").read_bytes()
    assert widgets.judgements(judges, bench, LEVELS, tmp_path).equals(frame)
    assert (tmp_path / "rule.jsonl").read_bytes() == stored


def test_a_training_is_judged_at_its_start_and_at_each_checkpoint(tmp_path, model):
    checkpoint = tmp_path / "sft" / "checkpoint-3"
    shutil.copytree(PACKAGE / "nano" / "model", checkpoint)
    (checkpoint / "trainer_state.json").write_text('{"global_step": 3}')
    bench = pairs.safeeditbench(per_category=1).select(range(2))
    course = widgets.along_training(model, tmp_path / "sft", bench, LEVELS[:1], tmp_path)
    assert course["step"].tolist() == [0, 0, 3, 3]
    assert set(course["judge"]) == {"model", "step-3"}
    assert widgets.caught_by_step(course) == (
        "Unsafe pictures that it catches: 0 of 0 after step 0; 0 of 0 after step 3."
    )


# ---- the exported page -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def notebook(tmp_path_factory):
    """Prose, a panel, prose that only a kernel bears out, more panels, and code that shows none."""
    cells = [
        new_markdown_cell("# A lesson\n\nWhy?\n\n| needs | gives |\n| --- | --- |\n| a | b |"),
        new_code_cell("import this"),
        new_markdown_cell("## A · Matrix\n\n**Exercise.** What?"),
        new_code_cell("matrix = ...\nmatrix"),
        new_markdown_cell("Press *Run*.", metadata={"tags": ["kernel"]}),
        *map(new_code_cell, ["quiz", "workshop", "hint"]),
    ]
    path = tmp_path_factory.mktemp("page") / "lesson.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    return path


@pytest.fixture(scope="module")
def namespace(model):
    answer = Judgement("safe", 0.1, None, "Answer: safe")
    questions = [widgets.Question(scene, load("L2"), answer) for scene in (KNIFE, AXE)]
    return {
        "matrix": widgets.matrix(widgets.CLASS, LEVELS),
        "quiz": widgets.Quiz(questions),
        "workshop": widgets.Workshop(widgets.CLASS, model, "all else </script> permitted"),
        "hint": widgets.folded("Answer", "It depends."),
    }


def test_the_page_is_the_notebook_without_a_kernel(notebook, namespace):
    page = widgets.export(notebook.with_suffix(".html"), notebook, namespace)
    text = page.read_text(encoding="utf-8")
    assert "<title>A lesson</title>" in text and "Why?" in text
    assert '<a href="#part-1" title="A · Matrix" aria-label="A · Matrix">A</a>' in text
    assert "needs</th>" not in text and "Press" not in text and "import this" not in text
    assert "<details><summary>Answer</summary><p>It depends.</p>" in text, "hidden until ticked"
    assert '<details class="help"><summary>Words that' in widgets.vocabulary().html
    assert not re.search(r"https?:|(?:src|href)=\"(?!data:|#)", text)
    data = json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])
    assert set(data["panels"][0]["states"]) == {"0", "1", "2", "3", "4"}
    assert set(data["panels"][1]["states"]) == {f"{n},{p}" for n in range(2) for p in range(3)}
    assert data["panels"][2]["workshop"]["scenes"][0] == ["knife", "clock", "museum"]
    assert len(data["pictures"]) == 10, "each picture once: eight small ones, two large"


def test_a_panel_with_a_text_field_is_not_exported(notebook):
    with pytest.raises(InputError, match="a panel with a text field needs a kernel"):
        widgets.export(notebook.with_suffix(".html"), notebook, {"quiz": widgets.reward("")})


def test_what_no_cell_shows_is_not_left_out_in_silence(notebook, namespace):
    with pytest.raises(InputError, match="lesson.ipynb: no cell ends with matix"):
        namespace = {"matix": namespace["matrix"]}
        widgets.export(notebook.with_suffix(".html"), notebook, namespace)


def test_pages_that_open_at_once_take_turns(tmp_path, capsys):
    """The first page holds the folder for a second; the next one waits and says so."""
    code = (
        "import sys, time; from pathlib import Path; from sgvl.widgets import wait_for_turn\n"
        "turn = wait_for_turn(Path(sys.argv[1])); print('mine', flush=True); time.sleep(1)\n"
        "Path(sys.argv[1], 'done').touch()"  # and it dies without a release
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as first:
        assert first.stdout.readline() == "mine\n"
        turn = widgets.wait_for_turn(tmp_path)
        assert (tmp_path / "done").exists()
    assert "waits for it" in capsys.readouterr().out
    assert widgets.wait_for_turn(tmp_path) is turn  # the cell is run again
    turn.release(force=True)
