"""05 asks every judge about small sets; 06's tables follow from what is stored."""

import re
import socket
from pathlib import Path

import pandas as pd
import PIL.Image
import pytest
import real_run

from sgvl.common.errors import InputError, Unavailable
from sgvl.data import store
from sgvl.data.sources import folder, unsafebench
from sgvl.experiments import ablations, adherence, benchmark, benchmark_files, judging
from sgvl.judges import ask_all, make_judge
from sgvl.judges.base import SpeakingJudge
from sgvl.models import tiny
from sgvl.policies import load
from sgvl.run import receipts
from sgvl.scores import accuracy, llavaguard_scorer
from sgvl.world import pairs, sets

EXAMPLES = Path(__file__).parents[1] / "examples"

JUDGES = [
    {"kind": "always_unsafe", "name": "always unsafe"},
    {"kind": "chat", "id": "base", "with_p_unsafe": False},
    {"kind": "rule", "id": "exact"},
]
LEVEL = [{"kind": "always_safe", "id": "sft_L1"}]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    made = {
        "safeeditbench": pairs.safeeditbench(per_category=1),
        "unsafebench": sets.unsafebench(per_category=2),
        "llavaguard_test": sets.llavaguard(images=2, split="test"),
        "following_neutral": sets.following(images=2, kind="neutral"),
        "following_harmful": sets.following(images=2, kind="harmful"),
        "general": sets.general(per_task=1),
    }
    store.save(made, folder, seed=0)
    return folder


@pytest.fixture(scope="module")
def panel(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmark")
    sets_read = benchmark.read_sets(data, pairs=3)
    panel = benchmark.ask_panel(JUDGES, LEVEL, sets_read, [], folder / "answers")
    benchmark_files.write(panel, folder)
    return panel, folder, sets_read


def test_every_judge_answers_every_set_that_is_for_it(panel):
    frames = panel[0].frames
    assert set(frames) == set(benchmark_files.FRAMES)
    asked = {name: set(frame["judge"]) for name, frame in frames.items()}
    assert asked["levels"] == {"always_unsafe", "base", "exact", "sft_L1"}
    assert asked["content"] == asked["own"] == {"always_unsafe", "base", "exact"}
    assert asked["general"] == asked["naming"] == {"base"}, "the others do not reply to texts"
    assert asked["controls"] == {"always_unsafe", "base"}, "tags would replace the blank picture"
    assert len(frames["levels"]) == 4 * 6 * 5 and len(frames["general"]) == 4


def test_a_guard_whose_one_token_is_yes_or_no_is_asked_no_questions(panel, tmp_path):
    tiny.save("shieldgemma2", tmp_path / "model")
    guard = {"kind": "shieldgemma", "id": "guard", "model": str(tmp_path / "model")}
    frames = benchmark.ask_panel([guard], [], panel[2], ["L1"], tmp_path, described=1).frames
    assert len(frames["levels"]) == 6 and len(frames["controls"]) == 1
    assert frames["general"].empty and frames["naming"].empty
    assert not list(tmp_path.glob("*.replies.jsonl"))
    with pytest.raises(InputError, match="judge guard gives verdicts only"):
        ask_all(make_judge(guard), [(store.samples(panel[2].bench)[0], "What is it?")], tmp_path)


def test_only_some_pictures_are_judged_on_half_of_the_input(panel, tmp_path):
    job = [{"kind": "always_unsafe"}], [], panel[2], ["L4"], tmp_path
    some = benchmark.ask_panel(*job, described=2).frames
    assert len(some["levels"]) == 6 and some["controls"]["id"].tolist() == [
        some["levels"]["id"][0],
        some["levels"]["id"][3],
    ]
    assert some["controls"][["no_picture", "no_policy"]].eq("unsafe").all(axis=None)


def test_the_judge_that_reads_tags_is_the_ceiling_and_right_everywhere(panel):
    answers, _, _ = panel
    assert answers.ceiling() == "exact"
    for name in ("levels", "content", "own", "following_neutral", "following_harmful"):
        own = answers.frames[name].query("judge == 'exact'")
        assert (own["verdict"] == own["label"]).all() and len(own), name


def test_a_second_run_loads_the_judges_and_asks_nothing(panel, monkeypatch):
    answers, folder, sets_read = panel
    from sgvl.judges.chat.judge import ChatJudge

    monkeypatch.setattr(ChatJudge, "results", lambda *_: pytest.fail("a case was asked again"))
    monkeypatch.setattr(ChatJudge, "replies", lambda *_: pytest.fail("a text was sent again"))
    again = benchmark.ask_panel(JUDGES, LEVEL, sets_read, [], folder / "answers")
    for name, frame in answers.frames.items():
        pd.testing.assert_frame_equal(again.frames[name], frame)


def test_what_is_written_is_read_again(panel):
    answers, folder, _ = panel
    read = benchmark_files.read(folder)
    assert {name: len(frame) for name, frame in read.frames.items()} == {
        name: len(frame) for name, frame in answers.frames.items()
    }
    assert list(read.judges["name"]) == ["always unsafe", "base", "exact", "sft_L1"]
    assert read.asked_everything() == ["always_unsafe", "base", "exact"]
    assert read.names["always_unsafe"] == "always unsafe" and read.names["exact"] == "exact"


def test_texts_are_read_as_they_were_written(panel, tmp_path):
    """An id 007 stays one, and so do a reply "NA" and one with a carriage return."""
    frames = {name: frame.copy() for name, frame in panel[0].frames.items()}
    frames["levels"].loc[:, "id"] = "007"
    frames["levels"].loc[:, "reply"] = "NA"
    frames["levels"].loc[::2, "rationale"] = ""
    frames["levels"].loc[1, "reply"] = "ends a row\r for readers\0"
    benchmark_files.write(benchmark_files.Panel(panel[0].judges, frames), tmp_path)
    read = benchmark_files.read(tmp_path).frames
    written = frames["levels"].astype({"p_unsafe": float}).fillna({"rationale": ""})
    pd.testing.assert_frame_equal(read["levels"], written, check_dtype=False)
    assert read["levels"]["id"].iloc[0] == "007" and read["levels"]["reply"].iloc[0] == "NA"


def test_answers_that_are_not_there_name_their_notebook(panel, tmp_path):
    with pytest.raises(InputError, match="run notebook 05_benchmark first"):
        benchmark_files.read(tmp_path)
    benchmark_files.write(panel[0], tmp_path)
    (tmp_path / "naming.csv").unlink()
    with pytest.raises(InputError, match=r"lacks naming.csv; run notebook 05_benchmark first"):
        benchmark_files.read(tmp_path)


def test_a_judge_is_found_by_its_id_or_not_at_all(panel):
    frames = ablations.choose(panel[0], ["exact", "base"])
    assert list(frames["levels"]["judge"].unique()) == ["exact", "base"]
    with pytest.raises(InputError, match="no judge 'bse' was asked; did you mean base?"):
        ablations.choose(panel[0], ["bse"])


def test_tables_are_made_of_stored_answers(panel):
    frames = ablations.choose(panel[0], ["base", "exact"])
    scores = ablations.safety_scores(frames, resamples=50)
    overall = ablations.overall(scores).set_index(["judge", "set"])["value"]
    assert set(scores) == {"UnsafeBench", "LlavaGuard", "SafeEditBench"}
    assert all(overall["exact", name] == 100 for name in scores)
    general = accuracy.scores(frames["general"])
    table4 = ablations.table4(overall.reset_index().assign(n=1, low=0, high=0), general)
    assert len(table4) == 2 * 3 + 4
    points = ablations.figure6(ablations.overall(scores), frames["general"])
    assert list(points["judge"]) == ["base"], "the rule answers no general questions"


def test_pictures_under_policies_that_shift_are_taken_whole_and_scored(tmp_path):
    """Four of eight cases: two pictures under both of their policies, not four under one each."""
    shifting = real_run.policyshift()
    made = {"safeeditbench": pairs.safeeditbench(per_category=1), "policyshift": shifting}
    store.save(made, tmp_path, seed=0)
    roles = {"content": "", "own": "", "questions": [], "following": ["policyshift"]}
    sets_read = benchmark.read_sets(tmp_path, **roles, pairs=1, rows=4)
    assert list(sets_read.following["policyshift"]["pair"]) == ["0", "0", "2", "2"]
    specs = [{"kind": "always_unsafe"}]
    frames = benchmark.ask_panel(specs, [], sets_read, ["L4"], tmp_path / "answers").frames
    assert set(frames["policyshift"]) == set(benchmark_files.FRAMES["policyshift"])
    score = adherence.policy_shift(frames, resamples=20).set_index("measure")
    assert score.loc["PolicyShiftBench, invalid wrong", ["n", "value"]].tolist() == [2, 0]


def test_wrong_specs_are_named_before_anything_is_asked(data, tmp_path, monkeypatch):
    sets_read = benchmark.read_sets(data, pairs=1, content="", own="", following=[], questions=[])
    with pytest.raises(InputError, match="two judges have the id 'rule'"):
        benchmark.ask_panel(["rule"], ["rule"], sets_read, [], tmp_path)
    assert not list(tmp_path.iterdir())
    panel = benchmark.ask_panel(["rule"], [], sets_read, ["L2"], tmp_path)
    assert [name for name, frame in panel.frames.items() if len(frame)] == ["levels"]
    assert set(panel.frames["levels"]["policy"]) == {"L2"}
    with pytest.raises(InputError, match="no policy-following set 'neutral'"):
        benchmark.read_sets(data, following=["neutral"])


def test_one_model_is_in_memory_at_a_time(data, tmp_path, monkeypatch):
    import weakref

    alive = weakref.WeakSet()
    most = []

    def make(spec):
        judge = make_judge(spec)
        most.append(len(alive))
        alive.add(judge)
        return judge

    monkeypatch.setattr(benchmark, "make_judge", make)
    sets_read = benchmark.read_sets(data, pairs=1, content="", own="", following=[], questions=[])
    specs = [{"kind": "opennsfw", "id": f"o{k}"} for k in range(3)]
    benchmark.ask_panel(specs, [], sets_read, [], tmp_path)
    assert most == [0, 0, 0]


def test_judges_asked_in_processes_of_their_own_give_the_same_panel(panel, tmp_path):
    asked, _, sets_read = panel
    job = [JUDGES[0], JUDGES[2]], LEVEL, sets_read, [], tmp_path
    found = benchmark.ask_panel(*job, processes=2)
    assert list(found.judges["judge"]) == ["always_unsafe", "exact", "sft_L1"]
    for name, frame in asked.frames.items():
        own = frame[frame["judge"] != "base"].reset_index(drop=True)
        assert len(own) == len(found.frames[name])
        if len(own):
            pd.testing.assert_frame_equal(found.frames[name], own, check_dtype=False)
    (tmp_path / "exact.jsonl").write_text("torn\n")
    with pytest.raises(InputError, match=r"exact\.jsonl, line 1 is not a record"):
        benchmark.ask_panel([JUDGES[2]], [], sets_read, [], tmp_path, processes=2)


def test_workers_share_every_set_and_a_run_without_them_reads_it(data, tmp_path):
    sets_read = benchmark.read_sets(data, pairs=3)
    for k in range(3):
        benchmark.ask_panel(JUDGES[:1], LEVEL, sets_read, [], tmp_path, worker=(k, 3))
    judged = sum(len(file.read_text().splitlines()) for file in tmp_path.glob("*-of-3.jsonl"))
    panel = benchmark.ask_panel(JUDGES[:1], LEVEL, sets_read, [], tmp_path)
    assert len(panel.frames["levels"]) == 2 * 6 * 5
    alone = [tmp_path / "always_unsafe.jsonl", tmp_path / "sft_L1.jsonl"]
    assert [file.read_text() for file in alone] == ["", ""] and judged > 60


def test_the_scorer_of_the_set_with_own_policies_reads_drawn_rows_too(panel):
    scores = llavaguard_scorer.by_judge(panel[0].frames["own"]).set_index("judge")
    assert scores.loc["exact", "balanced_accuracy"] == 100
    assert scores.loc["always_unsafe", ["tpr", "tnr"]].tolist() == [100, 0]
    assert not len(llavaguard_scorer.by_judge(panel[0].frames["own"][:0]))


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """The data folder of a run on published sets, in their record shape."""
    run = tmp_path_factory.mktemp("root") / "runs" / "real"
    real_run.write(run)
    return run / "data"


def ask_published(real, monkeypatch, judges, folder):
    monkeypatch.setattr(receipts, "runs", lambda profile: real.parent)
    roles = {"following": [], "questions": ["mmmu", "blink"]}
    sets_read = benchmark.read_sets(real, **roles)
    return benchmark.ask_panel(
        judges, [], sets_read, [], folder / "answers", convention="lmms_eval"
    )


def test_published_rows_are_scored_by_level_category_and_source(real, tmp_path, monkeypatch):
    unsafe = {"kind": "always_unsafe", "id": "base"}
    asked = ask_published(real, monkeypatch, [unsafe], tmp_path)
    levels = (
        asked.frames["levels"]
        .groupby("policy")["label"]
        .agg(["size", lambda x: sum(x == "unsafe")])
    )
    assert levels.to_numpy().tolist() == [[6, 0], [5, 1], [6, 2], [6, 2], [6, 6]]
    assert not len(asked.frames["inversion"]) and not len(asked.frames["naming"])
    scores = ablations.safety_scores(ablations.choose(asked, ["base"]), resamples=100)
    table2 = scores["UnsafeBench"].set_index("policy")
    assert {*unsafebench.CATEGORIES, "macro", "pooled"} == set(table2.index)
    assert (table2["value"].round(2) == 66.67).all() and table2.loc["Spam", "n"] == 2
    assert set(asked.frames["own"]["policy"]) == {"AIML-TUDA/LlavaGuard@1a2b3c4d"}
    assert scores["LlavaGuard"]["n"].tolist() == [4, 4, 4]


PROTOCOLS = {
    "bench": {"prompt": "released", "parser": "released", "policy_form": "text"},
    "content": {"prompt": "released_unsafebench", "parser": "released_unsafebench"},
    "own": {"prompt": "llavaguard", "parser": "llavaguard", "max_new_tokens": 500},
}


def test_a_set_can_demand_how_every_judge_is_asked(real, tmp_path, monkeypatch, server):
    """The reply has a rating and is no word: each protocol reads it in its own way."""
    monkeypatch.setattr(receipts, "runs", lambda profile: real.parent)
    server.plain = ' {"rating": "Unsafe"\n}'
    spec = {"kind": "served", "id": "base", "model": "m", "url": server.url, "parser": "word"}
    spec |= {"prompt": "word", "policy_form": "full"}
    sets_read = benchmark.read_sets(real, following=[], questions=[])
    job = (["always_unsafe", spec], [], sets_read, [], tmp_path)
    frames = benchmark.ask_panel(*job, protocols=PROTOCOLS).frames
    verdicts = {
        name: list(frames[name].query("judge == 'base'")["verdict"].unique())
        for name in ("levels", "content", "own")
    }
    assert verdicts == {"levels": ["safe"], "content": ["safe"], "own": ["unsafe"]}
    assert set(frames["own"].query("judge == 'always_unsafe'")["verdict"]) == {"unsafe"}
    limits = {request["max_tokens"] for request in server.asked if "rating" in str(request)}
    assert limits == {500} and any("reply exactly: unsafe." in str(r) for r in server.asked)
    again = len(server.asked)
    benchmark.ask_panel(*job, protocols=PROTOCOLS)
    assert len(server.asked) == again, "answers are stored under the protocol that was followed"
    own_way = benchmark.ask_panel(*job).frames["own"].query("judge == 'base'")
    assert set(own_way["verdict"]) == {"unparseable"}
    scores = llavaguard_scorer.by_judge(frames["own"]).set_index("judge")
    assert scores.loc["base", ["tpr", "tnr", "balanced_accuracy"]].tolist() == [100, 0, 50]
    assert (scores["accuracy"] == 50).all() and scores.loc["base", "f1"] == pytest.approx(200 / 3)


def test_wrong_protocols_are_all_named():
    benchmark.check_protocols(PROTOCOLS)
    wrong = {
        "bench": {"promt": "released"},
        "levels": {"prompt": "word"},
        "own": {"prompt": "llavagard", "max_new_tokens": "64"},
        "content": "released",
    }
    with pytest.raises(InputError) as caught:
        benchmark.check_protocols(wrong)
    first, *rest = caught.value.problems
    assert first == "protocols: bench: 'promt': did you mean prompt?"
    assert [problem.split(" ")[1] for problem in rest] == ["levels:", "own:", "own:", "content:"]


@pytest.mark.parametrize("panel", ["../guards", "/guards", "a/b", "..", "nul"])
def test_a_panel_is_a_plain_name(panel):
    benchmark.check_panel("")
    benchmark.check_panel("guards")
    with pytest.raises(InputError, match="panel"):
        benchmark.check_panel(panel)


GATED = {"kind": "chat", "id": "guard", "name": "QwenGuard-7B", "model": "nobody/nothing"}
GATED |= {"policy_form": "full"}
NEVER = {
    "kind": "chat",
    "id": "rl_safeedit",
    "model": "runs/real/training/04_grpo.rl_safeedit/model",
    "policy_form": "full",
}


def test_a_judge_that_cannot_be_had_is_left_out_and_named(real, tmp_path, monkeypatch):
    with pytest.raises(InputError, match="'nobody/nothing' was not found"):
        ask_published(real, monkeypatch, [GATED], tmp_path)
    panel = ["always_safe", GATED | {"optional": True}, NEVER]
    asked = ask_published(real, monkeypatch, panel, tmp_path)
    assert list(asked.judges["judge"]) == ["always_safe"]
    reasons = asked.not_asked.set_index("name")["reason"]
    assert "'nobody/nothing' was not found" in reasons["QwenGuard-7B"]
    never = "04_grpo.rl_safeedit: safeedit_train: never released"
    assert reasons["rl_safeedit"] == never
    assert set(ablations.choose(asked, ["rl_safeedit", "always_safe"])["own"]["judge"]) == {
        "always_safe"
    }
    nobody = benchmark_files.Panel(asked.judges[:0], benchmark_files.joined([]), asked.not_asked)
    with pytest.raises(Unavailable, match="04_grpo.rl_safeedit: safeedit_train"):
        benchmark_files.write(nobody, tmp_path / "nobody")
    assert benchmark_files.read(tmp_path / "nobody").not_asked["judge"].tolist() == [
        "guard",
        "rl_safeedit",
    ]


def test_a_served_judge_without_its_server_is_left_out_where_it_is_optional(
    real, tmp_path, monkeypatch, capsys
):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"  # bound, but nobody listens
        glm = {"kind": "served", "id": "glm_4v_9b", "name": "GLM-4V-9B", "model": "glm"}
        glm |= {"url": url, "policy_form": "full", "max_retries": 0}
        with pytest.raises(InputError, match="no connection"):
            ask_published(real, monkeypatch, [glm], tmp_path)
        panel = ["always_safe", glm | {"optional": True}]
        asked = ask_published(real, monkeypatch, panel, tmp_path)
    assert list(asked.judges["judge"]) == ["always_safe"]
    assert asked.not_asked.values.tolist() == [
        ["glm_4v_9b", "GLM-4V-9B", "no server answers at its `url`"]
    ]
    assert f"glm_4v_9b: {url}: no connection" in capsys.readouterr().out


def test_panels_are_read_as_one_and_a_judge_is_in_one_alone(panel, tmp_path):
    asked, _, _ = panel
    for name, ids in {"a": ["always_unsafe", "sft_L1"], "b": ["base", "exact"]}.items():
        own = {name: frame[frame["judge"].isin(ids)] for name, frame in asked.frames.items()}
        part = benchmark_files.Panel(asked.judges[asked.judges["judge"].isin(ids)], own)
        benchmark_files.write(part, tmp_path / name)
    whole = benchmark_files.read(tmp_path, ["a", "b"])
    assert sorted(whole.judges["judge"]) == ["always_unsafe", "base", "exact", "sft_L1"]
    assert {n: len(f) for n, f in whole.frames.items()} == {
        n: len(f) for n, f in asked.frames.items()
    }
    with pytest.raises(InputError, match="judge base is in two panels"):
        benchmark_files.read(tmp_path, ["a", "b", "b"])
    with pytest.raises(InputError, match="lacks judges.csv; run 05_benchmark.c first"):
        benchmark_files.read(tmp_path, ["a", "c"])


def test_over_a_fifth_unparseable_is_said_with_a_reply_and_other_parsers():
    judge = SpeakingJudge("qwen", "answer", "full", "answer", 10, False)
    replies = ["unsafe.\nS1", "The image is unsafe.", "Answer: safe", "Answer: safe"]
    verdicts = ["unparseable", "unparseable", "safe", "safe"]
    answers = pd.DataFrame({"verdict": verdicts, "reply": replies})
    told = r"qwen: 2 of 4 replies .* parser 'answer' reads, such as 'unsafe.\\nS1'.*llama_guard 1"
    assert re.match(told, judging.why_unparseable(judge, answers))
    answers.loc[:1, "reply"] = "I see a dog."
    none = judging.why_unparseable(judge, answers)
    assert "No other parser reads one of them; raise `max_new_tokens` if they are cut" in none
    few = pd.concat([answers.head(1), *[answers.tail(2)] * 3])
    assert not judging.why_unparseable(judge, few)


def test_pictures_of_ones_own_take_one_request_each_then_none(tmp_path, server, capsys):
    server.plain = ". Answer: unsafe"
    (tmp_path / "house.md").write_text("# House\n\nNo dogs.\n")
    for number in range(3):
        PIL.Image.new("RGB", (30, 30), (number, 0, 0)).save(tmp_path / f"{number}.png")
    (tmp_path / "labels.csv").write_text("image,label\n0.png,safe\n1.png,unsafe\n2.png,safe\n")
    rows = folder.load(str(tmp_path), str(tmp_path / "labels.csv"), [str(tmp_path / "house.md")])
    store.save({"mine": rows}, tmp_path / "data", seed=0)
    mine = benchmark.read_sets(tmp_path / "data", "mine", "", "", [], [])
    spec = {"kind": "served", "model": "m", "url": server.url, "max_retries": 0}
    answers = tmp_path / "answers"
    with pytest.raises(InputError, match="house: text without rules; set policy_form: full"):
        benchmark.ask_panel([spec], [], mine, [], answers)
    assert not server.asked
    with pytest.raises(InputError, match="judge nano: house: text without rules; the nano model"):
        benchmark.ask_panel([{"kind": "chat", "id": "nano"}], [], mine, [], answers)
    with pytest.warns(UserWarning, match="nano: it reads rules, not sentences"):
        nano = {"kind": "chat", "id": "nano", "policy_form": "full"}
        benchmark.ask_panel([nano], [], mine, [], answers)
    spec["policy_form"] = "full"
    for _ in range(2):
        panel = benchmark.ask_panel([spec], [], mine, [], answers)
        assert len(server.asked) == 3 and not len(panel.frames["controls"])
    assert "served: 3 pictures under 1 policy, 3 requests, fewer where" in capsys.readouterr().out
    benchmark.ask_panel([spec], [], mine, [], answers, blind_controls=True)
    assert len(server.asked) == 3 + 3 + 1  # each without a policy, and a grey one


def test_what_the_nano_model_cannot_judge_is_said_of_it_alone():
    house, quiet = (load(EXAMPLES / f"{name}.md") for name in ("house", "quiet"))
    nano, other = {"kind": "chat", "model": "nano"}, {"kind": "chat", "model": "some/model"}
    photos, words = judging.DRAWINGS_ONLY, judging.NEEDS_RULES
    assert judging.notes_on_nano(nano, [quiet, house], drawn=False) == [photos, words]
    assert judging.notes_on_nano(nano, [quiet], drawn=True) == []
    assert judging.notes_on_nano(other, [house], drawn=False) == []


def test_a_set_that_is_not_there_is_named_with_its_role(real, tmp_path):
    store.save({"mine": real_run.safeeditbench()}, tmp_path, 0)
    said = "content: .*no data set 'unsafebench'; known: mine; an empty `content` leaves it out"
    with pytest.raises(InputError, match=said):
        benchmark.read_sets(tmp_path, "mine")


def test_a_set_that_cannot_be_had_leaves_its_role_out(real, tmp_path):
    sets = {"safeeditbench": real_run.safeeditbench(), "blink": real_run.questions("blink")}
    store.save(sets, tmp_path, 0, absent={"unsafebench": "gated", "mmmu": "gated"})
    read = benchmark.read_sets(tmp_path, own="", following=[], questions=["mmmu", "blink"], rows=1)
    assert read.content is None and read.own is None
    assert [rows["set"] for rows in read.questions] == [["blink"]]
    with pytest.raises(Unavailable, match="safeeditbench cannot be had: gated"):
        store.save({}, tmp_path, 0, absent={"safeeditbench": "gated"})
        benchmark.read_sets(tmp_path)
