"""The card and the Croissant file say what is in the files, and what may be done with them."""

import json

import pytest
import yaml
from huggingface_hub import DatasetCard

from sgvl.data import dataset_card, store
from sgvl.world import pairs, sets


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    where = tmp_path_factory.mktemp("data")
    made = {
        "safeeditbench": pairs.safeeditbench(per_category=10),
        "unsafebench": sets.unsafebench(per_category=2),
        "llavaguard": sets.llavaguard(images=2),
        "general": sets.general(per_task=1),
    }
    store.save(made, where, seed=7)
    dataset_card.write(where, list(made))
    return where


def test_the_header_is_one_that_the_hub_reads(folder):
    told = DatasetCard.load(folder / "README.md").data
    assert told.license == "cc-by-4.0" and told.language == "en"
    assert told.size_categories == "n<1K" and "synthetic" in told.tags
    assert dataset_card.NOT_FOR_ALL not in told.tags
    assert [(c["config_name"], c["data_files"]) for c in told.configs][1:3] == [
        ("unsafebench", [{"split": "test", "path": "unsafebench.parquet"}]),
        ("llavaguard", [{"split": "train", "path": "llavaguard.parquet"}]),
    ]


def test_its_numbers_are_those_of_the_files(folder):
    text = (folder / "README.md").read_text()
    assert "| safeeditbench | 280 |" in text and "| unsafebench | 18 | 9 |" in text
    assert "| L1 | L2 | L3 | L4 | L5 |" in text
    shares = text.partition("| L1 |")[2].splitlines()[2].split("|")[1:-1]
    assert [float(share) for share in shares] == sorted(map(float, shares)) and shares[0] == " 0.0 "
    assert "seed 7" in text and "Twemoji" in text and "OpenMoji" not in text


def test_the_licence_is_that_of_the_drawings(tmp_path):
    store.save({"unsafebench": sets.unsafebench(per_category=1, style="openmoji")}, tmp_path, 0)
    text = dataset_card.readme(tmp_path, ["unsafebench"])
    assert yaml.safe_load(text.split("---")[1])["license"] == "cc-by-sa-4.0" and "OpenMoji" in text


def test_croissant_names_every_file_and_every_column(folder):
    told = json.loads((folder / "croissant.json").read_text())
    assert told["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert told["license"].endswith("/licenses/by/4.0/")
    files = {file["@id"]: file["sha256"] for file in told["distribution"]}
    assert files == {path.name: store.sha256(path) for path in folder.glob("*.parquet")}
    for record_set in told["recordSet"]:
        name = record_set["@id"]
        rows = store.read(name, folder)
        assert [field["name"] for field in record_set["field"]] == rows.column_names
        for field in record_set["field"]:
            assert field["source"]["fileObject"]["@id"] in files
            assert field["source"]["extract"] == {"column": field["name"]}
    kinds = {
        f["@id"]: (f["dataType"], f.get("repeated")) for r in told["recordSet"] for f in r["field"]
    }
    assert kinds["general/image"] == ("sc:ImageObject", None)
    assert kinds["safeeditbench/box"] == ("sc:Integer", True)
    assert kinds["safeeditbench/tags"] == ("sc:Text", True)
    assert kinds["unsafebench/label"] == ("sc:Integer", None)


def test_every_term_of_croissant_stands_in_its_context(folder):
    """A term without one would be read as schema.org's, where it means nothing."""
    told = json.loads((folder / "croissant.json").read_text())
    ours = {"citeAs", "column", "conformsTo", "dataType", "extract", "field", "fileObject"}
    ours |= {"jsonPath", "recordSet", "repeated", "source", "transform"}
    schema_org = {"name", "description", "license", "version", "distribution", "contentUrl"}
    schema_org |= {"contentSize", "encodingFormat", "sha256"}
    assert terms(told) == ours | schema_org and ours <= told["@context"].keys()


def terms(value) -> set[str]:
    if isinstance(value, list):
        return set().union(*map(terms, value))
    if not isinstance(value, dict):
        return set()
    own = {key: part for key, part in value.items() if key != "@context"}
    return {key for key in own if key[0] != "@"}.union(*map(terms, own.values()))
