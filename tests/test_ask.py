"""Any judge, any list of cases: asked once, stored, resumed; one failure costs no other answer."""

import pytest
from PIL import Image

from sgvl.common.errors import InputError
from sgvl.data import Sample
from sgvl.judges import Judgement, ask_all, check_judges, make_judge, under
from sgvl.judges.ask import PATIENCE, time_spent
from sgvl.judges.base import SpeakingJudge
from sgvl.models.reply import Reply
from sgvl.policies import Policy

POLICIES = [Policy(name=name, title=name, text=name) for name in ("A", "B")]
SAMPLES = [Sample(f"s{k}", Image.new("RGB", (2, 2), (k, 0, 0))) for k in range(30)]


class Echo(SpeakingJudge):
    """Replies with what it was sent, except where it must fail; keeps the requests."""

    def __init__(self, fails=()):
        super().__init__("echo", "word", "full", "word", 10, False)
        self.fails, self.sent = set(fails), []

    def reply_identity(self):
        return {"kind": "echo"}

    def results(self, cases):
        for i, (sample, policy) in enumerate(cases):
            self.sent.append((sample.id, policy.name))
            error = "time-out" if sample.id in self.fails else ""
            yield [(i, None if error else Judgement("safe", reply=sample.id), error)]

    def replies(self, requests):
        for i, (sample, text) in enumerate(requests):
            self.sent.append((sample.id, text))
            yield [(i, Reply(f"{sample.id}: {text}"), "")]


def test_texts_and_policies_are_stored_apart_and_asked_once(tmp_path):
    judge = Echo()
    texts = [(SAMPLES[0], "Where is this?"), (SAMPLES[0], "How many?"), (SAMPLES[1], "How many?")]
    replies = ask_all(judge, texts, tmp_path)
    assert [row["reply"] for row in replies] == [f"{s.id}: {text}" for s, text in texts]
    judgements = ask_all(judge, under(SAMPLES[:2], POLICIES), tmp_path)
    assert [row["policy"] for row in judgements] == ["A", "B", "A", "B"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["echo.jsonl", "echo.replies.jsonl"]
    again = Echo()
    assert ask_all(again, texts, tmp_path) == replies
    assert ask_all(again, under(SAMPLES[:2], POLICIES), tmp_path) == judgements
    assert again.sent == []


def test_the_time_of_answers_is_kept_for_those_who_ask_for_it(tmp_path):
    """Summed over runs and ways of asking; another prompt under the same id is another judge."""
    judge, cases = Echo(), list(under(SAMPLES[:3], POLICIES))
    ask_all(judge, cases[:2], tmp_path)
    assert time_spent([judge], tmp_path) == (0, 0)
    ask_all(judge, cases, tmp_path, timed=True)
    ask_all(judge, cases, tmp_path, timed=True)
    ask_all(judge, [(SAMPLES[0], "Say it.")], tmp_path, timed=True)
    n, seconds = time_spent([judge], tmp_path)
    assert n == 4 + 1 and 0 < seconds < 10
    other = judge.asked(max_new_tokens=11)
    ask_all(other, cases, tmp_path, timed=True)
    assert time_spent([other], tmp_path)[0] == 6 + 1, "plain replies do not depend on the prompt"
    assert time_spent([judge, other], tmp_path)[0] == 4 + 6 + 1
    with open(tmp_path / "echo.times", "a") as file:
        file.write('{"identity": "torn')
    assert time_spent([judge, other], tmp_path)[0] == 4 + 6 + 1


def test_a_request_of_several_pictures_is_told_from_one_of_the_first(tmp_path):
    images = [sample.image for sample in SAMPLES[:2]]
    cases = [(Sample("both", images), "Same?"), (Sample("one", images[:1]), "Same?")]
    judge = Echo()
    ask_all(judge, cases, tmp_path)
    ask_all(judge, [(Sample("turned", images[::-1]), "Same?")], tmp_path)
    assert [id for id, _ in judge.sent] == ["both", "one", "turned"]


def test_a_judge_that_gives_verdicts_only_cannot_be_sent_a_text(tmp_path):
    with pytest.raises(InputError, match="judge rule gives verdicts only"):
        ask_all(make_judge("rule"), [(SAMPLES[0], "Where is this?")], tmp_path)


def test_no_cases_are_no_answers(tmp_path):
    assert ask_all(Echo(), [], tmp_path) == []


def test_one_failing_picture_keeps_no_other_from_being_asked(tmp_path):
    """Even in another batch; the next run asks for it alone."""
    judge = Echo(fails=["s3"])
    with pytest.raises(
        InputError, match="^s3 under A: time-out\ns3 under B: time-out\n.*run again"
    ):
        ask_all(judge, under(SAMPLES, POLICIES), tmp_path, batch_size=4)
    assert len(judge.sent) == 60
    mended = Echo()
    assert len(ask_all(mended, under(SAMPLES, POLICIES), tmp_path, batch_size=4)) == 60
    assert mended.sent == [("s3", "A"), ("s3", "B")]


def test_failures_without_end_end_the_run(tmp_path):
    judge = Echo(fails=[sample.id for sample in SAMPLES[5:]])
    with pytest.raises(InputError, match="judge echo: every request fails now.*time-out"):
        ask_all(judge, under(SAMPLES, POLICIES), tmp_path, batch_size=100)
    assert len(judge.sent) == 10 + PATIENCE


def test_workers_share_the_pictures_of_texts_too(tmp_path):
    texts = [(sample, "Where is this?") for sample in SAMPLES]
    judges = [Echo(), Echo()]
    shares = [ask_all(j, texts, tmp_path, worker=(k, 2)) for k, j in enumerate(judges)]
    assert all(shares) and sum(map(len, shares)) == len(SAMPLES)
    alone = Echo()
    assert [row["id"] for row in ask_all(alone, texts, tmp_path)] == [s.id for s in SAMPLES]
    assert alone.sent == []


# ---- ids -----------------------------------------------------------------------------------------


def test_every_problem_of_a_panel_is_named_before_a_model_loads():
    specs = [
        {"kind": "chat", "modle": "nano"},
        {"kind": "chat", "id": "a", "device": "gpu", "dtype": "bf16"},
        {"kind": "nsfw_detector", "device": "cuda:x"},
        {"kind": "rule", "id": "x/../y"},
        {"kind": "always_safe"},
        {"kind": "always_safe"},
        {"kind": "rule", "id": 5},
    ]
    with pytest.raises(InputError) as caught:
        check_judges(specs)
    text = str(caught.value)
    assert "no option 'modle'; did you mean model?" in text
    assert "'chat': device: got 'gpu', expected cpu, cuda or cuda:0" in text
    assert "dtype: got 'bf16'" in text and "'clip_head': device: got 'cuda:x'" in text
    assert "judge id 'x/../y'" in text and "judge id 5" in text
    assert "two judges have the id 'always_safe'" in text


def test_two_judges_share_no_row_of_a_table_and_no_file():
    equal = [
        {"kind": "rule", "id": "a", "name": "Rule"},
        {"kind": "rule", "id": "b", "name": "Rule"},
    ]
    with pytest.raises(InputError, match="two judges have the name 'Rule'"):
        check_judges(equal)
    with pytest.raises(InputError, match="two judges have the id 'Base'"):
        check_judges(["rule", {"kind": "chat", "id": "base"}, {"kind": "chat", "id": "Base"}])
    with pytest.raises(InputError, match="judge id 'a.replies'"):
        check_judges([{"kind": "rule", "id": "a.replies"}])


def test_an_id_defaults_to_the_kind_and_a_name_to_the_id():
    specs = ["rule", {"kind": "always_safe", "id": "floor", "name": "Always safe"}]
    assert check_judges(specs) == ["rule", "floor"]
    named, plain = make_judge(specs[1]), make_judge(specs[0])
    assert (named.id, named.name, plain.id, plain.name) == ("floor", "Always safe", "rule", "rule")
