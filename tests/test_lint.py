"""The linter of policies: planted faults by file and line, shipped policies, rates, exit codes."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sgvl import diff as door
from sgvl.common.errors import ExitCode, InputError
from sgvl.data import store
from sgvl.diff import lint_policies
from sgvl.editing import blame
from sgvl.policies import random_policies
from sgvl.policies.concepts import CATEGORIES
from sgvl.policies.lint import __doc__ as module_text
from sgvl.policies.lint import lint
from sgvl.policies.policy import LEVELS, file_of, load
from sgvl.text.verdict import SAFE, UNSAFE
from sgvl.world import pairs

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
CHECKS = re.findall(r"(?m)^``(\S+)``", module_text)
DOGS = ("prohibit: [dog]", "except: [park]", "text: No dogs, except in the park.")


def written(folder: Path, *rules: tuple, text: str, default="permitted") -> Path:
    """A policy file; the rules begin in line 6, and the text two lines below them."""
    lines = ["---", "name: made", "title: Made here", f"default: {default}", "rules:"]
    for first, *others in rules:
        lines += [f"  - {first}", *(f"    {other}" for other in others)]
    (folder / "made.md").write_text("\n".join([*lines, "---", text, ""]), encoding="utf-8")
    return folder / "made.md"


PLANTED = {
    "clean": ([DOGS], "No dogs, but in the park they may run.", []),
    "a rule that others overrule": (
        [*[(f"prohibit: [{c}]", f"text: No {c}.") for c in ("kiss", "couple", "hug")],
         ("prohibit: [affection]", "text: No affection.")],
        "No kiss, no couple, no hug, and no other affection.",
        [(12, "never-fires")],
    ),
    "a rule and its category disagree in a place": (
        [("prohibit: [animals]", "except: [park]", "text: No animals, except in the park."),
         ("prohibit: [dog]", "text: No dogs.")],
        "No animals, except in the park. No dogs at all.",
        [(9, "contradiction")],
    ),
    "a thing against its category": (
        [("prohibit: [animals]", "text: No animals."), ("permit: [dog]", "text: Dogs are fine.")],
        "No animals. Dogs are fine.",
        [(8, "contradiction")],
    ),
    "a thing carved out in words": (
        [("prohibit: [animals]", "text: No animals but dogs."),
         ("permit: [dog]", "text: Dogs are fine.")],
        "No animals but dogs. Dogs are fine.",
        [],
    ),
    "a rule whose own words say the opposite": (
        [("prohibit: [dog]", "text: Dogs are welcome.")], "The dog rule.", [(6, "contradiction")],
    ),
    "a sentence that says the opposite": (
        [("prohibit: [dog]", "text: No dogs.")], "Dogs are welcome here.", [(9, "contradiction")],
    ),
    "a sentence without a rule": (
        [DOGS], "No dogs, except in the park.\n\nAlcohol is not permitted.",
        [(12, "sentence-without-rule")],
    ),
    "an item of a list without a rule": (
        [DOGS], "Not here:\n\n- dogs, except in the park\n- loud talk and quarrels",
        [(13, "sentence-without-rule")],
    ),
    "a thing without a rule": (
        [DOGS], "No dogs and no cars, except in the park.", [(10, "sentence-without-rule")],
    ),
    "a place without an exception": (
        [DOGS], "No dogs, except in the park or at\nthe beach.", [(10, "sentence-without-rule")],
    ),
    "a place that a sentence permits": (
        [DOGS], "No dogs, except in the park.\nDogs are permitted on the beach.",
        [(11, "sentence-without-rule")],
    ),
    "a rule without a sentence": (
        [DOGS, ("prohibit: [music]", "text: No noise of instruments.")],
        "No dogs, except in the park.", [(9, "rule-without-sentence")],
    ),
    "one of two things without a sentence": (
        [("prohibit: [music, dog]", "text: No music and no dogs.")], "No dogs.",
        [(6, "rule-without-sentence")],
    ),
    "an exception without a sentence": ([DOGS], "No dogs.", [(7, "rule-without-sentence")]),
    "another language": ([DOGS], "Hunde sind verboten.", [(10, "rule-without-sentence")]),
}  # fmt: skip


@pytest.mark.parametrize("case", PLANTED)
def test_planted_faults_have_their_line(case, tmp_path):
    rules, text, expected = PLANTED[case]
    found = lint(written(tmp_path, *rules, text=text))
    assert [(finding.line, finding.check) for finding in found] == expected, found


def test_rules_and_exceptions_that_nothing_in_a_set_meets(tmp_path):
    file = written(tmp_path, DOGS, ("prohibit: [cat]", "text: No cats."),
                   text="No dogs, except in the park. No cats.")  # fmt: skip
    assert lint(file) == []
    met = lint(file, [("dog", "street"), ("tree", "park")])
    assert [(f.line, f.check) for f in met] == [(7, "unmet-exception"), (9, "never-fires")]
    assert lint(file, [("dog", "park"), ("cat", "dog")]) == []


# ---- divided annotators --------------------------------------------------------------------------


@pytest.fixture
def divided(tmp_path) -> Path:
    """The table of clauses of three annotators, one of whom holds other values on one rule."""
    weapons, care = (rule.text for rule in load("L3").rules[:2])
    rng = np.random.default_rng(0)
    cases = pd.DataFrame({"id": [f"p{k}" for k in range(120)], "policy": "L3"})
    cases = cases.assign(pair=cases["id"], clause=[weapons, care] * 60)
    truth = rng.choice([SAFE, UNSAFE], len(cases))
    votes = []
    for name in "abc":
        other = (name == "c") & (cases["clause"] == care)
        said = np.where(other, np.where(truth == SAFE, UNSAFE, SAFE), truth)
        votes.append(cases[["id", "policy"]].assign(annotator=name, verdict=said))
    blame.blame(pd.concat(votes), cases, resamples=20).clauses.to_csv(tmp_path / "clauses.csv")
    return tmp_path / "clauses.csv"


def test_a_rule_that_annotators_divide_on_is_found_by_its_line(divided):
    [finding] = lint_policies("L2", "L3", divided=divided)
    assert finding.check == "divides" and finding.file == file_of("L3")
    lines = file_of("L3").read_text().splitlines()
    assert lines[finding.line - 1] == "  - prohibit: [selfharm]"
    assert "go against some of them" in finding.message


# ---- shipped policies ----------------------------------------------------------------------------

# Explained in docs/YOUR_DATA.md.
EXPLAINED = [
    (16, "rule-without-sentence", "cruelty"),
    (16, "rule-without-sentence", "disaster"),
    (16, "rule-without-sentence", "gore"),
    (30, "sentence-without-rule", "Harassment"),
    (38, "sentence-without-rule", "Public and personal health"),
]


def test_shipped_policies_and_examples_are_clean_but_for_what_is_explained():
    for source in (*LEVELS, "llavaguard", *sorted(EXAMPLES.glob("*.md"))):
        if Path(source).stem != "untidy":
            assert lint(source) == []
    found = lint("openai_content")
    assert [f[1:3] for f in found] == [one[:2] for one in EXPLAINED]
    assert all(words in f.message for f, (_, _, words) in zip(found, EXPLAINED, strict=True))


def test_what_is_taken_out_of_a_shipped_header_is_found_in_the_text(tmp_path):
    """Of 34 rules and 9 exceptions four go unnoticed, whose sentences use other words."""
    unnoticed, n, file = [], 0, tmp_path / "less.md"
    for level in ("L2", "L3", "L4", "L5", "llavaguard"):
        content = file_of(level).read_text(encoding="utf-8")
        rules = re.findall(r"  - (?:prohibit|permit):.*\n(?:    .*\n)+", content)
        less = {}
        for rule in rules:
            less[rule.splitlines()[0]] = content.replace(rule, "")
            for place in re.findall(r"\w+", "".join(re.findall(r"except: \[(.*)\]", rule))):
                without = re.sub(rf"(except: .*?)\b{place}\b,? ?", r"\1", rule)
                less[f"{rule.splitlines()[0]} but {place}"] = content.replace(rule, without)
        for what, text in less.items():
            file.write_text(text, encoding="utf-8")
            n += 1
            if "sentence-without-rule" not in {finding.check for finding in lint(file)}:
                unnoticed.append(what.strip())
    assert n == 34 + 9
    assert unnoticed == [
        "- prohibit: [drugs] but clinic", "- prohibit: [gore] but clinic", "- prohibit: [spam]",
        "- prohibit: [violence, gore]",
    ]  # fmt: skip


def test_any_policy_can_be_checked(tmp_path):
    rng = np.random.default_rng(0)
    for _ in range(20):
        skeleton = random_policies.mixed_skeleton(rng, 6)
        policy = random_policies.fill(rng, skeleton, [*CATEGORIES])
        rules = [(f"{'prohibit' if r.prohibit else 'permit'}: {r.tags}", f"except: {r.places}",
                  f"text: {r.clause(r.tags[0])}") for r in policy.rules]  # fmt: skip
        text = ". ".join(part.strip() for part in policy.render("brief").split(";"))
        file = written(tmp_path, *rules, text=text, default=policy.default)
        found = lint(file)
        assert {f.check for f in found} <= {*CHECKS}
        assert not [f for f in found if "sentence" in f.check], "its text is its clauses"


# ---- the door ------------------------------------------------------------------------------------


def test_the_door_prints_findings_and_ends_with_1_if_asked(capsys):
    page = (ROOT / "docs" / "YOUR_DATA.md").read_text(encoding="utf-8")
    [shown] = re.findall(r"```text\n(examples/untidy\.md.*?)```", page, re.DOTALL)
    assert re.findall(r"(?m)^\| `(\w+(?:-\w+)*)` \| [^|]+ \|$", page.split("## The linter")[1])[
        : len(CHECKS)
    ] == [*CHECKS]
    command = ["--lint", "examples/untidy.md"]
    assert door.main(command) is ExitCode.DONE
    said = capsys.readouterr().out
    assert said == shown
    assert door.main([*command, "--strict"]) is ExitCode.DIFFERS
    assert capsys.readouterr().out.endswith("findings: 4, policies: 1, exit code 1\n")
    assert door.main(["--lint", "--strict", "L2", "L3", "examples/house.md"]) is ExitCode.DONE
    text = "examples/house.md: not checked: it has no rules to compare with its text"
    assert capsys.readouterr().out == f"{text}\nfindings: 0, policies: 2\n"


WRONG = {
    "no such file": (["nowhere.md"], "no policy file"),
    "a doubled tag": (["twice.md"], "tag in two rules: dog"),
    "photographs": (["L2", "--on", "examples/photos"], "have no tags"),
    "no table": (["L2", "--divided", "none.csv"], "none.csv"),
    "another table": (["L2", "--divided", "examples/labels.csv"], "name agreement/clauses.csv"),
}


@pytest.mark.parametrize("case", WRONG)
def test_bad_input_ends_with_2_and_one_line(case, tmp_path, monkeypatch, capsys):
    arguments, message = WRONG[case]
    written(tmp_path, DOGS, DOGS, text="No dogs.").rename(tmp_path / "twice.md")
    monkeypatch.chdir(tmp_path)
    assert door.main(["--lint", *arguments]) is ExitCode.BAD_INPUT
    told = capsys.readouterr().err
    assert message in told and len(told.splitlines()) == 1


def test_a_saved_set_is_read_by_name(tmp_path, monkeypatch):
    monkeypatch.setattr(door, "runs", lambda profile: tmp_path / profile)
    store.save({"few": pairs.safeeditbench(0, 1).select(range(4))}, tmp_path / "nano/data", seed=0)
    found = lint_policies("L4", on="few")
    assert {f.check for f in found} == {"never-fires"}
    with pytest.raises(InputError, match="did you mean few"):
        lint_policies("L4", on="fwe")
