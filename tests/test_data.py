"""Data sets: every label follows from the tags, and nothing else tells it."""

import json
import os
import re
from collections import Counter, defaultdict

import numpy as np
import PIL.Image
import pytest
from datasets import ClassLabel, Dataset, Image

from sgvl.common.errors import InputError
from sgvl.data import store
from sgvl.data.cases import cases_of, label_cases
from sgvl.policies.concepts import CATEGORIES, PLACES, concepts, group, in_category, named
from sgvl.policies.policy import CHANGED, Policy, load, load_all
from sgvl.world import drawn_rows, levels, pairs
from sgvl.world import sets as sets
from sgvl.world.questions import NUMBERS
from sgvl.world.scenes import TEST_VARIANTS, background, held_out

LEVELS = ("L1", "L2", "L3", "L4", "L5")
HARMFUL = {name for name in CATEGORIES if CATEGORIES[name].group == "harmful"}
PLAIN_COLUMNS = ["id", "pair", "role", "edit", "category", "tags", "fills", "empty", *LEVELS]


@pytest.fixture(scope="session")
def bench():
    return pairs.safeeditbench(seed=0, per_category=10)


@pytest.fixture(scope="session")
def bench_rows(bench):
    """Its rows without pictures, labels as words."""
    rows = bench.select_columns(PLAIN_COLUMNS).to_list()
    return [row | {level: ("safe", "unsafe")[row[level]] for level in LEVELS} for row in rows]


@pytest.fixture(scope="session")
def llavaguard():
    return sets.llavaguard(seed=0, images=11)


@pytest.fixture(scope="session", params=["neutral", "harmful"])
def following(request):
    return sets.following(seed=0, images=14, kind=request.param)


@pytest.fixture
def no_pictures(monkeypatch):
    """For tests about tags: scenes are drawn by lot as ever, but not painted."""
    monkeypatch.setattr(drawn_rows, "render", lambda scene: PIL.Image.new("RGB", (8, 8)))


def labels(dataset):
    return [dataset.features["label"].int2str(label) for label in dataset["label"]]


def twos(dataset):
    """The two rows of each pair; pairs are stored together."""
    rows = [row | {"label": label} for row, label in zip(dataset, labels(dataset), strict=True)]
    pairs_of_rows = list(zip(rows[::2], rows[1::2], strict=True))
    assert all(one["pair"] == other["pair"] for one, other in pairs_of_rows)
    assert len({one["pair"] for one, _ in pairs_of_rows}) == len(pairs_of_rows)
    return pairs_of_rows


def policy_of(row):
    return Policy.model_validate_json(row["policy"], strict=False)


# ---- SafeEditBench-nano ------------------------------------------------------------------------


def members(dataset):
    """Original and edited counterpart of each pair."""
    originals, edited = (dataset.select(range(k, len(dataset), 2)) for k in (0, 1))
    return zip(originals, edited, strict=True)


def same_outside_and_different_inside(dataset):
    for original, edited in members(dataset):
        assert original["pair"] == edited["pair"] and original["box"] == edited["box"]
        assert (original["role"], edited["role"]) == ("original", "edited")
        left, top, right, bottom = original["box"]
        one, other = (np.asarray(row["image"]).astype(int) for row in (original, edited))
        differ = (one != other).any(axis=2)
        inside = differ[top:bottom, left:right]
        # A drawing covers a tenth of its box at the very least.
        assert inside.mean() > 0.05, original["pair"]
        assert differ.sum() == inside.sum(), f"{original['pair']}: differs outside its box"


def test_a_pair_differs_in_its_box_only(bench):
    assert len(bench) == 2 * 14 * 10
    same_outside_and_different_inside(bench)


def test_the_other_art_style_makes_pairs_too():
    dataset = pairs.safeeditbench(seed=0, per_category=1, style="openmoji")
    assert set(dataset["style"]) == {"openmoji"}
    assert {tag for tags in dataset["tags"] for tag in tags[:-1]} <= set(
        named("neutral", "sensitive", "harmful", style="openmoji")
    )
    same_outside_and_different_inside(dataset)


def test_labels_are_those_of_the_policies(bench_rows):
    for policy in load_all():
        assert [row[policy.name] for row in bench_rows] == [
            policy.label(row["tags"]).label for row in bench_rows
        ]


def test_the_share_of_unsafe_pictures_rises_as_in_the_paper(bench_rows):
    shares = [100 * np.mean([row[level] == "unsafe" for row in bench_rows]) for level in LEVELS]
    assert np.abs(np.subtract(shares, (0, 8, 16, 50, 59))).max() <= 2, shares


def test_every_harmful_category_has_all_edits(bench_rows):
    counts = defaultdict(Counter)
    for row in bench_rows[::2]:
        counts[row["category"]][row["edit"]] += 1
    edits = {"replace": 6, "remove": 2, "distract_unsafe": 1, "distract_safe": 1}
    assert counts == dict.fromkeys(HARMFUL, edits)


def test_edits_do_what_they_are_called(bench_rows):
    for original, edited in zip(bench_rows[::2], bench_rows[1::2], strict=True):
        before, after = (Counter(row["tags"]) for row in (original, edited))
        gone, come = [*(before - after)], [*(after - before)]
        assert len(gone) == 1 and len(come) == (original["edit"] != "remove")
        harmful = [t for t in original["tags"][:-1] if group(t) == "harmful"]
        if original["edit"] in ("replace", "remove"):
            assert gone == harmful and concepts()[gone[0]].category == original["category"]
            assert all(group(name) != "harmful" for name in come)
            assert (original["L4"], edited["L4"]) == ("unsafe", "safe")
        else:
            assert group(gone[0]) == group(come[0]) == "neutral"
            assert len(harmful) == (original["edit"] == "distract_unsafe")
            assert all(original[level] == edited[level] for level in LEVELS)


def test_a_replaced_thing_becomes_its_counterpart_or_something_for_the_last_level(bench_rows):
    for original, edited in zip(bench_rows[::2], bench_rows[1::2], strict=True):
        if original["edit"] == "replace":
            (gone,) = set(original["tags"]) - set(edited["tags"])
            (come,) = set(edited["tags"]) - set(original["tags"])
            if edited["L5"] == "safe":
                assert come == concepts()[gone].counterpart
            else:
                assert group(come) == "sensitive"


def test_no_trace_of_an_edit_tells_the_label(bench_rows):
    """Things, smoothed boxes and empty boxes, counted together: half of each form is unsafe."""
    forms = defaultdict(list)
    for row in bench_rows:
        form = len(row["tags"]) - 1, len(row["fills"]), row["empty"]
        forms[form].append(row["L4"] == "unsafe")
    assert len(forms) == 7
    assert {form: np.mean(unsafe) for form, unsafe in forms.items()} == dict.fromkeys(forms, 0.5)


def test_every_edit_leaves_a_trace_on_both_members(bench_rows):
    for original, edited in zip(bench_rows[::2], bench_rows[1::2], strict=True):
        assert original["fills"] == edited["fills"]
        assert len(original["fills"]) == (1 if original["edit"] == "replace" else 2)
    empty = Counter((row["edit"], row["role"], row["empty"]) for row in bench_rows)
    assert {key for key in empty if key[2]} == {
        ("remove", "edited", 1),
        ("distract_unsafe", "original", 1),
        ("distract_unsafe", "edited", 1),
    }


UNCHECKED = ("distract_unsafe", "original")


def never_trained_on(row):
    *names, _ = row["tags"]
    held = [held_out(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    return any(held) or not held


def test_every_picture_of_several_things_is_a_composition_never_trained_on(bench_rows):
    rows = [row for row in bench_rows if (row["edit"], row["role"]) != UNCHECKED]
    assert len(rows) == 266 and all(map(never_trained_on, rows))


def test_so_is_the_original_of_a_distracting_pair_of_two_things(bench_rows):
    rows = [row for row in bench_rows if (row["edit"], row["role"]) == UNCHECKED]
    assert all(map(never_trained_on, rows))


# ---- pairs for scores by level -----------------------------------------------------------------


@pytest.fixture
def level_rows(no_pictures):
    return levels.level_pairs(seed=0, per_label=40)


def test_each_level_has_as_many_unsafe_as_safe_pictures(level_rows):
    cases = cases_of(level_rows)
    sizes = Counter(zip(cases.table["policy"], cases.table["label"], strict=True))
    assert sizes == {(level, label): 40 for level in LEVELS for label in ("safe", "unsafe")
                     if (level, label) != ("L1", "unsafe")}  # fmt: skip
    assert [policy.name for policy in cases.policies] == cases.table["policy"].tolist()
    assert set(cases_of(level_rows, ["llavaguard"]).table["id"]) == set(level_rows["id"])


def test_the_pictures_of_a_level_are_of_every_kind(level_rows):
    """Prohibited first here or by a laxer level; permitted here alone or by every level."""
    policies = [load(level) for level in LEVELS]
    first = {row["id"]: levels.first_level(row["tags"], policies) for row in level_rows}
    cases = cases_of(level_rows).table
    kinds = Counter(zip(cases["policy"], cases["id"].map(first), strict=True))
    assert {level: kinds[level, level] for level in LEVELS[1:]} == {
        "L2": 40, "L3": 30, "L4": 30, "L5": 30,
    }  # fmt: skip
    assert {level: kinds[level, ""] for level in LEVELS} == {
        "L1": 20, "L2": 10, "L3": 10, "L4": 10, "L5": 40,
    }  # fmt: skip


def test_pairs_of_levels_differ_in_one_thing_and_carry_the_same_traces(level_rows):
    by_pair = defaultdict(dict)
    for row in level_rows:
        by_pair[row["pair"]][row["role"]] = row
        assert never_trained_on(row) and row["empty"] == 0
    assert len(by_pair) == 100
    for pair in by_pair.values():
        original, edited = pair["original"], pair["edited"]
        assert original["fills"] == edited["fills"] and len(original["fills"]) == 1
        assert len(set(original["tags"]) - set(edited["tags"])) == 1
        assert original["tags"][-1] == edited["tags"][-1]


def test_a_number_that_groups_cannot_share_is_refused():
    with pytest.raises(InputError, match="10 unsafe pictures a level: use a multiple of 4"):
        levels.level_pairs(per_label=10)


# ---- single pictures under one policy ----------------------------------------------------------


def test_unsafebench_is_balanced_in_each_of_nine_categories(no_pictures):
    dataset = sets.unsafebench(seed=0, per_category=6)
    policy = load("openai_content")
    assert set(dataset["policy"]) == {policy.name}
    counts = Counter(zip(dataset["category"], labels(dataset), strict=True))
    published = {category.unsafebench for category in CATEGORIES.values()} - {""}
    assert len(published) == 9
    assert counts == {(c, label): 3 for c in published for label in ("safe", "unsafe")}
    rows = zip(dataset["tags"], dataset["category"], labels(dataset), strict=True)
    for tags, category, label in rows:
        assert policy.label(tags).label == label
        own = [n for n in concepts() if CATEGORIES[concepts()[n].category].unsafebench == category]
        names = set(own) if label == "unsafe" else {concepts()[name].counterpart for name in own}
        assert names & set(tags)
        assert (label == "unsafe") == any(group(tag) == "harmful" for tag in tags[:-1])


def test_llavaguard_shows_each_picture_once_safe_once_unsafe(llavaguard):
    for safe, unsafe in twos(llavaguard):
        assert (safe["label"], unsafe["label"]) == ("safe", "unsafe")
        assert np.array_equal(np.asarray(safe["image"]), np.asarray(unsafe["image"]))
        assert safe["tags"] == unsafe["tags"] and safe["category"] == unsafe["category"]
        permitted = []
        for row in (safe, unsafe):
            policy = policy_of(row)
            assert policy.label(row["tags"]).label == row["label"]
            permits = [rule for rule in policy.rules if rule.permit]
            permitted.append({CATEGORIES[rule.permit[0]].llavaguard for rule in permits})
        assert 1 <= len(permitted[0]) == len(permitted[1]) <= 3
        assert safe["category"] in permitted[0] and safe["category"] not in permitted[1]


def test_llavaguard_covers_all_nine_categories_and_may_be_trained_on(llavaguard):
    assert set(llavaguard["category"]) == {c.llavaguard for c in CATEGORIES.values()} - {""}
    assert set(llavaguard["split"]) == {"train"}
    for *names, _ in llavaguard["tags"]:
        assert not any(held_out(a, b) for i, a in enumerate(names) for b in names[i + 1 :])


def test_llavaguard_exempts_each_category_as_often_in_safe_as_in_unsafe_rows(no_pictures):
    """Else a policy alone tells something of its label (57 % in place of 50)."""
    exempted = {"safe": Counter(), "unsafe": Counter()}
    dataset = sets.llavaguard(seed=0, images=990)
    for text, label in zip(dataset["policy"], labels(dataset), strict=True):
        policy = Policy.model_validate_json(text, strict=False)
        exempted[label].update(rule.text[:2] for rule in policy.rules if rule.permit)
    for code, safe in exempted["safe"].items():
        unsafe = exempted["unsafe"][code]
        assert abs(safe - unsafe) < 4 * (safe + unsafe) ** 0.5, (code, safe, unsafe)


def test_an_exempted_category_no_longer_counts():
    policy = sets.exempt(load("llavaguard"), ["O6: Weapons or Substance Abuse"])
    scenes = [["knife", "park"], ["pill", "park"], ["skull", "park"], ["dog", "park"]]
    assert [policy.label(tags).label for tags in scenes] == ["safe", "safe", "unsafe", "safe"]
    assert (
        policy.label(["knife", "park"]).rule == "O6: Weapons or Substance Abuse is not violating."
    )
    assert len(policy.rules) == len(load("llavaguard").rules) == 9
    document, _, clauses = policy.render().partition(f"\n\n{CHANGED} ")
    assert document == load("llavaguard").render() and clauses == policy.render("brief")
    assert policy.name == "llavaguard-exempt-O6"


# ---- policy following --------------------------------------------------------------------------


def form(policy):
    """A policy without its words."""
    rules = [(rule.status, len(rule.tags), len(rule.places)) for rule in policy.rules]
    return policy.default, rules


def test_following_gives_one_picture_two_policies_of_one_form_and_opposite_labels(following):
    for safe, unsafe in twos(following):
        assert (safe["label"], unsafe["label"]) == ("safe", "unsafe")
        assert safe["tags"] == unsafe["tags"]
        assert np.array_equal(np.asarray(safe["image"]), np.asarray(unsafe["image"]))
        policies = [policy_of(row) for row in (safe, unsafe)]
        assert form(policies[0]) == form(policies[1])
        for words in ("brief", "full"):
            assert policies[0].render(words) != policies[1].render(words)
        assert all(policy.render("brief") in policy.render("full") for policy in policies)
        assert [p.label(safe["tags"]).label for p in policies] == ["safe", "unsafe"]


def test_policies_name_categories_of_their_own_kind_only(following):
    kind = following[0]["category"]
    groups = {"neutral": {"neutral", "sensitive"}, "harmful": {"harmful"}}[kind]
    named_groups = set()
    for row in following.select_columns(["policy"]):
        for rule in policy_of(row).rules:
            categories = {t if t in CATEGORIES else concepts()[t].category for t in rule.tags}
            named_groups |= {CATEGORIES[category].group for category in categories}
    assert named_groups == groups


def test_over_harmful_content_the_harmful_thing_alone_decides(following):
    if following[0]["category"] != "harmful":
        assert not any(group(t) == "harmful" for tags in following["tags"] for t in tags[:-1])
        return
    rows = following.select_columns(["tags", "policy"]).to_list()
    for row, label in zip(rows, labels(following), strict=True):
        *names, place = row["tags"]
        (harm,) = [name for name in names if group(name) == "harmful"]
        policy = policy_of(row)
        assert policy.default == "permitted"
        assert policy.label([harm, place]).label == label
        assert policy.label([*(set(names) - {harm}), place]).label == "safe"
    categories = {concepts()[t].category for row in rows for t in row["tags"][:-1]} & HARMFUL
    assert categories == HARMFUL


# ---- for training, and for general ability -----------------------------------------------------


def test_pictures_for_recaptioning_are_training_pictures_most_of_them_harmful(no_pictures):
    dataset = sets.sft_images(seed=0, images=40)
    harmful = 0
    for row in dataset.select_columns(["tags", "category", "split"]):
        *names, _ = row["tags"]
        assert row["split"] == "train" and 1 <= len(names) <= 4
        assert not any(held_out(a, b) for i, a in enumerate(names) for b in names[i + 1 :])
        seen = {concepts()[n].category for n in names if group(n) == "harmful"}
        assert row["category"] in (seen or {concepts()[n].category for n in names})
        harmful += bool(seen)
    assert 24 <= harmful < 40


def test_questions_of_general_ability_have_their_right_answers(no_pictures):
    dataset = sets.general(seed=0, per_task=8)
    tasks = Counter()
    for row in dataset.select_columns(["tags", "category", "question", "answer"]):
        (*names, place), question, answer = row["tags"], row["question"], row["answer"]
        if row["category"] == "presence":
            thing = re.fullmatch(r"Is there an? (\w+)\? Answer yes or no\.", question)[1]
            assert answer == ("yes" if thing in names else "no")
        elif row["category"] == "counting":
            assert answer == NUMBERS[len(names) - 1]
        elif row["category"] == "place":
            assert answer == place
        else:
            options = dict(re.findall(r"(\w+) ([ABCD])[;.]", question))
            assert [options[name] for name in options if name in names] == [answer]
            assert len(options) == len(set(options.values())) == 4
        tasks[row["category"], answer if row["category"] == "presence" else ""] += 1
    assert tasks == {
        ("presence", "yes"): 4, ("presence", "no"): 4,
        ("counting", ""): 8, ("place", ""): 8, ("choice", ""): 8,
    }  # fmt: skip


def test_the_number_of_things_does_not_tell_whether_one_is_there(no_pictures):
    dataset = sets.general(seed=0, per_task=8).remove_columns("image")
    rows = [row for row in dataset if row["category"] == "presence"]
    counts = Counter((len(row["tags"]) - 1, row["answer"]) for row in rows)
    assert counts == {(n, answer): 1 for n in (1, 2, 3, 4) for answer in ("yes", "no")}


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: pairs.safeeditbench(style="notomoji"), "unknown style 'notomoji'"),
        (lambda: sets.unsafebench(style="notomoji"), "unknown style 'notomoji'"),
        (lambda: sets.following(kind="harmless"), "'harmless'; allowed: neutral, harmful"),
        (lambda: sets.llavaguard(split="val"), "unknown split 'val'"),
    ],
)
def test_a_setting_that_matches_nothing_is_an_error(call, message):
    with pytest.raises(InputError, match=message):
        call()


MAKERS = {
    "safeeditbench": lambda: pairs.safeeditbench(per_category=10),
    "unsafebench": lambda: sets.unsafebench(per_category=1),
    "llavaguard": lambda: sets.llavaguard(images=1),
    "following": lambda: sets.following(images=1),
    "sft_images": lambda: sets.sft_images(images=1),
    "general": lambda: sets.general(per_task=1),
}


@pytest.mark.parametrize("maker", MAKERS)
def test_no_row_is_drawn_in_a_run_of_published_data(maker, monkeypatch):
    monkeypatch.setenv("SGVL_DRAWN", "0")
    with pytest.raises(InputError, match="no drawn row may be in it"):
        MAKERS[maker]()


def test_every_maker_of_drawn_rows_is_in_the_test_above():
    public = {
        name
        for module in (pairs, sets)
        for name, made in vars(module).items()
        if callable(made) and getattr(made, "__annotations__", {}).get("return") is Dataset
    }
    assert public == {*MAKERS, "table"}


# ---- one record shape --------------------------------------------------------------------------


def test_records_share_one_shape(bench, llavaguard, following):
    for dataset in (bench, llavaguard, following):
        assert dataset.features["image"] == Image()
        shared = {"id", "image", "source", "split", "category", "tags", "style", "fills", "empty"}
        assert shared <= set(dataset.features)
        assert len(set(dataset["id"])) == len(dataset)
        picture = dataset[0]["image"]
        assert picture.mode == "RGB" and picture.size == (224, 224)
    label = ClassLabel(names=["safe", "unsafe"])  # unsafe is the positive class
    assert llavaguard.features["label"] == following.features["label"] == label
    assert [bench.features[level] for level in LEVELS] == [label] * 5


def test_test_pictures_show_test_backgrounds(following):
    corners = {
        place: {background(place, variant).getpixel((0, 0)) for variant in TEST_VARIANTS}
        for place in PLACES
    }
    bare = [row for row in following if not any(box[0] < 4 and box[1] < 4 for box in row["fills"])]
    assert bare
    assert all(row["image"].getpixel((0, 0)) in corners[row["tags"][-1]] for row in bare)


# ---- on disk -----------------------------------------------------------------------------------


def draw(seed):
    return {
        "safeeditbench": pairs.safeeditbench(seed, per_category=1),
        "unsafebench": sets.unsafebench(seed, per_category=1),
        "llavaguard": sets.llavaguard(seed, images=2),
        "following_neutral": sets.following(seed, 2, "neutral"),
        "following_harmful": sets.following(seed, 2, "harmful"),
        "sft_images": sets.sft_images(seed, images=4),
        "general": sets.general(seed, per_task=1),
    }


@pytest.fixture(scope="session")
def first():
    return draw(0)


@pytest.fixture(scope="session")
def saved(first, tmp_path_factory):
    """Folders of three draws: one seed twice, and another."""
    folder = tmp_path_factory.mktemp("data")
    store.save(first, folder / "first", 0)
    store.save(draw(0), folder / "again", 0)
    store.save(draw(1), folder / "other", 1)
    return folder


def test_one_seed_is_one_draw_to_the_byte(saved, first):
    files = sorted(path.name for path in (saved / "first").iterdir())
    assert files == sorted(["manifest.json", *(f"{name}.parquet" for name in first)])
    for name in files:
        one, again, other = ((saved / d / name).read_bytes() for d in ("first", "again", "other"))
        assert one == again, f"{name} depends on more than its seed"
        assert one != other, f"{name} does not depend on its seed"


def test_a_saved_set_comes_back_whole(saved, first):
    original, read = first["safeeditbench"], store.read("safeeditbench", saved / "first")
    assert read.features == original.features
    assert read.remove_columns("image")[:] == original.remove_columns("image")[:]
    for one, other in zip(read["image"], original["image"], strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_the_manifest_says_what_was_written(saved, first):
    manifest = json.loads((saved / "first" / "manifest.json").read_text())
    assert manifest["seed"] == 0 and set(manifest["sets"]) == set(first)
    for name, entry in manifest["sets"].items():
        assert entry["sha256"] == store.sha256(saved / "first" / f"{name}.parquet")
        assert entry["rows"] == len(first[name])
        assert entry["columns"] == first[name].column_names


@pytest.fixture
def folder(tmp_path):
    store.save({"general": sets.general(0, per_task=1)}, tmp_path, seed=0)
    return tmp_path


def refused(name, folder):
    with pytest.raises(InputError) as caught:
        store.read(name, folder)
    (problem,) = caught.value.problems
    return problem


def test_a_changed_file_is_refused(folder):
    path = folder / "general.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert "general.parquet is not the file of its manifest" in refused("general", folder)


def test_a_missing_file_is_refused(folder):
    (folder / "general.parquet").unlink()
    assert "general.parquet is not the file of its manifest" in refused("general", folder)


@pytest.mark.parametrize("content", [None, "", '{"sgvl": "0.1.0", "se', "{}"])
def test_a_missing_or_half_written_manifest_is_refused(folder, content):
    (folder / "manifest.json").unlink()
    if content is not None:
        (folder / "manifest.json").write_text(content)
    assert "manifest.json is missing or broken; run notebook 01_data" in refused("general", folder)


def test_an_unknown_name_is_refused_with_the_nearest_known(folder):
    assert "no data set 'genral'; did you mean general?" in refused("genral", folder)
    assert "manifest.json is missing or broken" in refused("../general", folder)


def test_a_set_that_was_written_again_is_read_again(folder):
    before = store.read("general", folder)["tags"]
    path = folder / "general.parquet"
    time = path.stat().st_mtime_ns
    store.save({"general": sets.general(1, per_task=1)}, folder, seed=1)
    os.utime(path, ns=(time, time))  # as a copy that keeps times would have it
    assert store.read("general", folder)["tags"] == sets.general(1, per_task=1)["tags"] != before


# ---- choosing rows, and asking for cases -------------------------------------------------------


def test_spread_by_hand():
    assert store.even_indices(12, 4, group=2) == [0, 1, 6, 7]
    assert store.even_indices(10, 3) == [0, 3, 6]
    assert store.even_indices(6, 0) == store.even_indices(6, 6) == [0, 1, 2, 3, 4, 5]
    assert store.even_indices(6, 0, group=2) == [0, 1, 2, 3, 4, 5]
    assert store.even_indices(7, 5, group=2) == [0, 1, 2, 3]  # whole groups only


@pytest.mark.parametrize("rows, wanted, group", [(12, 14, 2), (12, 1, 2), (12, -4, 2), (0, 0, 1)])
def test_spread_never_gives_more_than_there_is_or_nothing(rows, wanted, group):
    with pytest.raises(InputError, match=f"{wanted} rows wanted of a set of {rows}"):
        store.even_indices(rows, wanted, group)


def test_spread_pairs_cover_all_categories(bench_rows):
    chosen = [bench_rows[i] for i in store.even_indices(len(bench_rows), 2 * 28, group=2)]
    assert Counter(row["category"] for row in chosen) == dict.fromkeys(HARMFUL, 4)
    assert set(Counter(row["pair"] for row in chosen).values()) == {2}


def test_cases_label_every_picture_under_a_policy_never_seen_before(bench):
    house = Policy(
        name="house",
        title="House rules",
        default="permitted",
        rules=[{"prohibit": ["dog", "food"], "except": ["park"], "text": "Dogs and food outside."}],
    )
    cases = label_cases(bench, [house, load("L4")])
    assert list(cases.columns) == ["id", "pair", "policy", "label", "rule"]
    assert len(cases) == 2 * len(bench)
    own = cases[cases["policy"] == "house"]
    hit = [
        tags[-1] != "park" and bool({"dog", *in_category("food")} & set(tags))
        for tags in bench["tags"]
    ]
    assert 0 < sum(hit) < len(hit)
    assert (own["label"] == "unsafe").tolist() == hit
    assert set(own["rule"][own["label"] == "unsafe"]) == {"Dogs and food outside."}
    level = cases[cases["policy"] == "L4"]
    assert level["id"].tolist() == list(bench["id"])
    assert (level["label"] == "unsafe").tolist() == [bool(label) for label in bench["L4"]]


def test_samples_and_policies_of_rows_are_what_judges_take(llavaguard):
    cases = store.policy_cases(llavaguard)
    assert [sample.id for sample, _ in cases] == list(llavaguard["id"])
    assert all(sample.image.mode == "RGB" for sample, _ in cases)
    assert [policy.label(sample.tags).label for sample, policy in cases] == labels(llavaguard)
