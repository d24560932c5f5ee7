"""Real data: files in the exact published schema, served by a hub on this machine."""

import io
import warnings
from collections import Counter

import PIL.Image
import pytest
from datasets import Image
from huggingface_hub import constants
from local_hub import COMMIT, writable_hub
from published import (
    PROMPT,
    SAFEEDIT,
    SAFEEDIT_FILE,
    TEXT,
    UNSAFEBENCH,
    as_file,
    moved_to,
    parquet,
)

from sgvl.common.errors import InputError, Unavailable
from sgvl.data import real_rows, store
from sgvl.data.sources.registry import load_source, load_sources
from sgvl.judges import make_judge


def changed(rows, row, **cells):
    return [old | cells if i == row else old for i, old in enumerate(rows)]


def renamed(rows, old, new):
    return [{new if name == old else name: cell for name, cell in row.items()} for row in rows]


def refused(spec):
    with pytest.raises(InputError) as caught:
        load_source(spec)
    return caught.value.problems


# ---- SafeEditBench -----------------------------------------------------------------------------


def test_safeeditbench_comes_in_the_record_shape(serve_safeedit, safeedit_rows, pictures):
    serve_safeedit(safeedit_rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = load_source("safeeditbench")
    assert list(rows.features) == list(real_rows.FEATURES)
    assert rows["id"] == ["b7", "b7", "b7", "b7_edited", "b7_edited"]
    assert set(rows["pair"]) == {"b7"} and set(rows["split"]) == {"test"}
    assert store.labels(rows) == ["safe", "unsafe", "safe", "safe", "safe"]
    assert [p.name for p in store.policies(rows)] == ["L1", "L5", "L2", "L1", "L5"]
    assert [p.render() for p in store.policies(rows)][1] == "Policy L5\n\nThe text of L5."
    assert set(rows["source"]) == {f"tyodd/SafeEditBench@{COMMIT[:8]}"}
    assert set(rows["status"]) == {"ok"}
    assert as_file(rows[0]["image"]) == as_file(PIL.Image.open(io.BytesIO(pictures[0])))


def test_a_commit_can_be_pinned(serve_safeedit, safeedit_rows):
    serve_safeedit(safeedit_rows)
    assert len(load_source({"kind": "safeeditbench", "revision": COMMIT})) == 5
    (problem,) = refused({"kind": "safeeditbench", "revision": "v2"})
    assert "tyodd/SafeEditBench has no revision 'v2'" in problem


def test_a_changed_size_and_a_lost_counterpart_are_warned_of(serve_safeedit, safeedit_rows):
    serve_safeedit(safeedit_rows[:3])
    with pytest.warns(UserWarning) as caught:
        load_source("safeeditbench")
    messages = [str(warning.message).partition(": ")[2] for warning in caught]
    assert messages == [
        "L1: 1, expected 2",
        "L5: 1, expected 2",
        "pictures without a counterpart: 1, expected 0",
    ]


def test_a_renamed_column_is_named_with_its_new_name(serve_safeedit, safeedit_rows):
    schema = {"safety_labels": SAFEEDIT["safety_label"]}
    serve_safeedit(renamed(safeedit_rows, "safety_label", "safety_labels"), **schema)
    (problem,) = refused("safeeditbench")
    assert "column 'safety_label' is missing; did you mean safety_labels?" in problem


def test_a_label_of_another_spelling_is_named_with_its_row(serve_safeedit, safeedit_rows):
    rows = changed(safeedit_rows, 3, safety_label="UnSafe ")
    serve_safeedit(rows, safety_label=TEXT)
    (problem,) = refused("safeeditbench")
    assert problem.endswith("row 3: safety_label 'UnSafe '; allowed: safe, unsafe")


def test_two_texts_of_one_level_are_refused(serve_safeedit, safeedit_rows):
    serve_safeedit(changed(safeedit_rows, 4, policy="Another text."))
    (problem,) = refused("safeeditbench")
    assert "L5 has 2 texts" in problem


def test_a_picture_labelled_twice_under_one_policy_is_refused(serve_safeedit, safeedit_rows):
    serve_safeedit([*safeedit_rows, safeedit_rows[0]])
    with pytest.warns(UserWarning, match="L1: 3, expected 2"):
        (problem,) = refused("safeeditbench")
    assert "b7 is labelled twice under L1" in problem


def test_a_broken_picture_stays_with_its_status(serve_safeedit, safeedit_rows, pictures):
    file = {"bytes": pictures[0][:200], "path": None}
    serve_safeedit(changed(safeedit_rows, 2, image=file))
    rows = load_source("safeeditbench")
    assert rows["status"] == ["ok", "ok", "image_decode", "ok", "ok"]


def test_a_training_half_of_ones_own_comes_from_a_folder_or_another_set(
    hub, safeedit_rows, tmp_path
):
    """Its levels have sizes of their own, and links do not lead out of the folder."""
    file = tmp_path / "mine" / "data" / "train-00000-of-00001.parquet"
    file.parent.mkdir(parents=True)
    file.write_bytes(parquet(SAFEEDIT, safeedit_rows))
    hub.repos["me/SafeEditTrain"] = {"data/train-00000-of-00001.parquet": file.read_bytes()}
    own = {"kind": "safeeditbench", "split": "train"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        local = load_source(own | {"path": str(tmp_path / "mine")})
        remote = load_source(own | {"repo": "me/SafeEditTrain"})
    assert set(local["split"]) == {"train"} and set(local["source"]) == {"mine"}
    assert set(remote["source"]) == {f"me/SafeEditTrain@{COMMIT[:8]}"}
    assert remote["id"] == local["id"] and remote["policy"] != local["policy"]  # its origin
    (problem,) = refused(own | {"path": str(tmp_path / "mine"), "split": "val"})
    assert "no file matches *val-*.parquet; files: data/train-00000-of-00001.parquet" in problem
    (tmp_path / "mine" / "train-1.parquet").symlink_to(tmp_path / "elsewhere.parquet")
    (tmp_path / "elsewhere.parquet").write_bytes(file.read_bytes())
    assert "train-1.parquet" in refused(own | {"path": str(tmp_path / "mine")})[0]


# ---- pictures without labels ---------------------------------------------------------------------


def test_a_folder_of_pictures_needs_no_labels(tmp_path, pictures):
    for name, content in {
        "b/2.PNG": pictures[1],
        "a.jpg": pictures[0],
        "page.jpg": b"<html>",
        "notes.txt": b"not a picture",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    rows = load_source({"kind": "pictures", "path": str(tmp_path)})
    assert rows["id"] == ["a.jpg", "b/2.PNG", "page.jpg"]
    assert rows["status"] == ["ok", "ok", "image_decode"] and set(rows["split"]) == {"train"}
    assert not {"policy", "label", "rationale"} & set(rows.column_names)
    assert store.without_decoding(rows)[1]["image"]["bytes"] == pictures[1]
    assert rows["pair"] == rows["id"] and set(rows["source"]) == {tmp_path.name}


def test_pictures_come_from_a_data_set_too(hub, pictures):
    table = [{"image": {"bytes": file, "path": None}, "text": "x"} for file in pictures]
    hub.repos["me/pictures"] = {
        "loose/a.jpg": pictures[0],
        "loose/b.jpg": pictures[1],
        "data/train-00000-of-00001.parquet": parquet({"image": Image(), "text": TEXT}, table),
    }
    spec = {"kind": "pictures", "repo": "me/pictures"}
    assert load_source(spec | {"files": "loose/*"})["id"] == ["loose/a.jpg", "loose/b.jpg"]
    rows = load_source(spec)
    assert rows["id"] == [f"data/train-00000-of-00001-{k:05d}" for k in range(3)]
    assert [row["image"]["bytes"] for row in store.without_decoding(rows)] == pictures
    assert refused({"kind": "pictures"}) == ["pictures: give either a path or a repo"]
    assert refused(spec | {"path": "."}) == ["pictures: give either a path or a repo"]


# ---- what cannot be had --------------------------------------------------------------------------


def test_an_optional_set_that_is_not_there_is_left_out_with_the_reason(hub, tmp_path, pictures):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.png").write_bytes(pictures[0])
    specs = {
        "mine": {"kind": "pictures", "path": str(tmp_path / "mine")},
        "safeedit_train": {"kind": "safeeditbench", "path": str(tmp_path / "gone")},
        "more": {"kind": "pictures", "repo": "me/never_released"},
    }
    with pytest.raises(InputError) as caught:
        load_sources(specs, drawn=False)
    assert not isinstance(caught.value, Unavailable), "what a run needs is bad input"
    (problem,) = caught.value.problems
    assert problem == f"sources: safeedit_train: {tmp_path}/gone: no such folder"
    for name in ("safeedit_train", "more"):
        specs[name]["optional"] = True
    loaded = load_sources(specs, drawn=False)
    assert list(loaded.pictures) == ["mine"]
    assert loaded.absent["safeedit_train"] == f"{tmp_path}/gone: no such folder"
    assert loaded.absent["more"].startswith("me/never_released: no such data set")
    store.save(loaded.pictures, tmp_path / "data", 0, loaded.absent)
    assert len(store.read("mine", tmp_path / "data")) == 1
    with pytest.raises(Unavailable, match="safeedit_train cannot be had: .*/gone: no such folder"):
        store.read("safeedit_train", tmp_path / "data")
    with pytest.raises(InputError, match="did you mean mine"):
        store.read("min", tmp_path / "data")


def test_an_optional_set_that_is_there_and_wrong_is_an_error(tmp_path):
    (tmp_path / "train-0.parquet").write_text("<html>")
    spec = {"kind": "safeeditbench", "path": str(tmp_path), "split": "train", "optional": True}
    with pytest.raises(InputError, match="cannot be read"):
        load_sources({"safeedit_train": spec}, drawn=False)
    with pytest.raises(InputError, match="optional: got 'yes', expected true or false"):
        load_sources({"safeedit_train": spec | {"optional": "yes"}}, drawn=False)
    with pytest.raises(InputError, match="the drawn set has this name"):
        load_sources({"safeedit_train": spec})


# ---- what the hub answers ----------------------------------------------------------------------


def test_a_gate_is_explained(serve_safeedit, safeedit_rows, monkeypatch):
    hub = serve_safeedit(safeedit_rows)
    hub.gated.add("tyodd/SafeEditBench")
    hub.members.add("hf_of_a_member")
    for token in (None, "hf_of_a_stranger"):  # 401, then 403
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        (problem,) = refused("safeeditbench")
        parts = ("is gated", f"{hub.url}/datasets/tyodd/SafeEditBench", "HF_TOKEN", "nano profile")
        assert [part for part in parts if part not in problem] == []
        assert "stranger" not in problem
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_member")
    assert len(load_source("safeeditbench")) == 5


def test_a_data_set_that_is_not_there(hub):
    (problem,) = refused("safeeditbench")
    assert problem.startswith("tyodd/SafeEditBench: no such data set") and "HF_TOKEN" in problem


def test_a_file_that_moved_is_told_with_the_files_there(hub):
    hub.repos["tyodd/SafeEditBench"] = {"data/all.parquet": b"", "README.md": b""}
    (problem,) = refused("safeeditbench")
    assert "no file matches *test-*.parquet; files: README.md, data/all.parquet" in problem


def test_a_file_that_is_no_parquet(hub):
    hub.repos["tyodd/SafeEditBench"] = {SAFEEDIT_FILE: b"<html>Log in</html>"}
    (problem,) = refused("safeeditbench")
    assert "*test-*.parquet cannot be read" in problem


def test_a_server_error_says_to_try_again(serve_safeedit, safeedit_rows):
    serve_safeedit(safeedit_rows).status["tyodd/SafeEditBench"] = 500
    (problem,) = refused("safeeditbench")
    assert "try again" in problem and "500" in problem


def test_a_refusal_says_what_the_hub_says(serve_safeedit, safeedit_rows, monkeypatch):
    hub = serve_safeedit(safeedit_rows)
    hub.reason = "Please enable access to public gated repositories in your token's settings."
    said = "(Please enable access to public gated repositories in your token's settings)"
    hub.status["tyodd/SafeEditBench"] = 403
    (problem,) = refused("safeeditbench")
    assert f"the hub answered 403 {said}; check what HF_TOKEN may do" in problem
    hub.status.clear()
    hub.gated.add("tyodd/SafeEditBench")
    (problem,) = refused("safeeditbench")
    assert f"tyodd/SafeEditBench is gated {said}. Accept its terms" in problem
    hub.reason = "no " * 1000
    assert len(refused("safeeditbench")[0]) < 600


def test_a_download_that_was_cut_short_goes_on(serve_safeedit, safeedit_rows):
    hub = serve_safeedit(safeedit_rows)
    hub.broken[SAFEEDIT_FILE] = 1
    assert len(load_source("safeeditbench")) == 5
    assert hub.asked.count(SAFEEDIT_FILE) == 2


def test_a_finished_download_is_not_repeated(serve_safeedit, safeedit_rows):
    hub = serve_safeedit(safeedit_rows)
    for _ in range(2):
        load_source("safeeditbench")
    assert hub.asked.count(SAFEEDIT_FILE) == 1


def test_no_network_is_one_line_that_says_what_to_do(hub, monkeypatch):
    with writable_hub() as gone:
        pass
    moved_to(monkeypatch, gone.url)
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        (problem,) = refused("safeeditbench")
        assert "cannot be reached" in problem and "HF_HUB_OFFLINE" in problem
        assert "nano profile" in problem and "\n" not in problem


# ---- UnsafeBench -------------------------------------------------------------------------------


def test_unsafebench_comes_in_the_record_shape(serve_unsafebench, unsafebench_rows):
    serve_unsafebench(unsafebench_rows, unsafebench_rows[:2])
    rows = load_source("unsafebench")
    assert list(rows.features) == list(real_rows.FEATURES)
    assert rows["id"] == rows["pair"] == ["test-00000", "test-00001", "test-00002"]
    assert rows["category"] == ["Violence", "Harassment", "Self-harm"]
    assert set(rows["origin"]) == {"Lexica"}
    assert store.labels(rows) == ["safe", "unsafe", "unsafe"]
    assert {policy.name for policy in store.policies(rows)} == {"openai_content"}
    assert set(rows["status"]) == {"ok"}
    assert [sample.image.mode for sample in store.samples(rows)] == ["RGB"] * 3
    merged = load_source({"kind": "unsafebench", "split": "merged"})
    assert merged["split"] == ["train", "train", "test", "test", "test"]
    nine = load_source({"kind": "unsafebench", "categories": 9})
    assert nine["id"] == ["test-00000", "test-00002"]  # a row keeps its name


def test_unsafebench_may_bring_a_text_column(serve_unsafebench, unsafebench_rows):
    rows = [row | {"text": "a prompt"} for row in unsafebench_rows]
    serve_unsafebench(rows, schema=UNSAFEBENCH | {"text": TEXT})
    assert len(load_source("unsafebench")) == 3


def test_unsafebench_refuses_what_is_not_as_published(serve_unsafebench, unsafebench_rows):
    serve_unsafebench(changed(unsafebench_rows, 1, category="Self-Harm", safety_label="unsafe"))
    (problem,) = refused("unsafebench")
    assert "row 1: category 'Self-Harm'; allowed: Hate, Harassment" in problem
    assert (
        "split 'tset'; did you mean test?" in refused({"kind": "unsafebench", "split": "tset"})[0]
    )
    assert "allowed: 9, 11" in refused({"kind": "unsafebench", "categories": 10})[0]


def test_unsafebench_warns_of_another_size(serve_unsafebench, unsafebench_rows):
    serve_unsafebench(unsafebench_rows[:1])
    with pytest.warns(UserWarning, match="test: 1, expected 3"):
        load_source("unsafebench")


# ---- PolicyShiftBench --------------------------------------------------------------------------


def test_policyshiftbench_comes_in_the_record_shape(serve_policyshift):
    serve_policyshift()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = load_source("policyshift")
    assert list(rows.features) == list(real_rows.FEATURES)
    assert rows["id"] == ["id_test-00000", "id_test-00001", "ood_test-00000"]
    assert set(rows["pair"]) == {"17"} and set(rows["category"]) == {"Weapons"}
    assert store.labels(rows) == ["unsafe", "safe", "safe"]
    one, other, again = store.policies(rows)
    assert one.name != other.name and other == again
    assert other.render() == "Active policies\n\nWeapons: in museums"
    assert len(load_source({"kind": "policyshift", "split": "id_test"})) == 2


def test_policyshiftbench_refuses_another_label(serve_policyshift):
    serve_policyshift(label="true")
    (problem,) = refused("policyshift")
    assert "id_test, row 0: label 'true'; allowed: pass, block" in problem


# ---- LlavaGuard --------------------------------------------------------------------------------


SMID = "/datasets/AIML-TUDA/smid/resolve/main/images/b1_p2_3.jpg"
# The tests' hub is on this machine.
LLAVAGUARD = {"kind": "llavaguard", "pause": 0, "private": True}


def test_llavaguard_keeps_every_row_and_says_which_pictures_it_has(serve_llavaguard, pictures):
    serve_llavaguard()
    rows = load_source(LLAVAGUARD)
    assert list(rows.features) == list(real_rows.FEATURES)
    assert rows["id"] == ["b1_p2_3", "b1_p2_3_v3_a", "b1_p2_3_v2", "web_1", "web_2"]
    assert rows["status"] == ["ok", "ok", "ok", "ok", "http_404"]
    assert rows[4]["image"] is None  # never a blank in its place
    assert store.labels(rows) == ["unsafe", "unsafe", "safe", "safe", "safe"]
    assert len(set(rows["pair"])) == 3 and rows["category"][2] == "NA: None applying"
    base, others, own, *_ = store.policies(rows)
    assert {policy.name for policy in store.policies(rows)} == {"llavaguard"}
    assert len({policy.digest for policy in (base, others, own)}) == 3
    assert own.text.endswith("Can: show weapons")  # no steps, no <image>
    asked = {"kind": "served", "model": "m", "prompt": "llavaguard", "policy_form": "text"}
    request = make_judge(asked).request(own)
    assert request == PROMPT.format(can="show weapons").replace("<image>", "<image 1>")
    usable = store.without_decoding(store.usable(rows))
    assert [row["image"]["bytes"] for row in usable] == [pictures[0]] * 3 + [pictures[1]]


def test_llavaguard_again_asks_for_no_picture_twice(serve_llavaguard, capfd):
    """Pictures are counted in a line; a bar for each would stay in the executed notebook."""
    hub = serve_llavaguard()
    for _ in range(2):
        load_source(LLAVAGUARD)
    out, bars = capfd.readouterr()
    assert out.count("1 of 1, ") == 2 and "b1_p2_3.jpg" not in bars
    requests = {name: n for name, n in Counter(hub.asked).items() if name.endswith(("jpg", "png"))}
    assert requests == {"images/b1_p2_3.jpg": 1, "/cat.png": 1, "/gone.png": 1}


def test_llavaguard_needs_both_gates(serve_llavaguard, monkeypatch):
    hub = serve_llavaguard()
    hub.gated |= {"AIML-TUDA/smid"}
    (problem,) = refused(LLAVAGUARD)
    assert problem.startswith("AIML-TUDA/smid is gated") and "HF_TOKEN" in problem


def test_a_picture_that_left_the_hub_has_its_status(serve_llavaguard):
    serve_llavaguard().repos["AIML-TUDA/smid"] = {}
    rows = load_source(LLAVAGUARD)
    assert rows["status"] == ["http_404"] * 3 + ["ok", "http_404"]


CHANGES = {
    "rating": (lambda rows: rows.replace("Unsafe", "unsafe"), "row 0: rating 'unsafe'; allowed"),
    "column": (lambda rows: rows.rename(columns={"url": "urls"}), "'url' is missing; did you mean"),
    "id": (lambda rows: rows.assign(id="b1"), "b1 is labelled twice under llavaguard"),
    "policy": (lambda rows: rows.assign(policy="<image>"), "row 0: an empty policy"),
}


@pytest.mark.parametrize("published", [True, False])
def test_llavaguard_keeps_a_rationale_if_one_is_published(serve_llavaguard, published):
    reasons = [f"Because {k}." for k in range(5)] if published else [""] * 5
    serve_llavaguard(lambda rows: rows.assign(rationale=reasons) if published else rows)
    assert load_source(LLAVAGUARD)["rationale"] == reasons


@pytest.mark.parametrize("change", CHANGES)
def test_llavaguard_refuses_what_is_not_as_published(serve_llavaguard, change):
    wrong, message = CHANGES[change]
    serve_llavaguard(wrong)
    assert message in refused(LLAVAGUARD)[0]


def test_llavaguard_asks_no_address_of_this_machine_unless_told_to(serve_llavaguard):
    """And a file of another host that is called as one of the hub is not read with the token."""
    hub = serve_llavaguard(lambda rows: rows.replace(rows["url"][3], "http://127.0.0.1:1" + SMID))
    rows = load_source({"kind": "llavaguard", "pause": 0})
    assert rows["status"] == ["ok"] * 3 + ["private_address"] * 2
    assert "/gone.png" not in hub.asked
    assert load_source(LLAVAGUARD)["status"] == ["ok"] * 3 + ["unreachable", "http_404"]


def test_llavaguard_warns_of_another_size(serve_llavaguard):
    serve_llavaguard(lambda rows: rows[:4])
    with pytest.warns(UserWarning, match="test: 4, expected 5"):
        load_source(LLAVAGUARD)


# ---- by name -----------------------------------------------------------------------------------


def test_a_source_that_matches_nothing_is_an_error():
    assert "did you mean unsafebench?" in refused("unsafebnch")[0]
    assert (
        "has no option 'splt'; did you mean split?"
        in refused({"kind": "unsafebench", "splt": "test"})[0]
    )
    assert refused("folder") == [
        f"source 'folder' needs the option {name!r}" for name in ("path", "labels", "policies")
    ]
