"""The rehearsal of GPU profiles: what differs from the real thing, and the stand-ins themselves."""

import io
import os

import PIL.Image
import pytest

from sgvl.common.errors import InputError
from sgvl.data import Sample, store
from sgvl.data.sources import llavaguard
from sgvl.data.sources.registry import load_source
from sgvl.judges import make_judge
from sgvl.models import tiny
from sgvl.models.endpoint import Endpoint, Requests
from sgvl.models.tiny import heads as tiny_heads
from sgvl.policies.policy import Policy
from sgvl.run import rehearsal
from sgvl.run.rehearsal import models, parameters, published
from sgvl.run.rehearsal.hub import local_hub
from sgvl.run.rehearsal.server import RehearsalHandler
from sgvl.run.units import load_units, parts

MODEL = "Qwen/Qwen2.5-VL-3B-Instruct"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("profile", ["single", "paper"])
def test_only_listed_keys_differ_and_every_model_has_a_stand_in(profile, folder):
    rehearsed, units = parameters.Rehearsed(profile, "a_rehearsal", folder), load_units(profile)
    for unit in units.values():
        values = rehearsed.parameters(unit.name, unit.parameters)
        changed = {path.split(".")[-1] for path in parameters.differences(unit.parameters, values)}
        batch = {"per_device_train_batch_size", "gradient_accumulation_steps"}
        assert changed <= {*parameters.CHANGES, *parameters.SHORT, *batch}, unit.name
        texts = [part for part in parts(values) if isinstance(part, str)]
        assert not {"cuda", "bfloat16", profile} & set(texts), unit.name
        assert not [text for text in texts if text.startswith(f"runs/{profile}/")], unit.name
    named = rehearsal.hub_models(units)
    assert named and all(map(models.architecture, named)), "each has a stand-in"


def test_a_training_of_eight_processes_keeps_its_batch():
    real = {"processes": 8, "settings": {"per_device_train_batch_size": 1, "max_length": None}}
    real["settings"] |= {"gradient_accumulation_steps": 8}
    rehearsed = parameters.Rehearsed("paper", "paper_rehearsal", None)
    two = rehearsed.parameters("03_sft.recap", real)
    assert two["processes"] == 2 and two["settings"] == {
        "per_device_train_batch_size": 4,
        "max_length": None,
        "gradient_accumulation_steps": 2,
        "max_steps": 2,
        "logging_steps": 1,
    }
    one = rehearsed.parameters("03_sft.L1", real)
    assert (one["processes"], one["settings"]["per_device_train_batch_size"]) == (1, 8)


def test_differences_name_what_was_changed_added_and_lost():
    real = {"a": 1, "b": [{"c": 2}], "d": {"e": 3}}
    other = {"a": 1, "b": [{"c": 4}], "d": {"f": 3}}
    assert list(parameters.differences(real, other)) == ["b.0.c", "d.e", "d.f"]


def test_the_stand_in_of_a_model_reads_pictures_of_any_size_in_its_own_template(folder):
    place, other = models.stand_ins([MODEL, "tyodd/SafeGuard-VL-RL"], folder).values()
    weights = [(model / "model.safetensors").read_bytes() for model in (place, other)]
    assert weights[0] != weights[1], "two models of a run have two identities"
    judge = make_judge({"kind": "chat", "model": str(place), "max_new_tokens": 4})
    policy = Policy(name="L1", title="Policy", text=published.LEVEL.format(level=1))
    images = [PIL.Image.open(io.BytesIO(published.picture(name))) for name in ("a", "b")]
    assert images[0].size != images[1].size
    cases = [(Sample(str(k), image, frozenset()), policy) for k, image in enumerate(images)]
    judge.policy_form = "full"
    assert len([one for batch in judge.results(cases) for one in batch]) == 2
    prompt = judge._prompt(policy)
    assert prompt.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>")


def test_a_model_without_a_stand_in_is_named(folder):
    with pytest.raises(InputError, match="model some/gemma: no stand-in to rehearse with"):
        models.stand_ins(["some/gemma"], folder)
    known = {**tiny.ARCHITECTURES, **tiny_heads.CLASSIFIERS}
    assert set(models.ARCHITECTURES.values()) <= {*known, "editor"}


SOURCES = [
    "safeeditbench",
    {"kind": "unsafebench", "split": "test"},
    {"kind": "unsafebench", "split": "train"},
    {"kind": "llavaguard", "split": "train", "pause": 0.0},
    {"kind": "llavaguard", "split": "test", "pause": 0.0},
    "policyshift",
    *({"kind": "general", "benchmark": name} for name in ("mmmu", "realworldqa", "blink", "mmt")),
]


@pytest.mark.filterwarnings("ignore:.*expected")  # their size is not the published one
def test_every_published_set_has_its_stand_in_behind_its_gate(hub, monkeypatch, tmp_path):
    published.publish(hub)
    monkeypatch.setattr(llavaguard, "DOWNLOADS", tmp_path / "downloads")
    monkeypatch.setenv("http_proxy", hub.url)
    monkeypatch.setenv("no_proxy", rehearsal.NO_PROXY)
    with pytest.raises(InputError, match="yiting/UnsafeBench is gated"):
        load_source("unsafebench")
    hub.members.add(rehearsal.TOKEN)
    monkeypatch.setenv("HF_TOKEN", rehearsal.TOKEN)
    loaded = [load_source(spec) for spec in SOURCES]
    bench, content, _, train, test, *_ = loaded
    unsafe = [sum(label == "unsafe" for label in store.labels(rows)) for rows in (bench, content)]
    assert (len(bench), len(content), unsafe) == (60, 22, [16, 11])
    assert set(content["category"]) == set(published.UNSAFEBENCH_CATEGORIES)
    for rows in (train, test):
        assert set(rows["status"]) == {"ok", "http_404"}, "one link is dead"
        assert rows["category"][-1] == "NA: None applying"
    assert all(
        source.partition("@")[0] in hub.repos for rows in loaded for source in rows["source"]
    )


def test_one_server_answers_whatever_address_is_asked(monkeypatch):
    with local_hub(RehearsalHandler) as hub:
        monkeypatch.setenv("http_proxy", hub.url)
        monkeypatch.setenv("no_proxy", rehearsal.NO_PROXY)
        server = Endpoint("judge", "a model", "http://localhost:8000/v1", "PNG", 0, 2, 10.0, 0, "")
        texts = ["Reply with safe or unsafe", "Caption: A dog.", "Select the right option"]
        ((_, replies),) = server.replies([Requests(0, texts)], logprobs=True, max_tokens=5)
    verdict, caption, option = replies
    assert verdict.text in ("safe", "unsafe") and verdict.tokens[0][0] == verdict.text
    assert caption.text.startswith("A dog. and a ") and option.text in "ABCD"


def test_the_environment_of_the_user_is_back_when_the_stage_closes(monkeypatch, tmp_path):
    """Nothing asks the real hub, or writes into the user's caches, while it is open."""
    monkeypatch.setattr(rehearsal, "runs", lambda name: tmp_path / name)
    monkeypatch.setenv("HF_TOKEN", "the user's")
    monkeypatch.setenv("HF_HUB_CACHE", "/home/user/cache")
    before = dict(os.environ)
    with rehearsal.stage("paper_rehearsal", {}) as hub:
        inside = dict(os.environ)
    assert inside["HF_ENDPOINT"] == inside["https_proxy"] == hub.url
    assert inside["HF_HOME"].startswith(str(tmp_path)) and "HF_HUB_CACHE" not in inside
    assert "the user's" not in inside.values()
    assert dict(os.environ) == before
