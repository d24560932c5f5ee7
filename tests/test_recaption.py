"""Recaptions: exact ones worked by hand, and an endpoint that misbehaves in every way it can."""

import asyncio
import base64
import io
import json
import math
import subprocess
import sys
import time

import datasets
import numpy as np
import pytest
from PIL import Image
from scripted_server import says

from sgvl import recaption
from sgvl.common import progress
from sgvl.common.errors import InputError
from sgvl.data import store
from sgvl.data.images import image_digest
from sgvl.judges.ask import PATIENCE
from sgvl.models.reply import Reply
from sgvl.policies.concepts import group, named
from sgvl.recaption import Item, caption_all, departure, make_captioner, parse_caption
from sgvl.recaption.exact import minimal_edit, rewrite
from sgvl.text.prompts import RECAPTION, caption_prompt
from sgvl.world.scenes import describe, sample_names
from sgvl.world.sets import sft_images

# ---- the exact recaptioner -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("caption", "tags", "expected"),
    [
        # one thing, two things, in the order of the scene
        ("I see an object at the beach.", "axe beach", "I see an axe at the beach."),
        ("I see an object, a dog and an object at the park.", "knife dog pill park",
         "I see a knife, a dog and a pill at the park."),
        # nothing harmful: every word stays
        ("I see a dog at the park.", "dog park", "I see a dog at the park."),
        ("I see an object at the park.", "dog park", "I see an object at the park."),
        # as many objects as unnamed things, one of them harmless: it stays an object
        ("I see an object, an object and a tree at the home.", "trophy pill tree home",
         "I see an object, a pill and a tree at the home."),
        # more objects than unnamed things: the harmful ones take the first
        ("I see an object and an object at the news.", "knife news",
         "I see a knife and an object at the news."),
        # fewer objects than harmful things: the rest is added before the place
        ("I see an object at the home.", "knife pill home",
         "I see a knife and a pill at the home."),
        ("I see a spoon at the home.", "knife home", "I see a spoon and a knife at the home."),
        # one that was taken for something else is named where it stands, and so are the others
        ("I see an object, a bus and a rose at the beach.", "knife pill bus beach",
         "I see a knife, a pill, a bus and a rose at the beach."),
        ("I see a cup, a tree and an object at the home.", "pill tree axe home",
         "I see a cup, a pill, a tree and an axe at the home."),
        # what is named already is not named twice
        ("I see a knife and an object at the home.", "knife pill home",
         "I see a knife and a pill at the home."),
        # other wordings: no article, a capital, no place
        ("The object lies near a dog.", "knife dog home", "The knife lies near a dog."),
        ("An object", "axe home", "An axe"),
        ("A dog.", "dog axe home", "A dog and an axe."),
    ],
)  # fmt: skip
def test_a_minimal_edit_names_what_was_suppressed(caption, tags, expected):
    assert minimal_edit(caption, tags.split()) == expected


def test_a_rewrite_keeps_harmful_things_and_the_place():
    caption = "I see a dog, an object and an object at the park."
    assert (
        rewrite(caption, ("dog", "knife", "pill", "park"))
        == "I see a knife and a pill at the park."
    )
    assert rewrite("I see a dog at the park.", ("dog", "park")) == "I see a dog at the park."


def test_whitewashed_captions_come_back_whole():
    """On sampled scenes, the edit of the base model's ideal caption is the true caption."""
    rng = np.random.default_rng(0)
    for _ in range(300):
        names = sample_names(rng, named("neutral", "sensitive", "harmful"), 4, "train")
        tags = (*names[: rng.integers(1, 5)], "park")
        before = describe(tags, whitewash=True)
        assert minimal_edit(before, tags) == describe(tags)
        harmful = [tag for tag in tags[:-1] if group(tag) == "harmful"]
        measured = departure(before, minimal_edit(before, tags), harmful)
        assert measured.kept == 1 and measured.added == len(harmful)


def test_the_exact_captioner_needs_tags(tmp_path):
    item = Item("real", "0" * 64, None, caption="A street.")
    with pytest.raises(InputError, match="real has no tags.*served or chat"):
        caption_all(make_captioner("exact"), [item], tmp_path / "exact.jsonl")


# ---- how far a recaption departs -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("I see a dog and an object at the beach.", "I see a dog and a knife at the beach.",
         (2, 1.0, 1)),  # an, object -> a, knife; kept: i see dog and at beach
        ("I see a dog and an object at the beach.", "I see a knife at the beach.",
         (4, 4 / 6, 1)),  # dog -> knife, and, an, object gone; kept: i see at beach
        ("A man on a bench.", "A man on a bench.", (0, 1.0, 0)),
        ("A man on a bench.", "a MAN, on a bench", (0, 1.0, 0)),  # capitals, punctuation
        ("A man.", "A man with a hand gun and a gun.", (7, 1.0, 3)),  # hand gun, and gun twice
        ("A gun.", "A gun and a gun.", (3, math.nan, 1)),  # no neutral word; one gun was there
        ("A man and a man.", "A man.", (3, 1 / 3, 0)),  # of man, and, man one is left
        ("", "a knife", (2, math.nan, 1)),
    ],
)  # fmt: skip
def test_departures_by_hand(before, after, expected):
    measured = departure(before, after, ["knife", "gun", "hand gun"])
    assert measured == pytest.approx(expected, nan_ok=True)


def test_changes_hold_every_word_once():
    before, after = "I see a dog and an object.", "I see a knife, close by."
    changes = recaption.changes(before, after)
    for text, other in ((before, "added"), (after, "removed")):
        assert [word for word, change in changes if change != other] == text.split()
    assert [word for word, change in changes if change == "kept"] == ["I", "see", "a"]


# ---- parsing a reply -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "replies"),
    [
        ("ok", ["A man with a knife.", " 'A man.' ", "Caption: A man.", "**A fire** burns.",
                "Here is a man with a gun.", "A man says: “I cannot stop.”", "Okay signs on a wall",
                "A sorry sight: a burnt house.", "<3 on a shirt", "Ein Mann.\n\nUnd ein Hund."]),
        ("refusal", ["", "  \n", "I cannot describe this.", "I’m sorry, but no.", "Sorry, no.",
                     "I am unable to help.", "**I can't** assist with that.", "As an AI model, no",
                     "Unfortunately, I cannot do so.", "I apologize, but no.", "I won't do it."]),
        ("garbage", ["A man.<|im_end|>", "A man.<end_of_turn>", "<think>A man", "A man [/INST]",
                     "</s>", "<｜end▁of▁sentence｜>", "A \x00 man", "A \ud800 man", "...", "42",
                     "no no no no no no no no no no no no", "Sure! A man.",
                     "Here's the edited caption: A man.", "**Revised caption**\nA man."]),
    ],
)  # fmt: skip
def test_replies_are_read(status, replies):
    assert {reply: parse_caption(Reply(reply)).status for reply in replies} == dict.fromkeys(
        replies, status
    )


def test_how_a_reply_ended_counts():
    assert parse_caption(Reply("A man with a kn", "length")).status == "cut"
    assert parse_caption(Reply("A man", "content_filter")).status == "refusal"
    assert parse_caption(Reply("", "length")).status == "cut"  # a model that only thought
    assert parse_caption(Reply("", error="HTTP 500")) == ("failed", "", "HTTP 500")
    assert (
        parse_caption(Reply(" “A man.” ")).text
        == parse_caption(Reply("Caption: A man.")).text
        == "A man."
    )


def test_reading_takes_linear_time():
    for text in ("ab" * 50_000, "<|" * 50_000, "a b c " * 20_000, "I am " * 20_000, "x" * 100_000):
        begun = time.perf_counter()
        parse_caption(Reply(text))
        assert time.perf_counter() - begun < 2


# ---- a server ------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "recaption" / "minimal_edit.jsonl"


def picture(i: int) -> Image.Image:
    return Image.new("RGB", (8, 6), (i, 0, 0))


def some(n: int) -> list[Item]:
    return [
        Item(f"i{i}", image_digest(picture(i)), lambda i=i: picture(i), caption=f"caption {i}")
        for i in range(n)
    ]


def endpoint(server, **options):
    options = {"model": "gemma", "url": server.url, "max_retries": 1} | options
    return make_captioner({"kind": "served", **options})


def statuses(rows) -> dict:
    return {row["id"]: row["status"] for row in rows}


def test_a_request_is_as_documented(server, path):
    captioner = endpoint(server, image_format="PNG", temperature=0.7, max_tokens=50, seed=3)
    rows = caption_all(captioner, some(1), path)
    assert rows == [
        {"id": "i0", "status": "ok", "text": "caption 0 and a knife", "reason": "",
         "reply": "caption 0 and a knife"}
    ]  # fmt: skip
    (line,) = map(json.loads, path.read_text().splitlines())
    assert list(line) == ["key", "id", "prompt", "reply", "finish"]
    request = server.asked[0]
    picture_part, text = request["messages"][0].pop("content")
    assert request == {
        "model": "gemma", "messages": [{"role": "user"}],
        "temperature": 0.7, "max_tokens": 50, "seed": 3,
    }  # fmt: skip
    assert text["text"] == RECAPTION["minimal_edit"].format(caption="caption 0")
    head, _, data = picture_part["image_url"]["url"].partition(",")
    assert head == "data:image/png;base64"
    sent = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image_digest(sent) == some(1)[0].digest


def test_a_picture_is_shrunk_or_left_at_home(server, path):
    big = some(1)[0]._replace(open=lambda: Image.new("RGB", (300, 100)))
    caption_all(endpoint(server, max_side=60), [big], path)
    url = server.asked[0]["messages"][0]["content"][0]["image_url"]["url"]
    sent = Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2])))
    assert (sent.format, sent.size) == ("JPEG", (60, 20))
    blind = some(1)[0]._replace(open=lambda: pytest.fail("a picture was opened"))
    caption_all(endpoint(server, image=False), [blind], path)
    assert [part["type"] for part in server.asked[1]["messages"][0]["content"]] == ["text"]


def test_a_key_comes_from_the_environment_and_only_where_it_is_named(server, path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-another-server")
    monkeypatch.setenv("MY_KEY", "sk-mine")
    caption_all(endpoint(server), some(1), path)
    caption_all(endpoint(server, model="other", key_variable="MY_KEY"), some(1), path)
    # each time for the list of models, and for the caption
    assert server.keys == ["Bearer none"] * 2 + ["Bearer sk-mine"] * 2
    assert "sk-" not in path.read_text()
    with pytest.raises(InputError, match="variable NO_SUCH_KEY is not set"):
        endpoint(server, key_variable="NO_SUCH_KEY")


def test_trouble_that_passes_is_waited_out(server, path):
    good = (200, says("A knife."), 0)
    server.script = {
        "caption 0": [(429, b"{}", 0), good],
        "caption 1": [(500, b"oops", 0), good],
        "caption 2": [(200, b"{}", 6), good],  # a time-out
    }
    captioner = endpoint(server, timeout=4, concurrency=3, max_retries=3)
    rows = caption_all(captioner, some(3), path)
    assert statuses(rows) == {"i0": "ok", "i1": "ok", "i2": "ok"}
    first, second = (server.times[i] for i, c in enumerate(server.texts()) if c == "caption 0")
    assert second - first >= 0.05, "Retry-After is kept to"


def test_trouble_that_stays_is_counted_left_out_and_asked_again(server, path):
    server.script = {
        "caption 0": [(429, b"{}", 0)],
        "caption 1": [(503, b"{}", 0)],
        "caption 2": [(200, b"{}", 6)],
        "caption 3": [(400, b'{"error": {"message": "too large"}}', 0)],
        "caption 4": [(200, b"garbage {", 0)],
        "caption 5": [(200, b"[1]", 0)],
        "caption 6": [(200, b'{"choices": []}', 0)],
        "caption 7": [(200, says([1]), 0)],
    }
    rows = caption_all(endpoint(server, timeout=4, max_retries=0), some(9), path)
    assert [row["reason"] for row in rows] == [
        "HTTP 429", "HTTP 503", "time-out", "HTTP 400 (too large)", "the response is not JSON",
        *["the response holds no answer"] * 2, "the response holds no text", "",
    ]  # fmt: skip
    assert recaption.counts(rows) == {"ok": 1, "refusal": 0, "garbage": 0, "cut": 0, "failed": 8}
    assert path.read_text().count("\n") == 1
    server.script, before = {}, len(server.asked)
    rows = caption_all(endpoint(server), some(9), path)
    assert set(statuses(rows).values()) == {"ok"} and len(server.asked) - before == 8


def test_refusals_and_garbage_are_kept_counted_and_left_out(server, path):
    server.script = {
        "caption 0": [(200, says("I'm sorry, I can't help with that."), 0)],
        "caption 1": [(200, says(""), 0)],
        "caption 2": [(200, says(None, refusal="Against the rules."), 0)],
        "caption 3": [(200, says("A knife.<end_of_turn>\n<start_of_turn>user"), 0)],
        "caption 4": [(200, says("A man with a kn", "length"), 0)],
        "caption 5": [(200, says("A \ud800 man"), 0)],
    }
    rows = caption_all(endpoint(server), some(7), path)
    assert list(statuses(rows).values()) == [
        *["refusal"] * 3, "garbage", "cut", "garbage", "ok",
    ]  # fmt: skip
    assert all(row["text"] == "" for row in rows[:-1])
    assert caption_all(endpoint(server), some(7), path) == rows and len(server.asked) == 7
    assert [item.id for item in recaption.with_captions(some(7), rows)] == ["i6"]


def test_a_finished_run_asks_nothing_and_keeps_its_bytes(server, path):
    rows = caption_all(endpoint(server), some(5), path)
    content = path.read_bytes()
    moved = endpoint(server, url=server.url.replace("127.0.0.1", "localhost"), concurrency=1)
    assert caption_all(moved, some(5), path) == rows, "another address, the same model"
    assert len(server.asked) == 5 and path.read_bytes() == content


def test_what_decides_an_answer_is_in_its_key(server, path):
    item = some(1)[0]
    caption_all(endpoint(server), [item], path)
    for other in ({"model": "b"}, {"prompt": "rewrite"}, {"temperature": 0.1}, {"max_tokens": 9},
                  {"image": False}, {"seed": 1}, {"image_format": "PNG"}):  # fmt: skip
        before = len(server.asked)
        caption_all(endpoint(server, **other), [item], path)
        assert len(server.asked) == before + 1, other
    before = len(server.asked)
    caption_all(endpoint(server), [item._replace(caption="new")], path)
    caption_all(endpoint(server), [item._replace(digest="1" * 64)], path)
    caption_all(endpoint(server), [item._replace(id="renamed", tags=("dog", "park"))], path)
    assert len(server.asked) == before + 2, "another name is the same question"


def test_the_same_question_is_asked_once(server, path):
    twins = [item._replace(id=f"twin{k}") for k in range(3) for item in some(2)]
    rows = caption_all(endpoint(server), twins, path)
    assert len(server.asked) == 2 and len(rows) == 6
    assert rows[0]["text"] == rows[4]["text"] == "caption 0 and a knife"


def test_an_interrupted_run_goes_on_where_it_was(server, path):
    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        caption_all(endpoint(server, concurrency=2), some(10), path, stop)
    stored, asked = path.read_text().count("\n"), len(server.asked)
    assert stored == 4 and asked <= 4 + 2 + 2, "what was in flight is cancelled"
    with path.open("ab") as file:
        file.write(b'{"key": "torn')
    rows = caption_all(endpoint(server), some(10), path)
    assert set(statuses(rows).values()) == {"ok"} and len(server.asked) == asked + 6


@pytest.mark.parametrize("limit", [1, 3])
def test_no_more_requests_at_a_time_than_the_limit(server, path, limit):
    server.delay = 0.02
    done = []
    captioner = endpoint(server, concurrency=limit)
    caption_all(captioner, some(12), path, lambda *now: done.append(now))
    assert server.most == limit
    assert done == [(k, 12) for k in range(1, 13)]


def test_it_runs_where_an_event_loop_runs_as_in_a_notebook(server, path):
    async def cell():
        return caption_all(endpoint(server), some(2), path)

    assert set(statuses(asyncio.run(cell())).values()) == {"ok"}


def test_a_server_that_is_down_is_one_clear_line(server, path):
    caption_all(endpoint(server), some(1), path)
    server.shutdown()
    server.server_close()
    with pytest.raises(InputError) as caught:
        caption_all(endpoint(server, max_retries=0), some(3), path)
    (line,) = caught.value.problems
    assert caught.value.__context__ is None, "IPython shows no error behind which a group stands"
    assert line.startswith(f"{server.url}: no connection") and "Start the server" in line
    assert path.read_text().count("\n") == 1
    assert statuses(caption_all(endpoint(server), some(1), path)) == {"i0": "ok"}, "nothing to ask"


@pytest.mark.parametrize(("status", "hint"), [(401, "key_variable"), (404, "/v1/models")])
def test_a_wrong_key_or_model_stops_at_once(server, path, status, hint):
    server.script = {f"caption {i}": [(status, b"{}", 0)] for i in range(50)}
    with pytest.raises(InputError, match=f"HTTP {status}.*{hint}"):
        caption_all(endpoint(server, concurrency=2), some(50), path)
    assert len(server.asked) <= 4


def test_a_model_that_is_not_in_the_servers_list_is_named_before_anything_is_asked(server, path):
    server.models = (200, b'{"object": "list", "data": [{"id": "gemma"}, {"id": "llama"}]}')
    with pytest.raises(InputError, match="no model 'gema' there; did you mean gemma?"):
        caption_all(endpoint(server, model="gema"), some(3), path)
    assert server.asked == []
    assert statuses(caption_all(endpoint(server), some(1), path)) == {"i0": "ok"}
    for page in ((200, b"<html>"), (200, b"[1]"), (200, b"{}"), (404, b"<html>")):
        server.models = page  # no list: it is asked all the same
        caption_all(endpoint(server, model=f"model {page}"), some(1), path)
    assert len(server.asked) == 5


def test_a_server_that_only_fails_is_given_up(server, path):
    server.script = {f"caption {i}": [(500, b"{}", 0)] for i in range(200)}
    captioner = endpoint(server, max_retries=0, concurrency=4)
    with pytest.raises(InputError, match="every request fails now.*HTTP 500.*run again"):
        caption_all(captioner, some(200), path)
    assert PATIENCE <= len(server.asked) < 200
    with pytest.raises(InputError, match="every request fails now"):
        caption_all(captioner, some(3), path)


# ---- before any call -----------------------------------------------------------------------------


def test_a_dry_run_asks_nothing_and_shows_what_is_stored(server, path):
    caption_all(endpoint(server), some(2), path)
    rows = caption_all(endpoint(server), some(5), path, dry_run=True)
    assert list(statuses(rows).values()) == ["ok", "ok", "failed", "failed", "failed"]
    assert rows[2]["reason"] == "not asked" and len(server.asked) == 2


def test_an_estimate_by_hand(server, path):
    caption_all(endpoint(server, max_tokens=100), some(1), path)
    captioner = endpoint(server, max_tokens=100, image_tokens=256)
    estimate = recaption.estimate(captioner, some(3), path, price_in=1e4, price_out=1e5)
    question = math.ceil(len(caption_prompt("minimal_edit", "caption 1")) / 4)
    assert estimate == {
        "captioner": "gemma", "prompt": "minimal_edit", "calls": 2, "stored": 1,
        "prompt_tokens": 2 * (question + 256),
        "completion_tokens": 2 * 4,  # "caption 1" is 3 tokens, times 1.25
        "cost": round(2 * (question + 256) * 0.01 + 8 * 0.1, 2),
        "cost_at_most": round(2 * (question + 256) * 0.01 + 200 * 0.1, 2),
    }  # fmt: skip
    assert len(server.asked) == 1


def test_captions_that_are_not_there_yet_are_assumed(server, tmp_path):
    bare = [item._replace(caption="") for item in some(4)]
    first = endpoint(server, prompt="caption", image=False)
    second = endpoint(server, image=False)
    one, two = (
        recaption.estimate(c, bare, tmp_path / f"{c.prompt}.jsonl") for c in (first, second)
    )
    assert one["calls"] == 4 and one["completion_tokens"] == 4 * 200
    assert two["completion_tokens"] == 4 * 250 and two["cost"] == 0
    assert two["prompt_tokens"] == 4 * (200 + math.ceil(len(second.request(bare[0])) / 4))


def test_progress_is_a_line_at_most_now_and_then(capsys):
    say = progress.printer(every=60)
    for k in range(1, 6):
        say(k, 5)
    assert capsys.readouterr().out.count("\n") == 1


# ---- making one ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("servd", "did you mean served"),
        ({"kind": "served"}, "needs the option 'model'"),
        ({"kind": "served", "model": "m", "api_key": "sk-1"}, "no option 'api_key'"),
        ({"kind": "served", "model": "m", "url": "localhost:8000"}, "must start with http"),
        ({"kind": "served", "model": "m", "image_format": "TIFF"}, "allowed: JPEG, PNG"),
        ({"kind": "served", "model": "m", "concurrency": 0}, "got 0, expected int above 0"),
        ({"kind": "served", "model": "m", "prompt": "rewite"}, "did you mean rewrite"),
        ({"kind": "exact", "prompt": "caption"}, "unknown prompt 'caption'"),
        ({"kind": "chat", "prompt": "minimal"}, "unknown caption prompt"),
    ],
)
def test_wrong_specs_are_named_before_anything_loads(spec, message, monkeypatch):
    monkeypatch.setattr("sgvl.models.loading.load", lambda *_: pytest.fail("a model was loaded"))
    with pytest.raises(InputError, match=message):
        make_captioner(spec)


def test_importing_it_loads_nothing_heavy():
    code = "import sgvl.recaption, sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert not {"torch", "transformers", "datasets", "pandas", "openai"} & set(done.stdout.split())


# ---- the whole of it, in the small world ---------------------------------------------------------


@pytest.fixture(scope="module")
def pictures():
    return sft_images(seed=0, images=12)


def test_two_steps_in_the_small_world(pictures, tmp_path):
    items = recaption.items(pictures)
    assert [item.digest for item in items] == [image_digest(row["image"]) for row in pictures]
    step1 = make_captioner({"kind": "chat", "max_tokens": 60, "batch_size": 5})
    first = caption_all(step1, items, tmp_path / "caption.jsonl")
    captioned = recaption.with_captions(items, first)
    assert len(captioned) == 12 and all(item.caption.startswith("I see a") for item in captioned)

    answers, edited = [], {}
    for prompt in RECAPTION:
        step2 = make_captioner({"kind": "exact", "prompt": prompt})
        rows = caption_all(step2, captioned, tmp_path / f"{prompt}.jsonl")
        answers.append((step2, rows))
        edited[prompt] = recaption.measure(captioned, rows, named("harmful"))
    for item, row in zip(captioned, answers[0][1], strict=True):
        assert set(tag for tag in item.tags if tag in named("harmful")) <= set(
            row["text"].replace(",", "").split()
        )
    assert (edited["minimal_edit"]["kept"] == 1).all()
    assert edited["rewrite"]["kept"].mean() < 1
    assert (edited["minimal_edit"]["added"] == edited["rewrite"]["added"]).all()

    saved = recaption.to_dataset(pictures, captioned, answers)
    assert saved.column_names == [
        "id", "image", "tags", "caption", "recaption", "recaptioner", "prompt",
    ]  # fmt: skip
    assert len(saved) == 24 and saved.unique("prompt") == list(RECAPTION)
    assert image_digest(saved[13]["image"]) == items[1].digest and saved[13]["id"] == items[1].id
    examples = recaption.examples(saved, 3)
    assert len(examples) == 3 and all(
        set(example["after"]) == set(RECAPTION) for example in examples
    )
    words = recaption.figure_words(examples)
    assert list(words) == ["id", "prompt", "position", "word", "change"]
    part = words[(words["id"] == examples[0]["id"]) & (words["prompt"] == "minimal_edit")]
    assert " ".join(part[part["change"] != "added"]["word"]) == examples[0]["before"]
    assert (
        " ".join(part[part["change"] != "removed"]["word"]) == examples[0]["after"]["minimal_edit"]
    )


def test_a_local_reply_at_its_limit_is_cut(pictures, tmp_path):
    step1 = make_captioner({"kind": "chat", "max_tokens": 4})
    rows = caption_all(step1, recaption.items(pictures.select([0, 1])), tmp_path / "c.jsonl")
    assert statuses(rows) == {"sft-00000": "cut", "sft-00001": "cut"}


def test_real_pictures_have_no_tags(pictures, server, tmp_path):
    real = pictures.remove_columns("tags").select(range(3))
    captioned = [item._replace(caption="A street.") for item in recaption.items(real)]
    captioner = endpoint(server)
    rows = caption_all(captioner, captioned, tmp_path / "real.jsonl")
    saved = recaption.to_dataset(real, captioned, [(captioner, rows)])
    assert "tags" not in saved.column_names and saved.unique("recaptioner") == ["gemma"]


def test_nothing_sound_is_nothing_to_save(pictures):
    captioned = [item._replace(caption="x") for item in recaption.items(pictures.select([0]))]
    row = {"id": captioned[0].id, **parse_caption(Reply(""))._asdict(), "reply": ""}
    with pytest.raises(InputError, match="no recaption is usable"):
        recaption.to_dataset(pictures, captioned, [(make_captioner("exact"), [row])])


def test_a_picture_of_several_sets_and_rows_is_captioned_once(pictures):
    """One set repeats a picture under two policies, has one of another, and one that is lost."""
    files = [row["image"] for row in store.without_decoding(pictures.select(range(3)))]
    rows = [
        {"id": "a", "image": files[1], "status": "ok"},
        {"id": "a_v2", "image": files[1], "status": "ok"},
        {"id": "b", "image": files[0], "status": "ok"},
        {"id": "c", "image": None, "status": "http_404"},
    ]
    published = datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())
    drawn, found, counts = recaption.distinct({"drawn": pictures.select([0, 2])})
    assert drawn["id"] == [item.id for item in found] == pictures.select([0, 2])["id"]
    assert found[1].tags == tuple(pictures[2]["tags"])
    assert counts.loc["drawn"].tolist() == [2, 0, 0, 2]
    both = {"drawn": pictures.select([0, 2]), "published": published}
    joined, found, counts = recaption.distinct(both)
    names = [*(f"drawn/{id_}" for id_ in drawn["id"]), "published/a"]
    assert joined["id"] == [item.id for item in found] == names and not found[0].tags
    assert counts.loc["published"].to_dict() == {
        "rows": 4, "unreadable": 1, "repeated": 2, "pictures": 1,
    }  # fmt: skip
    with pytest.raises(InputError, match="published: no picture can be read"):
        recaption.distinct({"published": published.select([3])})
    image = found[2].open()
    assert image.tobytes() == joined[2]["image"].tobytes() == pictures[1]["image"].tobytes()


def test_terms_are_read_back_as_they_were_counted(tmp_path):
    assert recaption.read_terms(tmp_path) == []
    (tmp_path / "recaption").mkdir()
    (tmp_path / "recaption" / "terms.csv").write_text("term\nhate symbol\nnull\n")
    assert recaption.read_terms(tmp_path) == ["hate symbol", "null"]


def test_captioners_of_several_prompts_share_one_model():
    short, long = recaption.make_captioners({"kind": "chat"}, ["minimal_edit", "rewrite"])
    assert short.chat is long.chat and short.identity() != long.identity()
    assert long.identity() == make_captioner({"kind": "chat", "prompt": "rewrite"}).identity()
    for prompts in (["minimal_edit", "rewite"], []):
        with pytest.raises(InputError, match="prompts: unknown caption prompt"):
            recaption.make_captioners("exact", prompts)
