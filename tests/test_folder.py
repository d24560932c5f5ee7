"""Pictures of one's own: a folder and a file of labels, from disk to the record shape."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from sgvl.common import paths
from sgvl.common.errors import InputError
from sgvl.data import real_rows, store
from sgvl.data.sources.registry import load_source
from sgvl.world.scenes import render, sample_scene


@pytest.fixture
def folder(tmp_path):
    """Three pictures in three formats, two policies of text alone."""
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for path, name in {"a.jpg": "knife", "sub/b b.png": "dog", "ç.webp": "tree"}.items():
        render(sample_scene(rng, "test", [name])).save(tmp_path / "photos" / path)
    for name in ("house", "law"):
        (tmp_path / f"{name}.md").write_text(f"---\nname: {name}\ntitle: The {name}\n---\nRules.\n")
    return tmp_path


def spec(folder, content, name="labels.csv", policies=("house",)):
    (folder / name).write_text(content, encoding="utf-8")
    files = [str(folder / f"{policy}.md") for policy in policies]
    return {
        "kind": "folder",
        "path": str(folder / "photos"),
        "labels": str(folder / name),
        "policies": files,
    }


def test_a_csv_of_two_columns_will_do(folder):
    rows = load_source(spec(folder, "image,label\na.jpg,unsafe\nsub/b b.png,safe\nç.webp,safe\n"))
    assert list(rows.features) == list(real_rows.FEATURES)
    assert rows["id"] == rows["pair"] == ["a.jpg", "sub/b b.png", "ç.webp"]
    assert store.labels(rows) == ["unsafe", "safe", "safe"]
    assert set(rows["split"]) == {"test"} and set(rows["source"]) == {"photos"}
    assert [policy.render() for policy in store.policies(rows)] == ["The house\n\nRules."] * 3
    assert set(rows["status"]) == {"ok"}
    images = {sample.id: sample.image for sample in store.samples(rows)}
    assert images["sub/b b.png"] == PIL.Image.open(folder / "photos/sub/b b.png").convert("RGB")


def test_a_relative_path_is_seen_from_here_or_from_the_checkout(folder, monkeypatch, tmp_path):
    (folder / "labels.csv").write_text("image,label\na.jpg,safe\n")
    relative = {"path": "photos", "labels": "labels.csv", "policies": ["house.md"]}
    monkeypatch.setattr(paths, "ROOT", folder)
    (tmp_path / "elsewhere").mkdir()
    for here in (folder, tmp_path / "elsewhere"):
        monkeypatch.chdir(here)
        assert load_source({"kind": "folder", **relative})["id"] == ["a.jpg"]


def test_every_column_of_json_lines(folder):
    full = {"id": "7", "image": "a.jpg", "label": "safe", "policy": "law", "pair": "p1"}
    lines = [
        full | {"category": "knives", "split": "train"},
        {"image": "a.jpg", "label": "unsafe", "policy": "house"},
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    rows = load_source(spec(folder, content, "labels.jsonl", ("house", "law")))
    columns = ("id", "pair", "category", "split")
    assert [tuple(row[name] for name in columns) for row in rows] == [
        ("7", "p1", "knives", "train"),
        ("a.jpg", "a.jpg", "", "test"),
    ]
    assert [policy.name for policy in store.policies(rows)] == ["law", "house"]


def test_excels_csv_and_windows_lines(folder):
    rows = load_source(spec(folder, '\ufeffimage,label\r\n"a.jpg",safe\r\n'))
    assert rows["id"] == ["a.jpg"]


AS_PROGRAMS_WRITE = {
    "semicolons and capitals": ("Image;LABEL\na.jpg;safe\nsub/b b.png;unsafe\n", "labels.csv"),
    "tabs": ("image\tlabel\na.jpg\tsafe\nsub/b b.png\tunsafe\n", "labels.tsv"),
    "quotes": ('"image";"label"\n"a.jpg";"safe"\n"sub/b b.png";"unsafe"\n', "LABELS.CSV"),
    "a mark and rows of commas": (
        "\ufeffimage,label,\r\na.jpg,safe,\r\n,,\r\n\r\nsub/b b.png,unsafe,,\r\n,,\r\n",
        "labels.csv",
    ),
    "Windows paths": ("image,label\n.\\a.jpg,safe\nsub\\b b.png,unsafe\n", "labels.csv"),
    "paths from here": ("image,label\n./a.jpg,safe\n./sub//b b.png,unsafe\n", "labels.csv"),
    "nulls and blank lines": (
        (
            '\n{"image": "a.jpg", "label": "safe", "pair": null, "category": null, "split": null}\n'
            '{"Image": "sub/b b.png", "label": "unsafe", "policy": null, "id": null}\n\n  \n'
        ),
        "labels.jsonl",
    ),
}


@pytest.mark.parametrize("case", AS_PROGRAMS_WRITE)
def test_labels_as_programs_write_them(folder, case):
    content, name = AS_PROGRAMS_WRITE[case]
    rows = load_source(spec(folder, content, name))
    assert rows["id"] == rows["pair"] == ["a.jpg", "sub/b b.png"]
    assert store.labels(rows) == ["safe", "unsafe"]
    assert set(rows["split"]) == {"test"} and set(rows["category"]) == {""}


def test_excels_unicode_text_is_read(folder):
    right = spec(folder, "")
    text = "image\tlabel\r\nç.webp\tsafe\r\n"
    (folder / "labels.csv").write_bytes(text.encode("utf-16"))
    assert load_source(right)["id"] == ["ç.webp"]


def test_other_columns_are_passed_over_with_a_line(folder):
    with pytest.warns(UserWarning, match="labels.csv: columns passed over: comment, labelled by"):
        rows = load_source(spec(folder, "image,Comment,label,labelled by\na.jpg,x,safe,me\n"))
    assert rows["id"] == ["a.jpg"]


@pytest.mark.parametrize("split", ["Train", "TRAIN", " train ", "train"])
def test_a_split_is_found_by_other_spellings(folder, split):
    rows = load_source(spec(folder, f"image,label,split\na.jpg,safe,{split}\nç.webp,safe,Val\n"))
    assert rows["split"] == ["train", "val"]


def test_a_picture_that_may_not_be_read_keeps_its_row(folder, monkeypatch):
    right = spec(folder, "image,label\na.jpg,safe\nç.webp,unsafe\n")
    read = Path.read_bytes

    def closed(path):
        if path.name == "a.jpg":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", closed)
    rows = load_source(right)
    assert rows["status"] == ["image_decode", "ok"]
    assert store.usable(rows)["id"] == ["ç.webp"]


def test_one_picture_under_two_policies_is_two_rows_and_one_sample(folder):
    content = "image,label,policy\na.jpg,safe,law\na.jpg,unsafe,house\n"
    rows = load_source(spec(folder, content, policies=("house", "law")))
    assert [sample.id for sample in store.samples(rows)] == ["a.jpg"]
    cases = [(sample.id, policy.name) for sample, policy in store.policy_cases(rows)]
    assert cases == [("a.jpg", "law"), ("a.jpg", "house")]


def test_it_comes_back_from_disk_as_it_was(folder):
    rows = load_source(spec(folder, "image,label\na.jpg,unsafe\n"))
    store.save({"house": rows}, folder / "data", seed=0)
    again = store.read("house", folder / "data")
    assert again.features == rows.features and again[0] == rows[0]


WRONG = {
    "label spelt otherwise": (
        "image,label\na.jpg,unsave\n",
        ["line 2: label 'unsave'; allowed: safe, unsafe"],
    ),
    "no label": (
        "image,label\na.jpg,\n",
        ["line 2: label is empty; write safe or unsafe, or leave the row out"],
    ),
    "missing column": (
        "\nimage,lable\na.jpg,safe\n",
        ["line 2: no column 'label'; columns found: image, lable; needed: image, label"],
    ),
    "the tool's own table, without labels": (
        "picture;verdict;note\na.jpg;safe;\n",
        ["1: no column 'label'; columns found: picture, verdict, note; needed: image, label"],
    ),
    "neither column": (
        "file;urteil\na.jpg;safe\n",
        ["line 1: no column 'image' or 'label'; columns found: file, urteil; needed: image, label"],
    ),
    "unknown column": (
        "image,label,catgory\na.jpg,safe,x\n",
        ["line 1: no such column 'catgory'; did you mean category?"],
    ),
    "unknown policy": (
        "image,label,policy\na.jpg,safe,hause\n",
        ["line 2: policy 'hause'; allowed: house"],
    ),
    "no such picture": (
        "image,label\na.jpg,safe\nz.jpg,safe\n",
        ["line 3: z.jpg: no such file in"],
    ),
    "out of the folder": ("image,label\n../house.md,safe\n", ["line 2: ../house.md: not a plain"]),
    "a URL": ("image,label\nhttp://x/a.jpg,safe\n", ["http://x/a.jpg: a URL; pictures are read"]),
    "labelled twice": (
        "image,label\na.jpg,safe\na.jpg,unsafe\n",
        ["a.jpg is labelled twice under house"],
    ),
    "labelled twice by two paths": (
        "image,label,id\na.jpg,safe,1\nç.webp,safe,2\n./a.jpg,unsafe,3\nsame.jpg,safe,4\n",
        ["lines 2 and 4: ./a.jpg is labelled twice", "lines 2 and 5: same.jpg is labelled twice"],
    ),
    "two pictures of one id": (
        "image,label,id\na.jpg,safe,1\nsub/b b.png,unsafe,1\n",
        ["lines 2 and 3: a.jpg and sub/b b.png share the id 1"],
    ),
    "a column twice": (
        "image,label,Label\na.jpg,safe,unsafe\n",
        ["line 1: column 'label' stands there 2 times; keep one"],
    ),
    "two columns at fault": (
        "image,lable,catgory\na.jpg,safe,x\n",
        ["line 1: no column 'label'", "line 1: no such column 'catgory'; did you mean category?"],
    ),
    "a split spelt almost so": (
        "image,label,split\na.jpg,safe,training\n",
        ["line 2: split 'training'; did you mean train?"],
    ),
    "a drive of Windows": (
        "image,label\nC:\\a.jpg,safe\n",
        ["line 2: C:/a.jpg: a path of Windows"],
    ),
    "no image": ("image,label\n,safe\n", ["line 2: image is empty"]),
    "a quote never closed": ('image,label\n"a.jpg,safe\nç.webp,safe\n', ["line 3: unexpected end"]),
    "a cell of a book": (
        f"image,label,category\na.jpg,bad,x\na.jpg,safe,{'x' * 200_000}\n",
        ["line 2: label 'bad'", "line 3: field larger than field limit"],
    ),
    "a comma too many": ("image,label\na,b.jpg,safe\n", ["line 2: expected 2 cells"]),
    "a cell too few": ("image,label\na.jpg\n", ["line 2: expected 2 cells"]),
    "nothing": ("image,label\n", ["0 rows; there is nothing to judge"]),
    "all at once": (
        "image,label\na.jpg,bad\nz.jpg,worse\n",
        ["line 2: label 'bad'", "line 3: label 'worse'", "line 3: z.jpg: no such"],
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_told_with_its_line(folder, case):
    content, expected = WRONG[case]
    (folder / "photos" / "same.jpg").symlink_to("a.jpg")
    with pytest.raises(InputError) as caught:
        load_source(spec(folder, content))
    problems = caught.value.problems
    assert len(problems) == len(expected)
    for problem, part in zip(problems, expected, strict=True):
        assert problem.startswith(str(folder / "labels.csv")) and part in problem


def test_a_file_that_is_no_picture_keeps_its_row_and_says_why(folder):
    (folder / "photos" / "page.jpg").write_text("<html>Not found</html>")
    rows = load_source(spec(folder, "image,label\npage.jpg,safe\na.jpg,unsafe\n"))
    assert rows["status"] == ["image_decode", "ok"]
    assert store.left_out(rows).to_dict("records") == [{"id": "page.jpg", "status": "image_decode"}]
    assert store.usable(rows)["id"] == ["a.jpg"]


def test_the_tables_of_sgvl_judge_have_their_pictures_read_and_no_verdict(folder):
    with pytest.warns(UserWarning, match="columns passed over: verdict$"):
        rows = load_source(spec(folder, "picture;verdict;label\na.jpg;unsafe;safe\n"))
    assert rows["id"] == ["a.jpg"] and store.labels(rows) == ["safe"]
    with pytest.warns(UserWarning, match="columns passed over: picture$"):
        rows = load_source(spec(folder, "image,picture,label\na.jpg,z.jpg,safe\n"))
    assert rows["id"] == ["a.jpg"], "image comes before picture"


def test_of_a_thousand_problems_the_first_are_told(folder):
    with pytest.raises(InputError) as caught:
        load_source(spec(folder, "image,label\n" + "a.jpg,yes\n" * 1000))
    assert len(caught.value.problems) == 11 and caught.value.problems[-1] == "and 990 more"


@pytest.mark.parametrize(
    "name, content, message",
    [
        (
            "labels.jsonl",
            '{"image": "a.jpg", "label": 1}\n',
            "line 1: label is 1; write it as text",
        ),
        ("labels.jsonl", '{"image": "a.jpg"\n', "line 1: not JSON"),
        ("labels.jsonl", '["a.jpg", "safe"]\n', 'line 1: expected {"image": .., "label": ..}'),
        (
            "labels.jsonl",
            '{"image": "a.jpg", "label": "safe", "label": "unsafe"}\n',
            "line 1: column 'label' stands there 2 times",
        ),
        (
            "labels.jsonl",
            '{"image": "a.jpg", "label": "safe", "category": "\\ud83d"}\n',
            "line 1: half a character",
        ),
        ("labels.jsonl", "[" * 100_000 + "\n", "line 1: not JSON"),
        ("labels.xlsx", "", "ends in .csv or .json or .jsonl or .tsv; save a sheet as .csv"),
    ],
)
def test_files_that_cannot_be_read(folder, name, content, message):
    with pytest.raises(InputError) as caught:
        load_source(spec(folder, content, name))
    assert message in caught.value.problems[0]


def test_two_policies_and_no_column_of_them_say_so(folder):
    with pytest.raises(InputError, match="a column `policy`: house or law"):
        load_source(spec(folder, "image,label\na.jpg,safe\n", policies=("house", "law")))


def test_a_file_in_another_encoding_says_so(folder):
    wrong = spec(folder, "")
    (folder / "labels.csv").write_bytes("image,label\nç.webp,safe\n".encode("latin-1"))
    with pytest.raises(InputError, match="not UTF-8 text; save it as UTF-8"):
        load_source(wrong)


def test_settings_that_lead_nowhere(folder):
    right = spec(folder, "image,label\na.jpg,safe\n")
    for change, message in {
        "path": "nowhere: no such folder",
        "labels": "nowhere.csv: No such file",
    }.items():
        value = message.partition(":")[0]
        with pytest.raises(InputError, match=message):
            load_source(right | {change: value})
    with pytest.raises(InputError, match="name the policies of the labels under `policies`"):
        load_source(right | {"policies": []})


# -- Label Studio's JSON export --------------------------------------------------------------------


def task(number, image, *annotations, **data):
    made = [
        {
            "completed_by": {"id": n},
            "was_cancelled": choices is None,
            "ground_truth": False,
            "result": [
                {"from_name": name, "to_name": "img", "type": "choices", "value": {"choices": [c]}}
                for name, c in (choices or {}).items()
            ],
        }
        for n, choices in enumerate(annotations)
    ]
    return {"id": number, "data": {"image": image, **data}, "annotations": made, "predictions": []}


def test_label_studios_export_is_read(folder):
    (folder / "photos" / "0fc1f5a2-tree.webp").write_bytes((folder / "photos/ç.webp").read_bytes())
    tasks = [
        task(11, "/data/local-files/?d=media/photos/sub/b%20b.png", {"verdict": "Unsafe"}),
        task(12, "/data/upload/3/1a2b3c4d-a.jpg", {"verdict": "Safe"}, None, split="train"),
        task(13, "http://localhost:8080/data/upload/3/0fc1f5a2-tree.webp", {"verdict": "safe"}),
    ]
    rows = load_source(spec(folder, json.dumps(tasks), "export.json"))
    assert rows["id"] == ["sub/b b.png", "a.jpg", "0fc1f5a2-tree.webp"]
    assert store.labels(rows) == ["unsafe", "safe", "safe"]
    assert rows["split"] == ["test", "train", "test"]


def test_each_set_of_choices_is_about_the_policy_of_its_name(folder):
    tasks = [task(1, "a.jpg", {"house": "Unsafe", "law": "Safe"})]
    rows = load_source(spec(folder, json.dumps(tasks), "e.json", ("house", "law")))
    assert [p.name for p in store.policies(rows)] == ["house", "law"]
    assert store.labels(rows) == ["unsafe", "safe"]


def test_annotators_that_disagree_are_named_unless_one_is_the_truth(folder):
    divided = task(7, "a.jpg", {"verdict": "Safe"}, {"verdict": "Unsafe"}, {"verdict": "Safe"})
    with pytest.raises(InputError) as caught:
        load_source(spec(folder, json.dumps([divided, task(8, "no.jpg", {"v": "Safe"})]), "e.json"))
    first, second = caught.value.problems
    assert "e.json, task 7: its annotators disagree (safe and unsafe)" in first
    assert "e.json, task 8: no.jpg: no such file" in second
    divided["annotations"][1]["ground_truth"] = True
    rows = load_source(spec(folder, json.dumps([divided]), "e.json"))
    assert store.labels(rows) == ["unsafe"]


def test_tasks_without_a_label_are_passed_over_with_a_line_each(folder):
    tasks = [task(1, "a.jpg", {"v": "Safe"}), task(2, "ç.webp", None), task(3, "sub/b b.png")]
    tasks += [task(4, "sub/b b.png", {})]
    with pytest.warns(UserWarning) as told:
        rows = load_source(spec(folder, json.dumps(tasks), "e.json"))
    assert rows["id"] == ["a.jpg"]
    assert [str(w.message).partition("e.json: ")[2] for w in told] == [
        "passed over, skipped by its annotator: task 2",
        "passed over, without an annotation: task 3, task 4",
    ]


def test_a_json_array_of_rows_is_read_as_its_lines_would_be(folder):
    rows = [{"Image": "a.jpg", "label": "SAFE", "pair": None}]
    assert load_source(spec(folder, json.dumps(rows), "l.json"))["id"] == ["a.jpg"]
    with pytest.raises(InputError, match="'image' is set twice in one object"):
        load_source(spec(folder, '[{"image": "a.jpg", "image": "b", "label": "safe"}]', "l.json"))
