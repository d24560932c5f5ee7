"""Editing: regions found in pixels, planted bad edits, a server in Gemini's form, a killed run."""

import io
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import gemini_server
import numpy as np
import pytest
from gemini_server import error, picture, response
from PIL import Image, ImageFilter

from sgvl import editing, recaption
from sgvl.common.errors import InputError
from sgvl.data import store
from sgvl.data.images import image_digest, load_image
from sgvl.editing import drawn, gate, made
from sgvl.editing.assess import instruction, verdict
from sgvl.editing.drawn import find_things, replace_thing
from sgvl.editing.gate import Bounds, compare
from sgvl.experiments.controls import fit_probe
from sgvl.models import tiny
from sgvl.policies.concepts import named
from sgvl.policies.policy import load
from sgvl.recaption import Item
from sgvl.run.units import _named_units
from sgvl.training import grpo
from sgvl.world import sets
from sgvl.world.scenes import Scene, Thing, render, sample_names, sample_scene


def item(image, text="", name="p"):
    return Item(name, image_digest(image), lambda: image, text)


# ---- drawn canvases ------------------------------------------------------------------------------


def test_boxes_of_things_are_found_in_the_pixels():
    rng = np.random.default_rng(5)
    names, right, covered = named("neutral", "harmful"), 0, []
    for _ in range(60):
        scene = sample_scene(
            rng, "train", sample_names(rng, names, int(rng.integers(1, 5)), "train")
        )
        things = sorted(scene.things, key=lambda thing: thing.slot)
        boxes = find_things(render(scene), len(things))
        slots = [top // 112 * 2 + left // 112 for left, top, _, _ in boxes]
        if slots == [thing.slot for thing in things]:
            right += 1
            for thing, (left, top, right_, bottom) in zip(things, boxes, strict=True):
                x, y = (thing.box[0] + thing.box[2]) / 2, (thing.box[1] + thing.box[3]) / 2
                covered.append(left < x < right_ and top < y < bottom)
    assert right >= 39 and all(covered)  # of 600 such scenes 595 were right


def test_only_the_box_changes():
    scene = Scene("park", 3, (Thing("knife", 0), Thing("dog", 3)))
    before = render(scene)
    box = find_things(before, 2)[0]
    after = replace_thing(before, box, "camera")
    differs = np.nonzero(np.any(np.asarray(before) != np.asarray(after), -1))
    assert min(differs[1]) >= box[0] and max(differs[1]) < box[2]
    assert min(differs[0]) >= box[1] and max(differs[0]) < box[3]
    assert compare(before, after, Bounds()).reason == ""


@pytest.mark.parametrize(
    ("order", "status"),
    [
        ("Replace thing 2 of 2, the object, with a camera.", "ok"),
        ("Remove thing 1 of 2, the object.", "ok"),
        ("Replace thing 3 of 2, the object, with a camera.", "refusal"),
        ("Replace thing 1 of 2, the object, with a moon.", "refusal"),
        ("Make it nicer.", "refusal"),
    ],
)
def test_the_local_editor_follows_orders_that_it_can_read(tmp_path, order, status):
    image = render(Scene("park", 3, (Thing("knife", 0), Thing("dog", 3))))
    (row,) = editing.edit_all(editing.make_editor("local"), [item(image, order)], tmp_path)
    assert row["status"] == status
    assert (row["file"] is not None) == (status == "ok") and bool(row["reason"]) == (status != "ok")


# ---- the gate ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def good():
    before = render(Scene("street", 2, (Thing("knife", 0), Thing("dog", 1), Thing("apple", 3))))
    return before, replace_thing(before, find_things(before, 3)[0], "camera")


def jpeg(image, quality):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def brighter(image, levels):
    return Image.fromarray(np.clip(np.asarray(image, int) + levels, 0, 255).astype(np.uint8))


def smeared(before, after):
    box = find_things(before, 3)[0]
    result = before.copy()
    result.paste(before.crop(box).filter(ImageFilter.GaussianBlur(12)), box[:2])
    return result


def moved(before, after):
    """A second thing is gone, far from the first."""
    return replace_thing(after, find_things(before, 3)[2], "rose")


PLANTED = {
    "": lambda before, after: after,
    "other size": lambda before, after: after.resize((224, 192)),
    "nothing changed": lambda before, after: before,
    "not local": lambda before, after: brighter(after, 40),
    "scene changed": lambda before, after: brighter(after, 8),
    "scattered": moved,
    "smear": smeared,
    "compression tell": lambda before, after: load_image(jpeg(after, 60)),
    "grain tell": lambda before, after: after.filter(ImageFilter.GaussianBlur(0.7)),
}


@pytest.mark.parametrize("reason", PLANTED)
def test_planted_bad_edits_are_refused_with_their_reason(good, reason):
    found = compare(good[0], PLANTED[reason](*good), Bounds())
    assert found.reason.partition(":")[0] == reason


def test_content_that_is_not_as_wanted_is_refused(good):
    files = [made._encoded(image, "PNG") for image in good]
    found = compare(*good, Bounds())
    for said, reason in [("done", ""), ("target still there", "target still there"),
                         ("replacement missing", "replacement missing"),
                         ("not verified: cut", "not verified: cut")]:  # fmt: skip
        assert made.Pair(item(good[0]), *files, found, said).reason == reason


def test_an_original_goes_the_way_of_its_edit(good):
    before, after = good
    one, other = made.alike(before, jpeg(after, 60))
    assert compare(one, other, Bounds()).reason == ""  # no tell: the original went through it, too
    assert compare(before, other, Bounds()).reason == "compression tell"
    twice = made._encoded(after.resize((448, 448)), "PNG")
    one, other = made.alike(before, twice)
    assert one.size == other.size == (224, 224)
    assert compare(one, other, Bounds()).reason == ""
    assert compare(before, other, Bounds()).reason == "grain tell"
    assert made.alike(before, made._encoded(after.resize((224, 300)), "PNG"))[1].size == (224, 300)


def test_a_bound_that_is_unknown_or_no_number_is_an_error():
    with pytest.raises(InputError, match="unknown bound 'simlar'; did you mean similar"):
        editing.check_editing({"kind": "rationale"}, {"kind": "local"}, {"simlar": 0.8})
    with pytest.raises(InputError, match="hash: got the text '12'"):
        gate.make_bounds({"hash": "12"})
    with pytest.raises(InputError, match="unknown editor kind 'locl'; did you mean local"):
        editing.check_editing({"kind": "rationale"}, {"kind": "locl"}, {})


def test_the_probe_finds_a_tell_and_none_where_there_is_none():
    rng = np.random.default_rng(0)

    def made_set(edit):
        rows = []
        for k in range(40):
            image = Image.fromarray(rng.normal(128, 5, (64, 64, 3)).clip(0, 255).astype(np.uint8))
            for member, one in (("original", image), ("edit", edit(image))):
                rows.append({"image": one, "member": member, "pair": str(k)})
        from datasets import Dataset, Features, Value
        from datasets import Image as Picture

        text = Value("string")
        return Dataset.from_list(rows, Features(image=Picture(), member=text, pair=text))

    assert editing.probe(made_set(lambda i: load_image(jpeg(i, 50))), fit_probe)["value"] > 95
    clean = editing.probe(made_set(lambda i: i), fit_probe)
    assert clean["at_chance"] and clean["n"] == 80


def test_a_thing_drawn_again_leaves_no_trace_but_without_grain_it_does(monkeypatch):
    rng, rows = np.random.default_rng(3), []
    for k in range(30):
        scene = sample_scene(rng, "train", sample_names(rng, named("neutral"), 2, "train"))
        shared = {"image": render(scene), "tags": scene.tags, "pair": str(k)}
        rows += [shared | {"member": member} for member in ("original", "edit")]
    assert made.probe_redrawn(rows, fit_probe)["at_chance"]
    monkeypatch.setattr(drawn, "SIGMA", 0.0)
    assert not made.probe_redrawn(rows, fit_probe)["at_chance"]


# ---- assessors -----------------------------------------------------------------------------------


def test_replies_in_words_are_read():
    assert instruction(None, ' "Safe."')["status"] == "safe"
    assert instruction(None, "Replace the gun with a phone.") == {
        "status": "ok",
        "text": "Replace the gun with a phone.",
    }
    assert verdict(None, "Done.") == "done"
    assert verdict(None, "Target still there - a gun") == "target still there"
    assert verdict(None, "yes").startswith("not verified")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The whole path on 12 drawn pictures, with the assessor of 01b in the nano profile."""
    folder = tmp_path_factory.mktemp("safeedit")
    rows = sets.llavaguard(3, 12)
    pictures, items, _ = recaption.distinct({"llavaguard": rows})
    pictures = editing.with_origin(pictures, {"llavaguard": rows})
    spec = {"kind": "rationale", "model": "sgvl/nano/pretrained", "policy": "L5", "split": "test"}
    assess, verify = editing.make_assessors(spec)
    editor = editing.make_editor("local")
    plan = editing.estimate(editor, items, folder, price_picture=0.04)
    assessed = editing.assess_all(assess, items, folder / "assess.jsonl")
    todo = editing.with_instructions(items, assessed)
    edits = editing.edit_all(editor, todo, folder)
    pairs = editing.make_pairs(todo, edits, Bounds())
    said = editing.verify_all(verify, editing.edited_items(pairs), folder / "verify.jsonl")
    pairs = [pair._replace(content=one) for pair, one in zip(pairs, said, strict=True)]
    dataset = editing.to_dataset(pictures, pairs, editor.name, assess.name)
    return assess, plan, items, assessed, edits, pairs, dataset, folder


def test_pictures_become_a_set_with_exact_labels(whole):
    _, plan, items, assessed, edits, pairs, dataset, folder = whole
    assert (plan["calls"], plan["cost"]) == (12, 0.48)
    passed = editing.passed(dataset)
    assert len(passed) >= 16  # 10 or 11 of 12 pass on most seeds
    shares = editing.unsafe_by_member(passed, ["L1", "L5"])
    assert shares.loc["L5"].to_dict() == {"edit": 0.0, "original": 100.0}
    assert set(shares.loc["L1"]) == {0.0}
    for original, edit in zip(passed.select(range(0, len(passed), 2)),
                              passed.select(range(1, len(passed), 2)), strict=True):  # fmt: skip
        assert edit["id"] == f"{original['id']}_edited" and original["pair"] == edit["pair"]
        assert (original["member"], edit["member"]) == ("original", "edit")
        gone, new = (
            set(original["tags"]) - set(edit["tags"]),
            set(edit["tags"]) - set(original["tags"]),
        )
        assert len(gone) == len(new) == 1 and load("L5").label(gone).label == "unsafe"
        assert f"with a {new.pop()}" in edit["instruction"].replace(" an ", " a ")
    table = editing.outcomes(assessed, edits, pairs)
    assert len(table) == len(items) and editing.count_outcomes(table)["pictures"].sum() == 12
    saved, absent = editing.sets_to_save(dataset, "safeedit_train")
    store.save(saved, folder, 0, absent)
    assert store.read("safeedit_train", folder)["tags"] == passed["tags"]


def test_a_second_run_asks_nothing(whole, monkeypatch):
    assess, _, items, assessed, *_, folder = whole
    monkeypatch.setattr(type(assess), "results", lambda *_: pytest.fail("asked again"))
    monkeypatch.setattr("sgvl.editing.local.LocalEditor.results", lambda *_: pytest.fail("again"))
    assert editing.assess_all(assess, items, folder / "assess.jsonl") == assessed
    todo = editing.with_instructions(items, assessed)
    editor = editing.make_editor("local")
    assert {row["status"] for row in editing.edit_all(editor, todo, folder)} == {"ok"}
    assert editing.estimate(editor, todo, folder)["calls"] == 0


def test_reasons_become_an_instruction_and_a_verdict(whole):
    assess, one = whole[0], whole[2][0]
    said = "I see a dog and an object at the park. dog: animals permitted. object: unknown, all else prohibited. Answer: unsafe"  # noqa: E501
    text = assess.instruction(one, said)["text"]
    assert text.startswith("Replace thing 2 of 2, the object, with a")
    new = text.rstrip(".").split()[-1]
    assert new in named("neutral") and new != "dog"
    assert assess.verdict(one._replace(caption=text), said) == "target still there"
    clean = "I see a dog and a bus at the park. dog: animals permitted. bus: vehicles permitted. Answer: safe"  # noqa: E501
    assert assess.instruction(one, clean)["status"] == "safe"
    order = "Replace thing 2 of 2, the object, with a {}."
    assert assess.verdict(one._replace(caption=order.format("bus")), clean) == "done"
    assert assess.verdict(one._replace(caption=order.format("key")), clean) == "replacement missing"


def test_pairs_without_tags_wait_for_annotators(whole):
    real = whole[6].remove_columns("tags")
    saved, absent = editing.sets_to_save(real, "safeedit_train")
    assert list(saved) == ["made"] and "not annotated yet" in absent["safeedit_train"]
    none = editing.passed(real, "rejected")
    assert "no pair passed" in editing.sets_to_save(none, "x")[1]["x"]


def test_an_edited_picture_that_is_gone_is_named(tmp_path):
    image = render(Scene("park", 3, (Thing("knife", 0),)))
    one = [item(image, "Replace thing 1 of 1, the object, with a camera.")]
    (row,) = editing.edit_all(editing.make_editor("local"), one, tmp_path)
    row["file"].write_bytes(b"other")
    with pytest.raises(InputError, match="remove the line of p there"):
        editing.edit_all(editing.make_editor("local"), one, tmp_path)


# ---- Gemini --------------------------------------------------------------------------------------


@pytest.fixture
def server():
    server = gemini_server.start()
    yield server
    server.shutdown()


def gemini(server, **options):
    given = {"kind": "gemini", "model": "m-image", "url": server.url, "key_variable": "KEY"}
    return editing.make_editor(given | {"concurrency": 2, "max_retries": 1} | options)


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("KEY", "secret-key-123")
    monkeypatch.delenv("GOOGLE_API_KEY", raising=False)


def photo(k=0):
    return Image.new("RGB", (96, 96), (k, 90, 90))


def test_gemini_replies_of_every_kind(server, tmp_path):
    square = picture(Image.new("RGB", (96, 96), (1, 2, 3)))
    server.script = {
        "blocked": [(200, b'{"promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}')],
        "declined": [(200, response(finish="IMAGE_SAFETY"))],
        "words": [(200, response({"text": "I'm sorry, but I can't edit this."}))],
        "chat": [(200, response({"text": "A nice picture of a wall."}))],
        "thought": [(200, response({"text": "hm", "thought": True} | square, square))],
        "busy": [error(429, "slow down", "RESOURCE_EXHAUSTED"), (200, response(square))],
        "always busy": [error(429, "quota of secret-key-123", "RESOURCE_EXHAUSTED")],
        "bad": [error(400, "unsupported picture")],
        "garbage": [(200, b"<html>")],
        "no picture": [(200, response({"inlineData": {"mimeType": "image/png", "data": "AAAA"}}))],
    }
    texts = ["fine", *server.script]
    items = [item(photo(k), text, text) for k, text in enumerate(texts)]
    rows = {row["id"]: row for row in editing.edit_all(gemini(server), items, tmp_path)}
    assert {name: row["status"] for name, row in rows.items()} == {
        "fine": "ok", "blocked": "refusal", "declined": "refusal", "words": "refusal",
        "chat": "garbage", "thought": "ok", "busy": "ok", "always busy": "failed",
        "bad": "refusal", "garbage": "failed", "no picture": "garbage",
    }  # fmt: skip
    assert "HTTP 429" in rows["always busy"]["reason"] and "secret" not in str(rows)
    assert load_image(rows["fine"]["file"].read_bytes()).getpixel((50, 50)) == (200, 20, 20)
    assert server.asked.count("busy") == 2 and server.asked.count("always busy") == 2
    assert set(server.keys) == {"secret-key-123"}
    assert set(server.paths) == {"/v1/models/m-image:generateContent"}
    before = len(server.asked)
    server.script["garbage"] = server.script["always busy"] = [(200, response(square))]
    again = editing.edit_all(gemini(server), items, tmp_path)
    assert [row["status"] for row in again if row["id"] in ("garbage", "always busy")] == ["ok"] * 2
    assert sorted(server.asked[before:]) == ["always busy", "garbage"]  # what failed, nothing else


def test_a_key_that_is_refused_ends_the_run(server, tmp_path, monkeypatch):
    server.script = {"x": [error(403, "no secret-key-123", "PERMISSION_DENIED")]}
    with pytest.raises(InputError, match=r"HTTP 403 \(no \[key\]\); export a key"):
        editing.edit_all(gemini(server), [item(photo(), "x")], tmp_path)
    monkeypatch.delenv("KEY")
    with pytest.raises(InputError, match="KEY is not set"):
        gemini(server)


def test_a_server_that_is_down_ends_the_run(tmp_path):
    dead = gemini_server.start()
    dead.shutdown()
    dead.server_close()
    editor = gemini(dead, max_retries=0)
    with pytest.raises(InputError, match="every request fails"):
        editing.edit_all(editor, [item(photo(), "x")], tmp_path)


def test_a_killed_run_goes_on_without_paying_twice(tmp_path):
    server = gemini_server.start(delay=0.2)
    command = [sys.executable, "-c", gemini_server.EDIT, server.url, str(tmp_path), "6"]
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    run = subprocess.Popen(command, env=environment)
    records = tmp_path / "edit.jsonl"
    end = time.monotonic() + 120
    while time.monotonic() < end and (
        not records.exists() or records.read_bytes().count(b"\n") < 3
    ):
        time.sleep(0.02)
    run.send_signal(signal.SIGKILL)
    run.wait()
    stored, asked = records.read_bytes().count(b"\n"), len(server.asked)
    assert 3 <= stored < 6 and asked - stored <= 1  # at most the one in flight is lost
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert again.stdout.split() == ["ok"] * 6
    assert len(server.asked) == asked + 6 - stored
    server.shutdown()


# ---- diffusers -----------------------------------------------------------------------------------


def test_a_pipeline_of_a_known_class_edits(tmp_path):
    tiny.save_editor(tmp_path / "flux")
    spec = {"kind": "diffusers", "model": str(tmp_path / "flux"), "dtype": "float32"}
    spec |= {"device": "cpu", "settings": {"num_inference_steps": 1, "height": 64, "width": 64}}
    editor = editing.make_editor(spec)
    assert editor.identity()["class"] == "Flux2KleinPipeline"
    rows = editing.edit_all(editor, [item(photo(), "a"), item(photo(), "a", "q")], tmp_path)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    image = load_image(rows[0]["file"].read_bytes())
    assert image.size == (64, 64) and np.asarray(image).std() > 0
    editor.settings = {"num_inference_steps": 1}
    odd = photo().crop((0, 0, 90, 70))  # the pipeline alone makes it 80 x 64, another shape
    (row,) = editing.edit_all(editor, [item(odd, "a")], tmp_path / "odd")
    assert load_image(row["file"].read_bytes()).size == odd.size
    other = tmp_path / "flux" / "model_index.json"
    other.write_text(other.read_text().replace("Flux2KleinPipeline", "StableDiffusionPipeline"))
    with pytest.raises(InputError, match="class StableDiffusionPipeline"):
        editing.make_editor(spec)


# ---- the unit and those that build on it ---------------------------------------------------------


def test_a_training_can_name_the_made_set(whole, tmp_path, monkeypatch):
    """As ``pairs_train`` of 04_grpo.rl_safeedit: under all levels, with exact labels."""
    *_, dataset, _ = whole
    folder = tmp_path / "runs" / "x" / "safeedit" / "train"
    store.save(editing.sets_to_save(dataset, "safeedit_train")[0], folder, 0)
    monkeypatch.chdir(tmp_path)
    name = "runs/x/safeedit/train/safeedit_train"
    rows = grpo.rows_of("rl_safeedit", tmp_path / "runs" / "x", pairs_train=name)
    assert len(rows) == 5 * len(editing.passed(dataset))
    l5 = grpo.rows_of("L5", tmp_path / "runs" / "x", pairs_train=name)
    assert sorted(l5["label"]) == ["safe"] * (len(l5) // 2) + ["unsafe"] * (len(l5) // 2)
    with pytest.raises(InputError, match="written by 01b_safeedit: no data set 'safeedit_trian'"):
        grpo.rows_of("L5", tmp_path, pairs_train="runs/x/safeedit/train/safeedit_trian")


def test_the_unit_of_a_named_set_is_a_need():
    gives = ("safeedit/train/manifest.json", "safeedit/train/made.parquet")
    units = {"01b_safeedit.train": SimpleNamespace(gives=gives)}
    made_set = {"pairs_train": "runs/nano/safeedit/train/safeedit_train"}
    assert _named_units(made_set, "nano", units) == ["01b_safeedit.train"]
    assert _named_units({"pairs_train": "safeedit_train"}, "nano", units) == []
