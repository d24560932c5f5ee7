"""Real data: files in the exact published schema, served by a hub on this machine."""

import io
import warnings
from collections import Counter

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Features, Image, List, Value
from huggingface_hub import constants
from local_hub import COMMIT, local_hub

from sgvl.data import labelled, llavaguard, policyshift, safeeditbench, store, unsafebench
from sgvl.data.sources import load_source
from sgvl.errors import InputError
from sgvl.scenes import render, sample_scene


@pytest.fixture(scope="session")
def pictures():
    """Drawn scenes as files: every data set here is made of them."""
    rng = np.random.default_rng(0)
    return [as_file(render(sample_scene(rng, "test", [name]))) for name in ("knife", "dog", "tree")]


def as_file(image, kind="PNG"):
    file = io.BytesIO()
    image.save(file, format=kind)
    return file.getvalue()


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A hub that the hub's own client talks to; nothing of it is replaced but the address."""
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no token"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with local_hub() as server:
        moved_to(monkeypatch, server.url)
        yield server


def moved_to(monkeypatch, url):
    """The client made both of these from HF_ENDPOINT when it was imported."""
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


def parquet(features, rows):
    file = io.BytesIO()
    Dataset.from_list(rows, features=Features(features)).to_parquet(file)
    return file.getvalue()


def changed(rows, row, **cells):
    return [old | cells if i == row else old for i, old in enumerate(rows)]


def renamed(rows, old, new):
    return [{new if name == old else name: cell for name, cell in row.items()} for row in rows]


def refused(spec):
    with pytest.raises(InputError) as caught:
        load_source(spec)
    return caught.value.problems


TEXT = Value("string")

# ---- SafeEditBench -----------------------------------------------------------------------------

SAFEEDIT = {
    "image": Image(),
    "image_path": TEXT,
    "safety_label": ClassLabel(names=["safe", "unsafe"]),
    "policy_name": ClassLabel(names=[f"Policy L{k}" for k in range(1, 6)]),
    "policy": TEXT,
}
SAFEEDIT_FILE = "data/test-00000-of-00001.parquet"


@pytest.fixture
def safeedit_rows(pictures):
    """One pair under L1 and L5, and its original under L2 as well: five rows."""
    labels = {"L1": "safe", "L5": "unsafe", "L2": "safe"}
    rows = []
    for stem, file in zip(("b7", "b7_edited"), pictures, strict=False):
        for level in list(labels)[: 2 if stem.endswith("edited") else 3]:
            rows.append(
                {
                    "image": {"bytes": file, "path": None},
                    "image_path": f"test_images/{stem}.jpg",
                    "safety_label": "safe" if stem.endswith("edited") else labels[level],
                    "policy_name": f"Policy {level}",
                    "policy": f"The text of {level}.",
                }
            )
    return rows


@pytest.fixture
def serve_safeedit(hub, monkeypatch):
    monkeypatch.setattr(safeeditbench, "ROWS", {"L1": 2, "L2": 1, "L5": 2})

    def serve(rows, **features):
        schema = {name: features.get(name, SAFEEDIT.get(name, TEXT)) for name in rows[0]}
        hub.repos["tyodd/SafeEditBench"] = {SAFEEDIT_FILE: parquet(schema, rows)}
        return hub

    return serve


def test_safeeditbench_comes_in_the_record_shape(serve_safeedit, safeedit_rows, pictures):
    serve_safeedit(safeedit_rows)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = load_source("safeeditbench")
    assert list(rows.features) == list(labelled.FEATURES)
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
    told = [str(warning.message).partition(": ")[2] for warning in caught]
    assert told == [
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


# ---- what the hub answers ----------------------------------------------------------------------


def test_a_gate_is_explained(serve_safeedit, safeedit_rows, monkeypatch):
    hub = serve_safeedit(safeedit_rows)
    hub.gated.add("tyodd/SafeEditBench")
    hub.members.add("hf_of_a_member")
    for token in (None, "hf_of_a_stranger"):  # 401, then 403
        if token:
            monkeypatch.setenv("HF_TOKEN", token)
        (problem,) = refused("safeeditbench")
        said = ("is gated", f"{hub.url}/datasets/tyodd/SafeEditBench", "HF_TOKEN", "nano profile")
        assert [part for part in said if part not in problem] == []
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
    with local_hub() as gone:
        pass
    moved_to(monkeypatch, gone.url)
    for offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        (problem,) = refused("safeeditbench")
        assert "cannot be reached" in problem and "HF_HUB_OFFLINE" in problem
        assert "nano profile" in problem and "\n" not in problem


# ---- UnsafeBench -------------------------------------------------------------------------------

UNSAFEBENCH = {"image": Image(), "safety_label": TEXT, "category": TEXT, "source": TEXT}


@pytest.fixture
def unsafebench_rows(pictures):
    palette = PIL.Image.open(io.BytesIO(pictures[0])).convert("P")
    files = [as_file(palette), as_file(palette.convert("CMYK"), "JPEG"), pictures[2]]
    told = [("Safe", "Violence"), ("Unsafe", "Harassment"), ("Unsafe", "Self-harm")]
    return [
        {
            "image": {"bytes": file, "path": None},
            "safety_label": label,
            "category": category,
            "source": "Lexica",
        }
        for file, (label, category) in zip(files, told, strict=True)
    ]


@pytest.fixture
def serve_unsafebench(hub, monkeypatch):
    monkeypatch.setattr(unsafebench, "ROWS", {"train": 2, "test": 3})

    def serve(test, train=None, schema=UNSAFEBENCH):
        files = {"data/test-00000-of-00001.parquet": parquet(schema, test)}
        if train:
            files["data/train-00000-of-00002.parquet"] = parquet(schema, train[:1])
            files["data/train-00001-of-00002.parquet"] = parquet(schema, train[1:])
        hub.repos["yiting/UnsafeBench"] = files

    return serve


def test_unsafebench_comes_in_the_record_shape(serve_unsafebench, unsafebench_rows):
    serve_unsafebench(unsafebench_rows, unsafebench_rows[:2])
    rows = load_source("unsafebench")
    assert list(rows.features) == list(labelled.FEATURES)
    assert rows["id"] == rows["pair"] == ["test-00000", "test-00001", "test-00002"]
    assert rows["category"] == ["Violence", "Harassment", "Self-harm"]
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

POLICYSHIFT = {
    **{"question": TEXT, "image": Image(), "answer": TEXT, "image_idx": Value("int64")},
    **{"section_id": Value("int64"), "section_title": TEXT, "policy_name": TEXT, "tier": TEXT},
    **{"discrimination_score": Value("float64"), "policy_description": TEXT, "label": TEXT},
    **{"split_type": TEXT, "violated_categories": List(Value("int64"))},
}


def policyshift_row(file, label, rule, split):
    return {
        "question": f"Moderate the image.\n\n**POLICIES:**\n\nWeapons: {rule}\n",
        "image": {"bytes": file, "path": None},
        "answer": "true | 02" if label == "block" else "false",
        "image_idx": 17,
        "section_id": 2,
        "section_title": "Weapons",
        "policy_name": "Policy A",
        "tier": "flip",
        "discrimination_score": 0.5,
        "policy_description": rule,
        "label": label,
        "split_type": split,
        "violated_categories": [2] if label == "block" else [],
    }


@pytest.fixture
def serve_policyshift(hub, monkeypatch, pictures):
    monkeypatch.setattr(policyshift, "CASES", {"cases of both splits": 3, "pictures": 1})

    def serve(label="block"):
        id_test = [
            policyshift_row(pictures[0], label, "none at all", "id_test"),
            policyshift_row(pictures[0], "pass", "in museums", "id_test"),
        ]
        ood = [policyshift_row(pictures[0], "pass", "in museums", "ood_test")]
        files = {"id_test": id_test, "ood_test": ood, "id_test_mini": id_test[:1], "sft": ood}
        hub.repos["PolicyShiftGuard/PolicyShiftBench"] = {
            f"data/{name}-00000-of-00001.parquet": parquet(POLICYSHIFT, rows)
            for name, rows in files.items()
        } | {"data/id_test.jsonl": b"{}"}

    return serve


def test_policyshiftbench_comes_in_the_record_shape(serve_policyshift):
    serve_policyshift()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows = load_source("policyshift")
    assert list(rows.features) == list(labelled.FEATURES)
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

PROMPT = """Check the image against our policy.

O6: Weapons or Substance Abuse
Can: {can}

Assessment Steps:
1. Rating
{{"rating": "Unsafe"}}
<image>"""


@pytest.fixture
def serve_llavaguard(hub, monkeypatch, pictures, tmp_path):
    """Three rows of a picture on the hub, one of a picture elsewhere, one whose link is dead."""
    monkeypatch.setattr(llavaguard, "ROWS", {"train": 9, "test": 5})
    monkeypatch.setattr(llavaguard, "DOWNLOADS", tmp_path / "downloads")
    smid = f"{hub.url}/datasets/AIML-TUDA/smid/resolve/main/images/b1_p2_3.jpg"
    weapons, none = "O6: Weapons or Substance Abuse", "NA: None applying"
    rows = [
        ("b1_p2_3", smid, weapons, "Unsafe", PROMPT.format(can="-")),
        ("b1_p2_3_v3_a", smid, weapons, "Unsafe", PROMPT.format(can="show animals")),
        ("b1_p2_3_v2", smid, none, "Safe", PROMPT.format(can="show weapons")),
        ("web_1", f"{hub.url}/cat.png", none, "Safe", PROMPT.format(can="-")),
        ("web_2", f"{hub.url}/gone.png", none, "Safe", PROMPT.format(can="-")),
    ]

    def serve(change=lambda rows: rows):
        table = change(pd.DataFrame(rows, columns=["id", "url", "category", "rating", "policy"]))
        hub.repos["AIML-TUDA/LlavaGuard"] = {"test.csv": table.to_csv(index=False).encode()}
        hub.repos["AIML-TUDA/smid"] = {"images/b1_p2_3.jpg": pictures[0]}
        hub.pages["/cat.png"] = pictures[1]
        return hub

    return serve


def test_llavaguard_keeps_every_row_and_says_which_pictures_it_has(serve_llavaguard, pictures):
    serve_llavaguard()
    rows = load_source({"kind": "llavaguard", "pause": 0})
    assert list(rows.features) == list(labelled.FEATURES)
    assert rows["id"] == ["b1_p2_3", "b1_p2_3_v3_a", "b1_p2_3_v2", "web_1", "web_2"]
    assert rows["status"] == ["ok", "ok", "ok", "ok", "http_404"]
    assert rows[4]["image"] is None  # never a blank in its place
    assert store.labels(rows) == ["unsafe", "unsafe", "safe", "safe", "safe"]
    assert len(set(rows["pair"])) == 3 and rows["category"][2] == "NA: None applying"
    base, others, own, *_ = store.policies(rows)
    assert {policy.name for policy in store.policies(rows)} == {"llavaguard"}
    assert len({policy.digest for policy in (base, others, own)}) == 3
    assert own.text.endswith("Can: show weapons")  # no questions, no <image>
    shown = store.undecoded(store.usable(rows))
    assert [row["image"]["bytes"] for row in shown] == [pictures[0]] * 3 + [pictures[1]]


def test_llavaguard_again_asks_for_no_picture_twice(serve_llavaguard):
    hub = serve_llavaguard()
    for _ in range(2):
        load_source({"kind": "llavaguard", "pause": 0})
    asked = {name: n for name, n in Counter(hub.asked).items() if name.endswith(("jpg", "png"))}
    assert asked == {"images/b1_p2_3.jpg": 1, "/cat.png": 1, "/gone.png": 1}


def test_llavaguard_needs_both_gates(serve_llavaguard, monkeypatch):
    hub = serve_llavaguard()
    hub.gated |= {"AIML-TUDA/smid"}
    (problem,) = refused({"kind": "llavaguard", "pause": 0})
    assert problem.startswith("AIML-TUDA/smid is gated") and "HF_TOKEN" in problem


def test_a_picture_that_left_the_hub_has_its_status(serve_llavaguard):
    serve_llavaguard().repos["AIML-TUDA/smid"] = {}
    rows = load_source({"kind": "llavaguard", "pause": 0})
    assert rows["status"] == ["http_404"] * 3 + ["ok", "http_404"]


CHANGES = {
    "rating": (lambda rows: rows.replace("Unsafe", "unsafe"), "row 0: rating 'unsafe'; allowed"),
    "column": (lambda rows: rows.rename(columns={"url": "urls"}), "'url' is missing; did you mean"),
    "id": (lambda rows: rows.assign(id="b1"), "b1 is labelled twice under llavaguard"),
    "policy": (lambda rows: rows.assign(policy="<image>"), "row 0: an empty policy"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_llavaguard_refuses_what_is_not_as_published(serve_llavaguard, change):
    wrong, said = CHANGES[change]
    serve_llavaguard(wrong)
    assert said in refused({"kind": "llavaguard", "pause": 0})[0]


def test_llavaguard_warns_of_another_size(serve_llavaguard):
    serve_llavaguard(lambda rows: rows[:4])
    with pytest.warns(UserWarning, match="test: 4, expected 5"):
        load_source({"kind": "llavaguard", "pause": 0})


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
