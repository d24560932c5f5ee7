"""What decides an answer is in the identity of who gives it, and nothing else is.

The list is closed: an option that is not classified here fails, and so does a file of a model.
"""

import importlib.util
import json
import shutil
from pkgutil import resolve_name

import pytest

from sgvl import judges, recaption
from sgvl.common import registry
from sgvl.common.errors import InputError
from sgvl.common.paths import NANO_MODEL
from sgvl.data import Sample
from sgvl.judges import under
from sgvl.models import loading
from sgvl.models.tiny import heads as tiny_heads
from sgvl.policies.policy import load
from sgvl.training import folders, trainer
from sgvl.world.scenes import Scene, Thing, render

PICTURE = render(Scene("park", 12, (Thing("dog", 0), Thing("apple", 3))))

# Options that name a thing or decide its speed and price, with another value for each.
RUNTIME = {
    "id": "another",
    "name": "another",
    "batch_size": 2,
    "device": "cpu:0",
    "url": "http://127.0.0.1:9/v1",
    "concurrency": 1,
    "timeout": 1.0,
    "max_retries": 1,
    "key_variable": "HOME",
    "image_tokens": 1,  # for the estimate of a price
}
# Options that decide answers, likewise. "model" is another folder with the same files, see below.
DECIDES = {
    "threshold": 0.8,
    "revision": "v2",
    "prompt": {"judge": "word", "captioner": "rewrite"},
    "policy_form": "full",
    "parser": "word",
    "max_new_tokens": 5,
    "max_tokens": 5,
    "with_p_unsafe": False,
    "dtype": "float16",
    "image": False,
    "image_format": {"judge": "JPEG", "captioner": "PNG"},
    "max_side": 512,
    "temperature": 0.5,
    "seed": 1,
    "max_pixels": 6272,
    "head": "multiheaded",
    "clip_revision": "v2",
}
NEEDED = {  # options without a default
    "served": {"model": "a"},
    "moderations": {"model": "a", "url": "http://localhost:8000/v1"},
    "decisions": {"model": "a", "url": "http://localhost:8000/v1", "policy_form": "brief"},
    "shieldgemma": {"model": "nano"},  # not the hub's
    "instructblip": {"model": "nano", "policy_form": "brief"},
    "clip_head": {"head": "q16", "model": "heads", "clip": "clip"},
    "safety_checker": {"model": "safety_checker"},
    "nudenet_classifier": {"model": "nudenet"},
}
ASKED_BY_REQUEST = ("served", "moderations", "decisions")  # a revision there is a name of one's own
# Judges of a package that is not installed: what is known of their options is only their names.
NOT_MADE = set() if importlib.util.find_spec("nudenet") else {"nudenet_detector"}

OPTIONS = [
    (noun, kind, option)
    for noun, kinds in (("judge", judges.JUDGES), ("captioner", recaption.CAPTIONERS))
    for kind, made_by in kinds.items()
    for option in registry.parameters(resolve_name(made_by))
]


@pytest.fixture(scope="module")
def other_model(tmp_path_factory):
    return str(shutil.copytree(NANO_MODEL, tmp_path_factory.mktemp("models") / "other"))


@pytest.fixture(scope="module")
def heads(tmp_path_factory):
    """Folders of the tiny classifiers, those on CLIP in one, and copies of them in ``other``."""
    folder = tmp_path_factory.mktemp("heads")
    for name in tiny_heads.CLASSIFIERS:
        on_clip = name in ("nsfw_detector", "multiheaded", "q16")
        tiny_heads.save(name, folder / ("heads" if on_clip else name))
    shutil.copytree(folder, folder / "other")
    return folder


@pytest.mark.parametrize(("noun", "kind", "option"), OPTIONS, ids=map("-".join, OPTIONS))
def test_every_option_is_classified_and_behaves_so(noun, kind, option, other_model, heads):
    make = {"judge": judges.make_judge, "captioner": recaption.make_captioner}[noun]
    spec = {"kind": kind} | NEEDED.get(kind, {})
    decides = {**DECIDES, "model": other_model, "clip": str(heads / "other" / "clip")}
    if (heads / str(spec.get("model"))).is_dir():
        decides["model"] = str(heads / "other" / spec["model"])
        spec |= {key: str(heads / spec[key]) for key in ("model", "clip") if key in spec}
    assert (option in RUNTIME) != (option in decides), f"classify {option} of {noun} {kind}"
    if kind in NOT_MADE:
        pytest.skip("its package is not installed")
    value = (RUNTIME | decides)[option]
    value = value[noun] if isinstance(value, dict) else value
    if option.endswith("revision") and kind not in ASKED_BY_REQUEST:  # of the hub alone: see below
        with pytest.raises(InputError, match="has no revision"):
            make(spec | {option: value}).identity()
        return
    before, after = (make(s).identity() for s in (spec, spec | {option: value}))
    assert (before != after) == (option in decides)


def changed(folder, name):
    """A copy of the shipped model in which one character of one file differs."""
    shutil.copytree(NANO_MODEL, folder)
    content = bytearray((folder / name).read_bytes())
    content[-3] ^= 1
    (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("name", sorted(file.name for file in NANO_MODEL.iterdir()))
def test_a_change_in_any_file_of_a_model_is_another_model(name, tmp_path):
    told_of_it = name in {"README.md", "card.json"}
    assert (loading.digest(changed(tmp_path / "m", name)) == loading.digest("nano")) == told_of_it


def test_a_model_of_the_hub_goes_by_its_commit(hub):
    """Weights that change behind an unchanged name are another judge, and a pin holds."""
    hub.repos["us/guard"] = {file.name: file.read_bytes() for file in NANO_MODEL.iterdir()}
    spec = {"kind": "chat", "model": "us/guard", "prompt": "reason"}
    first = judges.make_judge(spec)
    assert first.identity()["weights"] == loading.digest("us/guard") == hub.commit
    cases = list(under([Sample("s", PICTURE)], [load("L1")]))
    (one,), (same,) = (judge.judge(cases) for judge in (first, judges.make_judge("chat")))
    assert one.p_unsafe == pytest.approx(same.p_unsafe, abs=1e-6)  # the second drafts its reply
    assert one == same._replace(p_unsafe=one.p_unsafe)
    hub.commit = "5e6f7a8b" * 5
    after = judges.make_judge(spec).identity()
    assert after["weights"] == hub.commit != first.identity()["weights"]
    assert after | {"weights": ""} == first.identity() | {"weights": ""}
    pinned = judges.make_judge(spec | {"revision": hub.commit}).identity()
    assert pinned["weights"] == hub.commit
    with pytest.raises(InputError, match="us/gard.*was not found"):
        loading.digest("us/gard")


def test_a_model_that_came_in_part_is_named(tmp_path):
    shutil.copytree(NANO_MODEL, tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(InputError, match=r"m' is not whole \(.*; get it again"):
        loading.load(tmp_path / "m")
    weights.unlink()
    with pytest.raises(InputError, match="is not whole .*safetensors"):
        loading.load(tmp_path / "m")


def test_a_training_that_goes_on_saves_the_processor_that_it_began_with(hub, tmp_path):
    """Its weights are the checkpoint's; a commit of the hub that is pinned stays so."""
    hub.repos["us/guard"] = {file.name: file.read_bytes() for file in NANO_MODEL.iterdir()}
    checkpoint = shutil.copytree(NANO_MODEL, tmp_path / "run" / "checkpoint-1")
    (checkpoint / "trainer_state.json").write_text('{"global_step": 1}')
    settings = json.loads((checkpoint / "tokenizer_config.json").read_text())
    settings |= {"max_length": None, "pad_to_multiple_of": None}  # as stage 2 leaves them
    (checkpoint / "tokenizer_config.json").write_text(json.dumps(settings))
    saved = []
    for folder in ("run", "new"):
        network, processor = trainer.load_start(
            "us/guard", tmp_path / folder, None, "float32", hub.commit
        )
        processor.save_pretrained(tmp_path / folder / "saved")
        files = sorted((tmp_path / folder / "saved").iterdir())
        saved.append({file.name: file.read_bytes() for file in files})
        assert hub.commit in network.config._name_or_path
    assert saved[0] == saved[1]


def test_a_checkpoint_that_was_killed_while_saved_is_passed_over(tmp_path):
    assert folders.newest_checkpoint(tmp_path) is None
    for step, state in {2: '{"global_step": 2}', 10: '{"global_step": 10}', 12: '{"glob'}.items():
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "trainer_state.json").write_text(state)
    (tmp_path / "checkpoint-14").mkdir()
    (tmp_path / "checkpoint-14" / "model.safetensors").write_bytes(b"half")
    assert folders.newest_checkpoint(tmp_path) == str(tmp_path / "checkpoint-10")
