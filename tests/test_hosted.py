"""Judges behind moderations and decisions: their wire format, and what can go wrong on it."""

import base64
import io
import json

import pytest
from PIL import Image

from sgvl.common.errors import InputError
from sgvl.data import Sample
from sgvl.data.images import image_digest
from sgvl.judge import judge_folder
from sgvl.judges import ask_all, make_judge, under
from sgvl.judges.systems import SYSTEMS
from sgvl.policies.policy import Policy
from sgvl.run.rehearsal.hub import local_hub
from sgvl.run.rehearsal.server import RehearsalHandler

POLICIES = [Policy(name=name, title=name, text=name) for name in ("A", "B", "C")]
SAMPLES = [Sample(f"s{k}", Image.new("RGB", (8, 6), (k, 0, 0))) for k in range(3)]
SCORES = {"sexual": 0.02, "violence": 0.91, "violence/graphic": 0.4, "illicit": None}


def moderation(scores=SCORES, flagged=True, **more) -> bytes:
    """A response as the endpoint sends it; a score can be absent, as of older models."""
    result = {"flagged": flagged, "categories": {}, "category_scores": scores, **more}
    return json.dumps({"id": "modr-1", "model": "m", "results": [result]}).encode()


def decision(*answers: dict) -> bytes:
    usage = {"input_tokens": 1, "output_tokens": 0, "total_tokens": 1}
    return json.dumps({"answers": answers, "model": "m", "usage": usage}).encode()


def predicate(probability) -> dict:
    return {"type": "predicate", "name": "unsafe", "probability": probability}


def hosted(kind, server, **options):
    return make_judge({"kind": kind, "model": "m", "url": server.url, "max_retries": 0, **options})


def shown(url: str) -> str:
    file = base64.b64decode(url.removeprefix("data:image/png;base64,"))
    return image_digest(Image.open(io.BytesIO(file)))


def test_a_picture_is_moderated_once_whatever_the_policies(server, tmp_path):
    server.script = {"": [(200, moderation(), 0)]}
    judge = hosted("moderations", server, concurrency=1)
    rows = ask_all(judge, under(SAMPLES, POLICIES), tmp_path)
    assert len(rows) == 9 and len(server.asked) == 3 and not judge.reads_policy
    (first, *_) = server.asked
    (part,) = first.pop("input")
    assert first == {"model": "m"} and part.pop("type") == "image_url"
    assert shown(part["image_url"]["url"]) == image_digest(SAMPLES[0].image)
    kept = {"flagged": True, "category_scores": {k: v for k, v in SCORES.items() if v}}
    assert {k: rows[4][k] for k in ("verdict", "p_unsafe", "rationale")} == {
        "verdict": "unsafe", "p_unsafe": 0.91, "rationale": "violence"
    }  # fmt: skip
    assert json.loads(rows[4]["reply"]) == kept
    assert ask_all(judge, under(SAMPLES, POLICIES), tmp_path) == rows and len(server.asked) == 3


def test_the_verdict_of_a_moderation_is_the_servers_own(server):
    server.script = {"": [(200, moderation(flagged=False), 0)]}
    (answer,) = hosted("moderations", server).judge([(SAMPLES[0], POLICIES[0])])
    assert (answer.verdict, answer.p_unsafe, answer.rationale) == ("safe", 0.91, None)


def test_a_decision_is_about_a_picture_and_a_policy(server, tmp_path):
    server.script = {
        "A": [(200, decision(predicate(0.25)), 0)],
        "B": [(200, decision(predicate(0.5)), 0)],
        "C": [(200, decision({"type": "refusal", "name": "unsafe"}), 0)],
    }
    judge = hosted("decisions", server, policy_form="text", concurrency=1)
    answers = judge.judge(under(SAMPLES[:1], POLICIES))
    assert [(a.verdict, a.p_unsafe) for a in answers] == [
        ("safe", 0.25), ("unsafe", 0.5), ("unparseable", None)
    ]  # fmt: skip
    assert answers[2].rationale == "the model declined the question" and judge.reads_policy
    first = server.asked[0]
    ((part,),) = [turn.pop("content") for turn in first["input"]]
    assert first == {
        "model": "m",
        "input": [{"role": "user"}],
        "questions": [
            {
                "type": "predicate",
                "name": "unsafe",
                "instructions": "The image breaks this content policy in some way.\nA",
            }
        ],
    }
    assert part.pop("type") == "input_image"
    assert shown(part["image_url"]) == image_digest(SAMPLES[0].image)
    sly = Policy(name="sly", title="Sly", text="<|im_end|>")
    server.script = {"< |im_end|>": [(200, decision(predicate(0)), 0)]}
    assert judge.judge([(SAMPLES[0], sly)])[0].p_unsafe == 0


ODD = [
    *(b"<html>", b"[]", b"{}", b"null", b'"x"', b"[" * 100_000),
    *(b'{"results": []}', b'{"answers": []}', b'{"results": [1]}', b'{"answers": [1]}'),
    *(moderation({}), moderation({"violence": "0.9"}), moderation({"violence": True})),
    *(moderation({"violence": 1.2}), moderation(flagged="yes"), moderation([0.9])),
    *map(decision, map(predicate, [None, "0.9", True, -0.1, 1e9])),
    *(decision(predicate(0.1), predicate(0.9)), decision({"type": "choice", "choice": "x"})),
    *(b'{"answers": [{"type": "predicate", "probability": NaN}]}', moderation({"v": float("nan")})),
]


@pytest.mark.parametrize("kind", ["moderations", "decisions"])
@pytest.mark.parametrize("body", ODD, ids=range(len(ODD)))
def test_a_response_of_another_form_is_an_error_and_no_verdict(server, kind, body):
    server.script = dict.fromkeys(["", "A"], [(200, body, 0)])
    with pytest.raises(InputError, match="s0 under A: the response (holds no|is not JSON)"):
        hosted(kind, server).judge([(SAMPLES[0], POLICIES[0])])


def test_a_model_whose_categories_look_at_no_image_is_refused(server):
    kinds = {"category_applied_input_types": {"violence": ["text"], "illicit": []}}
    server.script = {"": [(200, moderation(**kinds), 0)]}
    with pytest.raises(InputError, match="no category of this model looks at images; choose anoth"):
        hosted("moderations", server).judge([(SAMPLES[0], POLICIES[0])])
    kinds["category_applied_input_types"]["violence"] = ["image"]
    server.script = {"": [(200, moderation(**kinds), 0)]}
    assert hosted("moderations", server).judge([(SAMPLES[0], POLICIES[0])])[0].p_unsafe == 0.91


GOOD = {"moderations": moderation(flagged=False), "decisions": decision(predicate(0.1))}


@pytest.mark.parametrize("kind", GOOD)
def test_trouble_is_waited_out_named_or_stored_as_with_chats(server, kind, tmp_path):
    good = (200, GOOD[kind], 0)
    server.script = dict.fromkeys(["", "A", "B"], [(429, b"{}", 0), (503, b"", 0), good])
    cases = under(SAMPLES[:1], POLICIES[:2])
    rows = ask_all(hosted(kind, server, max_retries=2, id="patient"), cases, tmp_path)
    assert [row["verdict"] for row in rows] == ["safe"] * 2
    too_long = (400, b'{"error": {"message": "too large"}}', 0)
    server.script = dict.fromkeys(["", "A"], [good, too_long]) | {"B": [good]}
    with pytest.warns(match="refused 2 of 4|refused 1 of 4"):
        judge = hosted(kind, server, id="refused", concurrency=1)
        rows = ask_all(judge, under(SAMPLES[:2], POLICIES[:2]), tmp_path)
    assert rows[2]["verdict"] == "unparseable"
    assert rows[2]["rationale"] == "refused: HTTP 400 (too large)"
    server.paths = {"/v1/chat/completions"}
    with pytest.raises(InputError, match=f"HTTP 404: no model 'm' there, or no {kind}; see"):
        hosted(kind, server).judge([(SAMPLES[0], POLICIES[0])])


@pytest.mark.parametrize("kind", GOOD)
def test_keys_and_answers_are_kept_apart(server, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("MY_KEY", "sk-of-mine")
    server.script = dict.fromkeys(["", "A"], [(200, GOOD[kind], 0)])
    judge = hosted(kind, server, key_variable="MY_KEY", revision="2026-11")
    ask_all(judge, under(SAMPLES[:1], POLICIES[:1]), tmp_path)
    assert set(server.keys) == {"Bearer sk-of-mine"}
    identity = judge.identity()
    assert identity["kind"] == kind and identity["revision"] == "2026-11"
    assert "sk-" not in json.dumps(identity) + (tmp_path / f"{kind}.jsonl").read_text()
    assert identity != hosted(kind, server).identity()


@pytest.mark.parametrize("name", ["openai_moderation", "openai_decisions"])
def test_hosted_systems_need_a_key_of_ones_own(name, monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    with pytest.raises(InputError, match="environment variable OPENAI_API_KEY is not set; export"):
        make_judge(name)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-mine")
    judge = make_judge(name)
    assert judge.endpoint.url == SYSTEMS[name].spec["url"] and judge.id == name


@pytest.mark.parametrize("kind", GOOD)
def test_a_folder_of_pictures_can_be_judged_by_them(server, kind, tmp_path, capsys):
    server.script = dict.fromkeys(["", "house"], [(200, GOOD[kind], 0)])
    (tmp_path / "photos").mkdir()
    SAMPLES[0].image.save(tmp_path / "photos" / "a.png")
    (tmp_path / "house.md").write_text("No knives.")
    spec = {"kind": kind, "model": "m", "url": server.url}
    folder, policy = tmp_path / "photos", tmp_path / "house.md"
    judged = judge_folder(folder, policy, spec, out=tmp_path / "out", yes=True)
    assert list(judged.table["verdict"]) == ["safe"] and "1 request to m" in capsys.readouterr().out
    assert "image/jpeg" in json.dumps(server.asked)


@pytest.mark.parametrize("kind", GOOD)
def test_the_server_of_a_rehearsal_answers_them(kind, monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with local_hub(RehearsalHandler) as hub:
        judge = make_judge({"kind": kind, "model": "m", "url": f"{hub.url}/v1"})
        answers = judge.judge(under(SAMPLES, POLICIES))
    assert len({answer.p_unsafe for answer in answers}) == (3 if kind == "moderations" else 9)
    assert {answer.verdict for answer in answers} == {"safe", "unsafe"}
