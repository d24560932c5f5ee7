"""What 01_data shows of real data, and which rows later notebooks judge."""

import io

import numpy as np
import pandas as pd
import PIL.Image
import pytest
from datasets import Dataset

from sgvl.common.errors import InputError
from sgvl.data import overview, store
from sgvl.data.cases import cases_of
from sgvl.data.real_rows import FEATURES, make_rows
from sgvl.data.sources.registry import load_sources
from sgvl.policies.policy import Policy
from sgvl.world import sets as drawn
from sgvl.world.pairs import safeeditbench
from sgvl.world.scenes import render, sample_scene

HOUSE, LAW = (Policy(name=name, title=name, text="Rules.") for name in ("house", "law"))


def scene(seed, split="test"):
    rng = np.random.default_rng(seed)
    return render(sample_scene(rng, split, ["dog"] if seed % 2 else ["tree"]))


def made(images, split="test", **columns):
    """A set of these pictures, named a, b, c, .."""
    files = []
    for image in images:
        file = io.BytesIO()
        image.save(file, format="PNG")
        files.append({"image": {"bytes": file.getvalue(), "path": None}})
    n = len(files)
    known = {"ids": list("abcdef"[:n]), "policies": [HOUSE] * n, "labels": ["safe"] * n}
    pictures = Dataset.from_list(files, features=FEATURES.__class__(image=FEATURES["image"]))
    return make_rows(pictures, "made", source="made", split=split, **known | columns)


@pytest.fixture(scope="module")
def mine():
    """One pair under two policies, and a picture that is not there."""
    images = [scene(0), scene(0), scene(1), scene(2)]
    rows = made(
        images,
        ids=["a", "a", "a2", "x"],
        pairs=["a", "a", "a", "x"],
        policies=[HOUSE, LAW, HOUSE, HOUSE],
        labels=["unsafe", "safe", "safe", "safe"],
        categories=["dogs", "dogs", "dogs", ""],
        status=["ok", "ok", "ok", "http_404"],
    )
    return rows


def test_rows_and_their_summary_by_hand(mine):
    table = overview.rows({"mine": mine, "more": made([scene(3)])})
    assert list(table) == overview.COLUMNS and len(table) == 5
    assert table["policy"].tolist() == ["house", "law", "house", "house", "house"]
    assert table["label"].tolist() == ["unsafe", "safe", "safe", "safe", "safe"]
    counts = overview.summary(table).to_dict("index")
    assert counts["mine"] == {
        **{"rows": 4, "pictures": 3, "pairs": 2, "policies": 2, "unsafe": 25.0, "usable": 75.0}
    }
    assert counts["more"]["usable"] == 100


def test_without_real_data_every_table_is_empty():
    table = overview.rows({})
    assert list(table) == overview.COLUMNS
    assert overview.summary(table).empty and overview.leaks({}).empty
    assert pd.crosstab([table["set"], table["category"]], table["status"]).empty


def copy(image, side, quality):
    file = io.BytesIO()
    image.resize((side, side)).save(file, format="JPEG", quality=quality)
    return PIL.Image.open(file).convert("RGB")


def test_a_planted_copy_is_found_and_nothing_else():
    """A training picture stands in a test set: smaller, and compressed anew."""
    train = made([scene(seed) for seed in (10, 11, 12)], split="train")
    test = made([scene(13), copy(scene(11), 150, 60), scene(14)])
    leaks = overview.leaks({"train": train, "other": test})
    assert leaks.drop(columns="distance").values.tolist() == [["train", "b", "other", "b"]]
    assert overview.leaks({"test only": test}).empty


def test_equal_pictures_with_two_labels_under_one_policy_are_named():
    images, policies = [scene(0), scene(1), scene(0)], [HOUSE, HOUSE, LAW]
    one = made(images, policies=policies, labels=["unsafe", "safe", "safe"])
    assert overview.conflicts({"one": one}).empty and overview.conflicts({}).empty
    two = made([scene(0), scene(1)])
    found = overview.conflicts({"one": one, "two": two}).values.tolist()
    assert found == [["one", "a", "house", "unsafe"], ["two", "a", "house", "safe"]]


def test_different_scenes_are_far_apart():
    hashes = [overview.perceptual_hash(scene(seed)) for seed in range(12)]
    distances = [(a != b).sum() for i, a in enumerate(hashes) for b in hashes[:i]]
    assert min(distances) > overview.NEAR
    turned = overview.perceptual_hash(scene(0).rotate(90))
    assert (turned != hashes[0]).sum() > overview.NEAR


def test_the_gallery_is_small_and_blurred(mine):
    blurred, plain = (overview.gallery({"mine": mine}, blur) for blur in (True, False))
    assert [picture["title"] for picture in blurred] == ["mine: a", "mine: a2"]
    edges = [np.abs(np.diff(np.asarray(p[0]["image"], float), axis=1)) for p in (blurred, plain)]
    assert edges[0].max() < 0.2 * edges[1].max()
    assert max(blurred[0]["image"].size) == overview.SIDE


def test_usable_rows_and_some_pairs(mine):
    assert store.usable(mine)["id"] == ["a", "a", "a2"]
    assert store.some_pairs(mine, 1)["id"] == ["a", "a", "a2"]
    assert store.some_pairs(mine, 0)["id"] == mine["id"]
    scenes = drawn.following(0, 2)
    assert store.usable(scenes) is scenes


@pytest.fixture(scope="module")
def bench():
    return safeeditbench(0, per_category=1)


def test_pairs_of_a_drawn_set_are_spread_as_its_rows_are(bench):
    rows = bench.select(store.even_indices(len(bench), 2 * 5, group=2))
    assert store.some_pairs(bench, 5)["id"] == rows["id"]


def test_real_data_is_asked_about_under_its_own_policies(mine):
    cases = cases_of(store.usable(mine))
    assert cases.distinct() == [HOUSE, LAW] and cases.policies == [HOUSE, LAW, HOUSE]
    assert cases.table.values.tolist() == [
        ["a", "a", "house", "unsafe"],
        ["a", "a", "law", "safe"],
        ["a2", "a", "house", "safe"],
    ]
    requests = cases.with_pictures(store.samples(store.usable(mine)))
    assert [(sample.id, policy) for sample, policy in requests] == [
        *(("a", HOUSE), ("a", LAW), ("a2", HOUSE))
    ]
    assert cases_of(mine, ["law"]).table["id"].tolist() == ["a"]
    with pytest.raises(InputError, match="no policy 'hose' in this data set; did you mean house?"):
        cases_of(mine, ["hose"])


def test_an_edited_policy_is_judged_on_the_same_pictures(mine, tmp_path):
    edited, other = tmp_path / "house.md", tmp_path / "other.md"
    edited.write_text("# House, second version\n\nNew rules.\n")
    other.write_text("Other rules.")
    cases = cases_of(store.usable(mine), [str(edited)])
    assert [p.text.strip() for p in cases.policies] == ["New rules."] * 2
    assert cases.table["label"].tolist() == ["unsafe", "safe"]  # as they were given
    with pytest.raises(InputError, match="no policy 'other' .*an edited policy keeps its `name`"):
        cases_of(mine, [str(other)])


def test_two_pictures_of_one_id_are_refused_wherever_they_come_from():
    with pytest.raises(InputError, match="made, rows 0 and 2: two pictures share the id x"):
        made([scene(0), scene(1), scene(2)], ids=["x", "y", "x"], policies=[HOUSE, HOUSE, LAW])
    same = made([scene(0), scene(1), scene(0)], ids=["x", "y", "x"], policies=[HOUSE, HOUSE, LAW])
    assert same["id"] == ["x", "y", "x"]


def test_policies_of_one_name_are_told_apart_by_their_text():
    other = HOUSE.model_copy(update={"text": "Other rules."})
    rows = made([scene(0), scene(1)], ids=["x", "x_v2"], policies=[HOUSE, other])
    cases = cases_of(rows)
    assert cases.distinct() == [HOUSE, other]
    requests = cases.with_pictures(store.samples(rows))
    assert [(s.id, policy) for s, policy in requests] == [("x", HOUSE), ("x_v2", other)]


def test_drawn_data_is_asked_about_under_the_levels(bench):
    cases = cases_of(bench.select([0, 1]))
    assert [policy.name for policy in cases.distinct()] == ["L1", "L2", "L3", "L4", "L5"]
    assert [p.name for p in cases.policies] == cases.table["policy"].tolist()
    requests = list(cases.with_pictures(store.samples(bench.select([0, 1]))))
    assert [policy for _, policy in requests] == 2 * cases.distinct()
    assert len({sample.id for sample, _ in requests}) == 2


def test_names_of_sources_are_names_of_files_and_of_no_drawn_set():
    spec = {"kind": "folder", "path": ".", "labels": "labels.csv", "policies": ["L1"]}
    with pytest.raises(InputError) as caught:
        load_sources({"safeeditbench": spec, "../mine": spec})
    assert caught.value.problems == [
        "sources: safeeditbench: the drawn set has this name",
        "sources: '../mine': a name is made of letters, digits, - and _",
    ]


def test_published_pairs_are_whole_small_and_blurred(mine):
    assert [view["title"] for view in overview.published_pairs(mine)] == ["a"]
    (view,) = overview.published_pairs(mine, blur=False)
    assert set(view) == {"unsafe", "safe", "title"} and max(view["unsafe"].size) == 192
    assert np.asarray(view["unsafe"]).tolist() == np.asarray(scene(0).resize((192, 192))).tolist()
    assert overview.published_pairs(made([scene(0)])) == []


def test_one_picture_under_policies_of_opposite_labels_is_found(mine):
    """a and a2 have one pair and other pixels; a alone has both labels."""
    found = overview.opposites({"one": made([scene(3)]), "mine": mine})
    assert found["id"] == ["a", "a"] and store.labels(found) == ["unsafe", "safe"]
    assert overview.opposites({"mine": mine.select([0, 2, 3])}) is None
    drawn_rows = drawn.following(0, 2)
    assert overview.opposites({"drawn": drawn_rows})["id"] == drawn_rows["id"][:2]


def test_pictures_without_labels_are_counted_too():
    bare = made([scene(0), scene(0)], split="train", policies=None, labels=None)
    table = overview.rows({"bare": bare, "other": made([scene(0)])})
    assert table["label"].tolist() == [None, None, "safe"]
    counts = overview.summary(table).loc["bare"]
    assert counts["rows"] == 2 and counts["policies"] == 0 and np.isnan(counts["unsafe"])
    tables = overview.tables({"bare": bare, "other": made([scene(0)])}, {})
    assert len(tables["Training pictures that are also in another split"]) == 2


def test_one_question_of_each_drawn_task_and_each_published_set():
    published = Dataset.from_list(
        [{"category": str(k), "question": "?", "answer": "A"} for k in range(3)]
    )
    table = overview.first_questions(drawn.general(0, 2), {"mmmu": published})
    tasks = ["presence", "counting", "place", "choice"]
    assert table["category"].tolist() == [*tasks, "0"]
    assert overview.first_questions(None, {}).empty
