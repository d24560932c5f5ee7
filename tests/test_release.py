"""A release, from votes to a judge's scores on it; what is sent, and what stays here."""

import hashlib
import io
import subprocess
from itertools import product

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, Features, Image, List, Value
from huggingface_hub import DatasetCard
from PIL import Image as Pictures
from published import as_file, hub

from sgvl.common.errors import InputError
from sgvl.data import push, store
from sgvl.data.cases import cases_of, label_cases
from sgvl.data.sources import load_source
from sgvl.editing import annotation, panel, release
from sgvl.judges import ask_all, make_judge
from sgvl.policies.concepts import concepts
from sgvl.policies.policy import LEVELS, load, load_all
from sgvl.run.rehearsal.published import SAFEEDIT
from sgvl.scores.metrics import score_table, unsafe_shares
from sgvl.world.scenes import Scene, Thing, render

__all__ = ["hub"]
POLICIES = load_all(LEVELS)
SWAPS = {name: concepts()[name].counterpart for name in ("knife", "skull", "pill", "syringe")}
TEXT = Value("string")


def made_set(drawn: bool = True, **save) -> Dataset:
    """Pairs with the columns of 01b's set ``made``; without tags, they count as real pictures."""
    rows = []
    for (before, after), place in zip(
        SWAPS.items(), ("park", "home", "beach", "street"), strict=True
    ):
        for member, name in (("original", before), ("edit", after)):
            scene = Scene(place, 12, (Thing("clock", 0), Thing(name, 3)))
            file = {"bytes": as_file(render(scene)), "path": None}
            if save:
                file["bytes"] = jpeg(render(scene), **save)
            own = {"id": f"set/{before}" + "_edited" * (member == "edit"), "image": file}
            own |= {"source": "drawn", "split": "test", "category": "", "pair": f"set/{before}"}
            own |= {"editor": "local", "assessor": "a <b>"} | {"member": member}
            rows.append(own | ({"tags": list(scene.tags)} if drawn else {}))
    features = {name: TEXT for name in rows[0]} | {"image": Image()}
    return Dataset.from_list(
        rows, features=Features(features | ({"tags": List(TEXT)} if drawn else {}))
    )


def jpeg(image, **save) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", **save)
    return file.getvalue()


@pytest.fixture(scope="module")
def made():
    return made_set()


@pytest.fixture(scope="module")
def cases(made):
    return label_cases(made, POLICIES)


@pytest.fixture(scope="module")
def votes(cases):
    slips = dict.fromkeys(["ann", "bob", "cat"], 0.05)
    return panel.simulate(cases, POLICIES, slips, seed=3)[annotation.COLUMNS]


def released(folder, dataset, cases, votes):
    decided = annotation.decide(cases, votes)
    shares = unsafe_shares(decided.dropna(subset="label"))
    paths = release.write_data(folder, dataset, decided, POLICIES)
    release.write_annotations(folder, paths, decided, votes)
    release.write_card(folder, "Made", dataset, decided, {"Unsafe | share": shares}, True)
    release.seal(folder)
    return decided


def test_what_is_released_is_loaded_judged_and_scored(tmp_path, made, cases, votes):
    decided = released(tmp_path / "bench", made, cases, votes)
    rows = load_source({"kind": "safeeditbench", "path": str(tmp_path / "bench")})
    table = cases_of(rows).table
    kept = decided.dropna(subset="label")
    expected = {(case.id.replace("/", "_"), case.policy): case.label for case in kept.itertuples()}
    found = table.set_index(["id", "policy"])["label"].to_dict()
    assert found == expected
    assert set(table["pair"]) == {f"set_{name}" for name in SWAPS}
    assert len(expected) == 40 and 0 < list(expected.values()).count("unsafe") < 40
    assert {p.name: p.text for p in store.policies(rows)} == {
        p.name: p.render().strip() for p in POLICIES
    }
    pixels = {s.id: s.image.tobytes() for s in store.samples(rows)}
    assert pixels == {s.id.replace("/", "_"): s.image.tobytes() for s in store.samples(made)}
    judge = make_judge(
        {"kind": "chat", "id": "tiny", "model": "nano", "policy_form": "full", "max_new_tokens": 8}
    )
    asked = store.policy_cases(rows)[:4]
    answers = pd.DataFrame(ask_all(judge, asked, tmp_path / "answers"))
    frame = answers.merge(table, on=["id", "policy"]).assign(judge="tiny")
    scores = score_table(frame, resamples=100)
    assert set(frame["policy"]) <= set(scores["policy"]) and scores["n"].max() == len(frame) == 4


def test_the_schema_is_the_published_one(tmp_path, made, cases, votes):
    released(tmp_path, made, cases, votes)
    file = tmp_path / "data" / "test-00000-of-00001.parquet"
    assert Dataset.from_parquet(str(file)).features == Features(SAFEEDIT)
    columns = pq.read_table(file).select(["image_path", "policy_name", "safety_label"]).to_pydict()
    assert set(columns["image_path"]) == {
        f"test_images/set_{name}{end}.png" for name, end in product(SWAPS, ("", "_edited"))
    }
    assert set(columns["policy_name"]) == set(range(5)) and set(columns["safety_label"]) == {0, 1}


def test_a_case_without_a_label_is_kept_beside_the_data(tmp_path, made, cases, votes):
    tied = votes["id"].eq("set/knife") & votes["policy"].eq("L3")
    votes = votes.assign(verdict=votes["verdict"].mask(tied, "unsure"))
    decided = released(tmp_path, made, cases, votes)
    assert decided["label"].isna().sum() == 1
    rows = pq.read_table(tmp_path / "data" / "test-00000-of-00001.parquet")
    assert len(rows) == 39
    kept = pd.read_csv(tmp_path / "annotations" / "cases.csv")
    case = kept[kept["label"].isna()].iloc[0]
    assert case[["image_path", "policy", "unsure", "decision"]].tolist() == [
        *("test_images/set_knife.png", "L3", 3, "no vote")
    ]
    assert "1 cases have no label" in (tmp_path / "README.md").read_text()


def test_annotators_are_numbers_and_their_notes_stay_here(tmp_path, made, cases, votes):
    released(tmp_path, made, cases, votes.assign(note="Ann Smith says so"))
    own = pd.read_csv(tmp_path / "annotations" / "votes.csv")
    assert set(own["annotator"]) == {1, 2, 3} and len(own) == len(votes) == 120
    data = pq.read_table(tmp_path / "data" / "test-00000-of-00001.parquet", columns=["image_path"])
    assert set(own["image_path"]) == set(data["image_path"].to_pylist())
    text = "".join(p.read_text() for p in tmp_path.rglob("*") if p.suffix in (".csv", ".md"))
    assert "Ann Smith" not in text and "bob" not in text


def test_the_card_says_what_the_labels_are_and_sets_the_gate(tmp_path, made, cases, votes):
    released(tmp_path, made, cases, votes)
    card = DatasetCard.load(tmp_path / "README.md")
    assert "No person has looked at these pictures" in card.text
    assert "synthetic" in card.data.tags and card.data.license == "cc-by-4.0"
    about = card.data.to_dict()
    assert "research only" in about["extra_gated_prompt"]
    assert "Affiliation" in about["extra_gated_fields"]
    assert about["configs"][0]["data_files"][0]["path"] == "data/test-*.parquet"
    assert "## Unsafe | share" in card.text and "| L5 | 8 |" in card.text
    assert "a &lt;b>" in card.text and (tmp_path / "statistics" / "unsafe_share.csv").is_file()


def test_pictures_lose_where_they_were_taken_on_both_sides_alike(tmp_path, cases, votes):
    exif = Pictures.Exif()
    exif[0x010F] = "Maker of cameras"
    dataset = made_set(drawn=False, exif=exif)
    assert b"Maker of cameras" in store.without_decoding(dataset)[0]["image"]["bytes"]
    released(tmp_path, dataset, cases, votes)
    file = (tmp_path / "data" / "test-00000-of-00001.parquet").read_bytes()
    assert b"Maker of cameras" not in file
    rows = load_source({"kind": "safeeditbench", "path": str(tmp_path)})
    for before, after in zip(store.samples(dataset), store.samples(rows), strict=True):
        assert np.array_equal(before.image, after.image)
    files = {row["image"]["bytes"][:4] for row in store.without_decoding(rows)}
    assert files == {b"\x89PNG"}
    assert "not-for-all-audiences" in (tmp_path / "README.md").read_text()


def test_what_the_schema_has_no_name_for_is_refused(tmp_path, made, cases, votes):
    decided = annotation.decide(cases, votes)
    with pytest.raises(InputError, match="llavaguard: the published schema has L1"):
        release.write_data(tmp_path, made, decided, [load("llavaguard")])
    with pytest.raises(InputError, match="no case has a label"):
        release.write_data(tmp_path, made, decided.assign(label=None), POLICIES)
    twins = made.map(lambda row: row | {"pair": row["pair"].replace("skull", "knife")})
    twins = twins.map(
        lambda row: row | {"pair": row["pair"].replace("/", ":", row["id"].count("k"))}
    )
    with pytest.raises(InputError, match="would both be"):
        release.write_data(tmp_path, twins, decided, POLICIES)
    assert list(tmp_path.iterdir()) == []


# ---- sending -----------------------------------------------------------------------------------

REPO = "me/made"


@pytest.fixture
def run_folder(tmp_path, monkeypatch, made, cases, votes):
    """A run with a drawn release, and one of pictures that count as real."""
    monkeypatch.setattr(push, "runs", lambda profile: tmp_path)
    released(tmp_path / "release" / "bench", made, cases, votes)
    released(tmp_path / "release" / "real", made_set(drawn=False), cases, votes)
    return tmp_path


def sent(capsys, *arguments) -> tuple[int, str]:
    code = push.main(["nano", REPO, *arguments])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


def test_a_dry_run_lists_the_files_and_sends_none(run_folder, hub, monkeypatch, capsys):
    code, said = sent(capsys, "--release", "bench", "--dry-run")
    assert code == 0 and "nothing was sent" in said and "data/test-00000-of-00001.parquet" in said
    assert "real pictures: none" in said and REPO not in hub.repos
    assert "real pictures: real" in sent(capsys, "--release", "real")[1]
    with pytest.raises(SystemExit):
        sent(capsys, "--release", "real", "--dry-run", "--confirm")


def test_a_release_is_private_and_a_real_one_never_public(run_folder, hub, monkeypatch, capsys):
    hub.members.add("hf_mine")
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    code, said = sent(capsys, "--release", "real", "--access", "public", "--confirm")
    assert code == 2 and "real pictures" in said and REPO not in hub.repos
    assert sent(capsys, "--release", "real", "--confirm")[0] == 0
    assert REPO in hub.repos and REPO not in hub.public
    assert sent(capsys, "--release", "real", "--access", "gated", "--confirm")[0] == 0
    assert REPO in hub.gated
    rows = load_source({"kind": "safeeditbench", "repo": REPO})
    assert len(rows) == 40
    folder = run_folder / "release" / "real"
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert set(hub.repos[REPO]) == names


def test_a_changed_file_is_not_sent_and_the_sums_are_those_of_coreutils(run_folder, capsys):
    folder = run_folder / "release" / "bench"
    check = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True)
    assert check.returncode == 0
    line = (folder / "SHA256SUMS").read_text().splitlines()[0]
    name = line.partition("  ")[2]
    assert line.split()[0] == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    [file] = (folder / "data").glob("*.parquet")
    load_source({"kind": "safeeditbench", "path": str(folder)})
    rows = pd.read_parquet(file)
    rows.assign(safety_label=1 - rows["safety_label"]).to_parquet(file)
    with pytest.raises(InputError, match=r"parquet is not the file of SHA256SUMS"):
        load_source({"kind": "safeeditbench", "path": str(folder)})
    (folder / "README.md").write_text("synthetic")
    (folder / "extra.csv").write_text("x")
    code, said = sent(capsys, "--release", "bench")
    assert code == 2 and "README.md is not the file" in said and "extra.csv is not" in said
    for path in folder.rglob("*.*"):
        path.unlink()
    (folder / "SHA256SUMS").write_text("")
    assert "README.md is not the file" in sent(capsys, "--release", "bench")[1]
    (folder / "SHA256SUMS").unlink()
    assert "no finished release" in sent(capsys, "--release", "bench")[1]
    assert "no finished release" in sent(capsys, "--release", "none")[1]
    assert "use letters" in sent(capsys, "--release", "../release/bench")[1]
