"""What goes to the hub, and what does not: the hub's own client, and a hub on this machine."""

import io
import json
import shutil

import numpy as np
import PIL.Image
import PIL.ImageCms
import pytest
from huggingface_hub import DatasetCard
from local_hub import writable_hub
from published import moved_to

from sgvl.common.errors import InputError
from sgvl.data import push, store
from sgvl.data.sources import hub as the_hub
from sgvl.data.sources.registry import load_source
from sgvl.world import sets
from sgvl.world.scenes import render, sample_scene

REPO = "me/sgvl-nano"
SRGB = PIL.ImageCms.ImageCmsProfile(PIL.ImageCms.createProfile("sRGB")).tobytes()


@pytest.fixture
def folder(tmp_path, serve_safeedit, safeedit_rows):
    """Two drawn sets and one of real pictures, as 01_data saves them."""
    serve_safeedit(safeedit_rows)
    drawn = {"unsafebench": sets.unsafebench(per_category=1), "general": sets.general(0, 1)}
    store.save({**drawn, "real": load_source("safeeditbench")}, tmp_path / "data", seed=0)
    return tmp_path / "data"


@pytest.fixture
def mine(hub, monkeypatch):
    """The hub, and a token that may write to it."""
    hub.members.add("hf_mine")
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    return hub


def sent(folder, names, access="private", keep_metadata=False):
    return push.send(*push.plan(folder, names, keep_metadata), REPO, access, "sets")


def refused(*arguments):
    with pytest.raises(InputError) as caught:
        sent(*arguments)
    return str(caught.value)


def test_drawn_sets_arrive_and_can_be_read_again(folder, mine, tmp_path):
    url = sent(folder, ["unsafebench", "general"], access="public")
    assert url.endswith(REPO) and REPO in mine.public
    files = mine.repos[REPO]
    assert sorted(files) == [
        *("README.md", "general.parquet", "manifest.json", "unsafebench.parquet")
    ]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    for name in ("unsafebench", "general"):
        assert store.read(name, tmp_path)[:] == store.read(name, folder)[:]
    assert json.loads(files["manifest.json"])["sets"].keys() == {"unsafebench", "general"}
    _, files = the_hub.download(REPO, "main", "unsafebench.parquet")
    assert (
        files["unsafebench.parquet"].read_bytes() == (folder / "unsafebench.parquet").read_bytes()
    )


def test_nothing_is_sent_without_a_word(folder, mine, monkeypatch, capsys):
    monkeypatch.setattr(push, "runs", lambda profile: folder.parent)
    assert push.main(["nano", REPO, "--sets", "general", "real"]) == 0
    output = capsys.readouterr().out
    assert "nothing was sent" in output and "general.parquet" in output
    assert "real pictures: real" in output
    assert REPO not in mine.repos
    assert push.main(["nano", REPO, "--sets", "general", "--confirm"]) == 0
    assert REPO in mine.repos and REPO not in mine.public  # private unless it says otherwise


@pytest.mark.parametrize("access", ["private", "gated"])
def test_real_pictures_go_where_not_everybody_looks_and_say_so(folder, mine, access):
    sent(folder, ["real", "general"], access=access)
    assert (REPO in mine.public) == (REPO in mine.gated) == (access == "gated")
    card = DatasetCard(mine.repos[REPO]["README.md"].decode())
    assert "not-for-all-audiences" in card.data.tags and card.data.license == "other"
    assert "tyodd/SafeEditBench@" in card.text


def test_real_pictures_are_refused_in_public(folder, mine):
    message = refused(folder, ["general", "real"], "public")
    assert message.startswith("real: real pictures") and REPO not in mine.repos


def test_real_pictures_are_refused_by_a_repository_that_is_public_already(folder, mine):
    mine.repos[REPO] = {}
    mine.public.add(REPO)
    message = refused(folder, ["real"], "private")
    assert "is public" in message and mine.repos[REPO] == {}
    sent(folder, ["general"])  # drawn ones may join it
    assert "general.parquet" in mine.repos[REPO]
    sent(folder, ["real", "general"], access="gated")
    assert "real.parquet" in mine.repos[REPO] and REPO in mine.gated


def test_a_card_is_silent_about_no_set(folder, mine):
    """A second push of drawn sets alone would take the tag from the real ones that are there."""
    sent(folder, ["real"])
    card = mine.repos[REPO]["README.md"]
    assert "holds real.parquet; name" in refused(folder, ["general"])
    assert mine.repos[REPO]["README.md"] == card


@pytest.fixture
def photographs(tmp_path):
    """Three photographs: one that says where it was taken and lies on its side, a damaged one."""
    (tmp_path / "photos").mkdir()
    image = render(sample_scene(np.random.default_rng(0), "test", ["dog"]))
    exif = PIL.Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "Maker of cameras"
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 51.0, 29.0)})
    image.crop((0, 0, 60, 40)).save(tmp_path / "photos" / "gps.jpg", exif=exif, icc_profile=SRGB)
    damaged = (tmp_path / "photos" / "gps.jpg").read_bytes()[:-900]
    (tmp_path / "photos" / "damaged.jpg").write_bytes(damaged)
    image.save(tmp_path / "photos" / "plain.jpg")
    (tmp_path / "house.md").write_text("---\nname: house\ntitle: House\n---\nNo dogs.\n")
    (tmp_path / "labels.csv").write_text(
        "image,label\ngps.jpg,unsafe\nplain.jpg,unsafe\ndamaged.jpg,safe\n"
    )
    rows = load_source(
        {"kind": "folder", "path": str(tmp_path / "photos")}
        | {"labels": str(tmp_path / "labels.csv"), "policies": [str(tmp_path / "house.md")]}
    )
    store.save({"photos": rows}, tmp_path / "data", seed=0)
    return tmp_path


def test_where_a_photograph_was_taken_stays_here(photographs, mine):
    sent(photographs / "data", ["photos"])
    files = mine.repos[REPO]
    assert b"Maker of cameras" in (photographs / "data" / "photos.parquet").read_bytes()
    assert b"Maker of cameras" not in files["photos.parquet"]
    there = photographs / "there"
    there.mkdir()
    for name in ("photos.parquet", "manifest.json"):
        (there / name).write_bytes(files[name])
    before, after = (store.read("photos", path) for path in (photographs / "data", there))
    for column in set(before.column_names) - {"image"}:
        assert before[column] == after[column]
    pixels = [[s.image.tobytes() for s in store.samples(store.usable(d))] for d in (before, after)]
    assert pixels[0] == pixels[1] and len(pixels[0]) == 2
    files = [store.without_decoding(d)["image"] for d in (before, after)]
    assert files[0][1] == files[1][1] and files[1][2] is None
    bare = PIL.Image.open(io.BytesIO(files[1][0]["bytes"]))
    assert bare.info == {} and not bare.getexif()


def test_metadata_go_too_if_that_is_asked_for(photographs, mine):
    sent(photographs / "data", ["photos"], keep_metadata=True)
    file = mine.repos[REPO]["photos.parquet"]
    assert file == (photographs / "data" / "photos.parquet").read_bytes()


def test_who_may_not_write_is_told(folder, hub, monkeypatch):
    assert "set HF_TOKEN" in refused(folder, ["general"])
    monkeypatch.setenv("HF_TOKEN", "hf_of_a_stranger")
    message = refused(folder, ["general"])
    assert "403" in message and "stranger" not in message and REPO not in hub.repos


def test_no_network_and_no_such_set(folder, mine, monkeypatch):
    assert "did you mean general?" in refused(folder, ["generl"])
    with writable_hub() as gone:
        pass
    moved_to(monkeypatch, gone.url)
    assert "cannot be reached" in refused(folder, ["general"])
    shutil.rmtree(folder)
    assert "run notebook 01_data first" in refused(folder, ["general"])
