"""Classifiers that read no policy, on tiny models in the files of the published ones."""

import importlib.util
import json
import pickle
import shutil
import sys

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from torch import nn

from sgvl.common.errors import InputError
from sgvl.common.paths import NANO_MODEL
from sgvl.data import Sample
from sgvl.judges import ask_all, make_judge, under
from sgvl.judges.fixed_head import ClipHeadJudge, FixedJudge
from sgvl.judges.systems import SYSTEMS
from sgvl.models import heads, loading
from sgvl.models.tiny import WIDTH
from sgvl.models.tiny import heads as tiny_heads
from sgvl.policies.policy import load
from sgvl.run.rehearsal.models import architecture
from sgvl.text.verdict import SAFE, UNSAFE

SIZES = ((124, 80), (68, 161), (36, 36), (300, 90))
ON_CLIP = ("nsfw_detector", "multiheaded", "q16")
OWN = (*ON_CLIP, "sd_filter", "nudenet")  # systems with files of their own
FILES = {
    "nsfw_detector": {"clip_autokeras_binary_nsfw.pth"},
    "multiheaded": {f"{name}.pt" for name in heads.CATEGORIES},
    "q16": {"prompts.p"},
    "sd_filter": {"config.json", "model.safetensors", "preprocessor_config.json"},
    "nudenet": {"classifier_model.onnx"},
}


def noise(width, height, seed=0):
    rng = np.random.default_rng(seed + width)
    pixels = rng.integers(0, 255, (height // 8, width // 8, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((width, height))


IMAGES = [noise(*size, seed) for size in SIZES for seed in range(4)]
SAMPLES = [Sample(str(k), image) for k, image in enumerate(IMAGES)]
POLICIES = [load("L1"), load("L5")]


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """Folders of the tiny classifiers, by name."""
    folder = tmp_path_factory.mktemp("published")
    for name in tiny_heads.CLASSIFIERS:
        tiny_heads.save(name, folder / name)
    return folder


def spec_of(name: str, folder) -> dict:
    """The spec of a system on the tiny classifiers in a folder."""
    keys = [key for key in ("model", "clip") if key in SYSTEMS[name].spec]
    places = {key: str(folder / architecture(SYSTEMS[name].spec[key])) for key in keys}
    return {"kind": name, **places}


@pytest.fixture
def own(published, tmp_path):
    """A copy of the folders, to be damaged."""
    return shutil.copytree(published, tmp_path / "own")


# ---- by name, from a hub -------------------------------------------------------------------------


@pytest.mark.parametrize("name", OWN)
def test_a_system_is_loaded_by_name_and_its_verdicts_are_stored(name, hub, published, tmp_path):
    spec = SYSTEMS[name].spec
    for repo in {spec[key] for key in ("model", "clip") if key in spec}:
        files = (published / architecture(repo)).iterdir()
        hub.repos[repo] = {file.name: file.read_bytes() for file in files}
    judge = make_judge(name)
    assert (judge.id, judge.name, judge.reads_policy) == (name, SYSTEMS[name].title, False)
    rows = ask_all(judge, under(SAMPLES, POLICIES), tmp_path)
    assert [(row["id"], row["policy"]) for row in rows] == [
        (sample.id, policy.name) for sample in SAMPLES for policy in POLICIES
    ]
    one, other = rows[::2], rows[1::2]
    for a, b in zip(one, other, strict=True):
        assert a["p_unsafe"] == b["p_unsafe"] and a["verdict"] == b["verdict"]
        assert a["verdict"] == (UNSAFE if a["p_unsafe"] > 0.5 else SAFE)
        assert a["rationale"].startswith("policy not read") and a["reply"] is None
    assert len({row["p_unsafe"] for row in one}) > 8, "it looks at the pictures"
    identity = json.loads(json.dumps(judge.identity()))
    assert identity == judge.identity() and identity["model"] == spec["model"]
    assert identity["weights"].keys() == FILES[name]
    assert len(ask_all(make_judge(name), under(SAMPLES, POLICIES), tmp_path)) == len(rows)


def test_judges_on_one_clip_look_at_a_picture_once(published, monkeypatch):
    ClipHeadJudge._embeddings.clear()
    passes, embed = [], heads.embed
    monkeypatch.setattr(
        heads, "embed", lambda tower, pixels: passes.append(len(pixels)) or embed(tower, pixels)
    )
    judges = [make_judge(spec_of(name, published)) for name in ON_CLIP]
    first = [judge.judge(under(SAMPLES[:6], POLICIES)) for judge in judges]
    assert passes == [6]
    judges[1].judge(under(SAMPLES[4:9], POLICIES))
    assert passes == [6, 3], "of five pictures, three are new"
    ClipHeadJudge._embeddings.clear()
    again = [judge.judge(under(SAMPLES[:6][::-1], POLICIES)) for judge in judges[::-1]]
    for one, other in zip(first, again[::-1], strict=True):
        expected = [judgement.p_unsafe for judgement in one[::2][::-1]]
        assert [judgement.p_unsafe for judgement in other[::2]] == pytest.approx(expected, abs=1e-5)


def test_another_clip_gives_other_embeddings(published, own):
    tiny_heads.save("clip", own / "clip", seed=1)
    one, other = (make_judge(spec_of("multiheaded", folder)) for folder in (published, own))
    assert one.judge(under(SAMPLES, POLICIES)) != other.judge(under(SAMPLES, POLICIES))
    assert one.identity()["clip"]["weights"] != other.identity()["clip"]["weights"]


@pytest.mark.parametrize(
    ("name", "file"), [(name, file) for name in OWN for file in sorted(FILES[name])]
)
def test_a_file_that_changes_is_another_judge(name, file, own):
    before = make_judge(spec_of(name, own)).identity()
    place = own / architecture(SYSTEMS[name].spec["model"])
    if file.endswith(".json"):
        (place / file).write_text((place / file).read_text() + "\n")
    else:
        tiny_heads.save(place.name, place, seed=1)
    after = make_judge(spec_of(name, own)).identity()
    assert before["weights"][file] != after["weights"][file]


def test_what_is_over_the_threshold_is_unsafe_and_what_is_at_it_is_not(published):
    judge = make_judge(spec_of("q16", published))
    p = judge.judge(under(SAMPLES[:1], POLICIES))[0].p_unsafe
    for threshold, verdict in ((p, SAFE), (p * 0.99, UNSAFE)):
        spec = spec_of("q16", published) | {"threshold": threshold}
        assert make_judge(spec).judge(under(SAMPLES[:1], POLICIES))[0].verdict == verdict
    assert FixedJudge().judge([]) == []


# ---- the arithmetic, beside another way to do it -------------------------------------------------


def embeddings(n=20):
    return torch.randn(n, WIDTH, generator=torch.Generator().manual_seed(3))


def test_the_layers_of_multiheaded_are_those_that_its_authors_build(published):
    folder, x = published / "multiheaded", embeddings()
    expected = []
    for category in ("sexual", "violent", "disturbing", "hateful", "political"):
        head = nn.Sequential(
            nn.Linear(WIDTH, 16), nn.ReLU(), nn.Dropout(0.5), nn.BatchNorm1d(16), nn.Linear(16, 1)
        )
        head.load_state_dict(torch.load(folder / f"{category}.pt"))
        expected.append(head.eval()(x).sigmoid())
    found = heads.multiheaded(heads.Files(str(folder)), WIDTH)(x)
    torch.testing.assert_close(found, torch.cat(expected, 1))
    judge = make_judge(spec_of("multiheaded", published))
    answer = judge.judge(under(SAMPLES[:1], POLICIES))[0]
    row = judge._score(judge._embedded([IMAGES[0]]))[0]
    assert answer.p_unsafe == row.max()
    assert answer.rationale == f"policy not read; highest: {heads.CATEGORIES[row.argmax()]}"


def test_the_layers_of_the_nsfw_detector_are_those_that_its_authors_build(published):
    folder, x = published / "nsfw_detector", embeddings()
    w = torch.load(folder / "clip_autokeras_binary_nsfw.pth")
    layers = []
    for k in range(1, 5):
        weight = w[f"linear_{k}.weight"]
        layers += [nn.Linear(weight.shape[1], weight.shape[0]), nn.ReLU()]
        layers[-2].load_state_dict({"weight": weight, "bias": w[f"linear_{k}.bias"]})
    head = nn.Sequential(*layers[:-1], nn.Sigmoid())
    unit = x / torch.norm(x, keepdim=True, dim=-1)
    expected = head((unit - w["norm.mean"]) / w["norm.variance"].sqrt())
    found = heads.nsfw_detector(heads.Files(str(folder)), WIDTH)(x)
    torch.testing.assert_close(found, expected)
    assert found.std() > 0.01


def test_q16_compares_with_the_second_prompt(tmp_path):
    prompts = np.array([[2.0, 0.0], [0.0, 0.5]], np.float16)
    (tmp_path / "prompts.p").write_bytes(pickle.dumps(prompts, protocol=3))
    score = heads.q16(heads.Files(str(tmp_path)), 2)
    x = torch.tensor([[3.0, 0.0], [0.0, 9.0], [5.0, 5.0], [1.0, 1.01]])
    angle = np.arctan(1.01) - np.pi / 4  # past the middle: the cosines differ by sqrt(2) sin
    last = 1 / (1 + np.exp(-100 * np.sqrt(2) * np.sin(angle)))
    assert score(x)[:, 0].tolist() == pytest.approx([0, 1, 0.5, last], abs=1e-4)


def concepts(rest=(0, 1), threshold=0.6, special=(0, 1), special_threshold=0.9):
    """Weights in two dimensions; the first concept of each kind points to the right."""
    return {
        "concept_embeds": torch.tensor([[2.0, 0.0]] + [list(map(float, rest))] * 16),
        "concept_embeds_weights": torch.tensor([threshold] + [2.0] * 16),
        "special_care_embeds": torch.tensor([list(map(float, special))] * 3),
        "special_care_embeds_weights": torch.tensor([special_threshold] * 3),
    }


@pytest.mark.parametrize(
    ("x", "weights", "score"),
    [
        ((3.0, 4.0), concepts(), 0.0),  # the cosine is 0.6, at the threshold
        ((3.0, 4.0), concepts(threshold=0.595), 0.005),
        ((3.0, 4.0), concepts(threshold=0.605), -0.005),
        ((3.0, 4.0), concepts(threshold=0.605, special_threshold=0.79), 0.005),  # 0.8: 0.01 more
        ((3.0, 4.0), concepts(threshold=0.605, special_threshold=0.7996), -0.005),  # rounds to 0
        ((3.0, 4.0), concepts(threshold=0.5996), 0.0),  # rounded to three places
    ],
)
def test_the_score_of_the_safety_checker_is_that_by_hand(x, weights, score):
    found = heads.concept_scores(weights, torch.tensor([x]))
    assert found.shape == (1, 17) and float(found.max()) == pytest.approx(score, abs=1e-6)


def test_a_score_of_zero_is_safe(published, monkeypatch):
    judge = make_judge(spec_of("sd_filter", published))
    width = torch.zeros(1, 17)
    for score, verdict in ((0.0, SAFE), (0.001, UNSAFE), (-0.2, SAFE)):
        width[0, 4] = score
        width[0, :4] = width[0, 5:] = -1
        monkeypatch.setattr(heads, "concept_scores", lambda *_: width)
        judge._known.clear()
        answer = judge.judge(under(SAMPLES[:1], POLICIES))[0]
        assert answer.verdict == verdict
        assert answer.p_unsafe == pytest.approx(1 / (1 + np.exp(-2 * score)))
        assert ("concept 4" in answer.rationale) == (verdict == UNSAFE)


def test_a_picture_is_prepared_as_open_clip_does():
    image = noise(124, 80)
    theirs = transformers.CLIPImageProcessorPil(
        size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56}
    )
    expected = theirs(image, return_tensors="pt").pixel_values[0]
    torch.testing.assert_close(heads.clip_pixels(image, 56), expected, atol=1e-5, rtol=0)
    rows = np.zeros((5, 2, 3), np.uint8)
    rows[2:4] = 255  # 1.5 rows over the middle two: rounded to 2, as torchvision does
    white = heads.clip_pixels(Image.fromarray(rows), 2)
    assert white.shape == (3, 2, 2)
    scaled = white * torch.tensor(heads.STD)[:, None, None]
    torch.testing.assert_close(
        scaled + torch.tensor(heads.MEAN)[:, None, None], torch.ones(3, 2, 2)
    )


def red_against_green(folder, weights=((10, 0, 0), (0, 10, 0)), softmax=True):
    """Write a network in ONNX: unsafe by the mean of red, safe by that of green."""
    h, values = tiny_heads, torch.tensor(weights, dtype=torch.float32)
    nodes = [
        h._node("ReduceMean", "input", "means", axes=[1, 2], keepdims=0),
        h._node("Gemm", "means weights", "scores", transB=1),
    ]
    nodes += [h._node("Softmax", "scores", "chances", axis=1)] * softmax
    out = "chances" if softmax else "scores"
    graph = [(1, node) for node in nodes] + [(2, "test"), (5, h._tensor("weights", values))]
    graph += [(11, h._value("input", ["n", 256, 256, 3])), (12, h._value(out, ["n", "k"]))]
    content = h._message([(1, 8), (7, graph), (8, [(2, 13)])])
    (folder / "classifier_model.onnx").write_bytes(content)


def test_nudenet_takes_the_nearest_pixels_in_rgb(tmp_path):
    red_against_green(tmp_path)
    judge = make_judge({"kind": "nudenet", "model": str(tmp_path)})
    pixels = np.zeros((128, 512, 3), np.uint8)
    pixels[:, ::2, 1] = 255
    pixels[:, 1::2] = (204, 0, 255)  # the nearest of two columns is the second
    answer = judge.judge(under([Sample("s", Image.fromarray(pixels))], POLICIES))[0]
    assert answer.p_unsafe == pytest.approx(1 / (1 + np.exp(-10 * 0.8)), abs=1e-5)
    assert answer.verdict == UNSAFE


# ---- refused -------------------------------------------------------------------------------------


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def resaved(file, change):
    weights = torch.load(file)
    change(weights)
    torch.save(weights, file)


NSFW, VIOLENT = "clip_autokeras_binary_nsfw.pth", "violent.pt"
DAMAGE = {
    "no file": ("multiheaded", lambda f: (f / VIOLENT).unlink(), "not whole .no violent.pt"),
    "no folder": ("q16", lambda f: shutil.rmtree(f), "was not found as a folder or on the hub"),
    "cut": ("multiheaded", lambda f: cut(f / VIOLENT), "not whole .violent.pt: "),
    "empty": ("q16", lambda f: (f / "prompts.p").write_bytes(b""), "not whole .prompts.p: "),
    "text": ("nsfw_detector", lambda f: (f / NSFW).write_text("<html>"), "not whole .clip_auto"),
    "fewer": (
        "nsfw_detector",
        lambda f: resaved(f / NSFW, lambda w: w.pop("norm.mean")),
        "missing weights: norm.mean",
    ),
    "more": (
        "multiheaded",
        lambda f: resaved(f / VIOLENT, lambda w: w.update(x=torch.ones(1))),
        "unexpected weights: x",
    ),
    "too wide": (
        "nsfw_detector",
        lambda f: resaved(f / NSFW, lambda w: w.update({"norm.mean": torch.ones(WIDTH + 1)})),
        r"norm.mean is \(33,\); expected \(d\) with d = 32",
    ),
    "one number": (
        "nsfw_detector",
        lambda f: resaved(f / NSFW, lambda w: w.update({"norm.variance": torch.ones(1)})),
        r"norm.variance is \(1,\); expected \(d\)",
    ),
    "layers that do not fit": (
        "multiheaded",
        lambda f: resaved(f / VIOLENT, lambda w: w.update({"4.weight": torch.ones(1, 7)})),
        r"4.weight is \(1, 7\); expected \(1, a\)",
    ),
    "nan": (
        "multiheaded",
        lambda f: resaved(f / VIOLENT, lambda w: w["4.bias"].fill_(torch.nan)),
        "nan or infinite: 4.bias",
    ),
    "no tensors": (
        "multiheaded", lambda f: torch.save({"a": "b"}, f / VIOLENT), "holds more than tensors",
    ),
    "code in a file of torch": (
        "multiheaded", lambda f: torch.save({"0.weight": Evil()}, f / VIOLENT), "not whole .viol",
    ),
    "code in a pickle": (
        "q16",
        lambda f: (f / "prompts.p").write_bytes(pickle.dumps(Evil())),
        "builtins.print is no part of an array, and never loaded",
    ),
    "no array": (
        "q16", lambda f: (f / "prompts.p").write_bytes(pickle.dumps([1.0, 2.0])), "not whole",
    ),
    "an array of texts": (
        "q16",
        lambda f: (f / "prompts.p").write_bytes(pickle.dumps(np.array(["a", "b"]))),
        "not whole .prompts.p: could not convert",
    ),
    "infinite prompts": (
        "q16",
        lambda f: (f / "prompts.p").write_bytes(pickle.dumps(np.full((2, WIDTH), np.inf))),
        "nan or infinite: prompts.p",
    ),
    "three prompts": (
        "q16",
        lambda f: (f / "prompts.p").write_bytes(pickle.dumps(np.ones((3, WIDTH)))),
        r"prompts is \(3, 32\); expected \(2, d\)",
    ),
    "another activation": (
        "sd_filter", lambda f: edit(f / "config.json", hidden_act="gelu"), "activation 'gelu'",
    ),
    "another size": (
        "sd_filter", lambda f: edit(f / "config.json", hidden_size=64), "mismatched weights",
    ),
    "no configuration": (
        "sd_filter", lambda f: (f / "config.json").write_text("[]"), "not whole .config.json",
    ),
    "no processor": (
        "sd_filter",
        lambda f: (f / "preprocessor_config.json").write_text("{"),
        "not whole .preprocessor_config.json",
    ),
    "no concepts": (
        "sd_filter",
        lambda f: tiny_heads.save("clip", f),
        "missing weights: concept_embeds, concept_embeds_weights, special",
    ),
    "no network": (
        "nudenet", lambda f: (f / "classifier_model.onnx").write_text("<html>"), "not whole .class",
    ),
    "nan in a network": (
        "nudenet", lambda f: red_against_green(f, [[np.nan] * 3] * 2), "are no probabilities",
    ),
    "three outputs": (
        "nudenet", lambda f: red_against_green(f, [[1, 2, 3]] * 3), r"shape \(1, 3\) are no prob",
    ),
    "no probabilities": (
        "nudenet", lambda f: red_against_green(f, softmax=False), r"shape \(1, 2\) are no prob",
    ),
}  # fmt: skip


def cut(file):
    file.write_bytes(file.read_bytes()[:-400])


def edit(file, **values):
    config = json.loads(file.read_text())
    config["vision_config"] |= values
    file.write_text(json.dumps(config))


@pytest.mark.parametrize("case", DAMAGE)
def test_what_is_not_as_published_is_refused_by_name(case, own, capsys):
    name, damage, message = DAMAGE[case]
    damage(own / architecture(SYSTEMS[name].spec["model"]))
    with pytest.raises(InputError, match=message) as caught:
        make_judge(spec_of(name, own))
    assert len(caught.value.problems) == 1 and "\n" not in str(caught.value)
    assert "run" not in capsys.readouterr().out


def test_a_clip_is_needed_that_is_one(published, own):
    with pytest.raises(InputError, match="nano/model' is not whole .config.json: "):
        make_judge(spec_of("q16", published) | {"clip": str(NANO_MODEL)})
    with pytest.raises(InputError, match="unexpected weights: concept_embeds"):
        make_judge(spec_of("q16", published) | {"clip": str(published / "safety_checker")})
    for option in ("revision", "clip_revision"):
        with pytest.raises(InputError, match="has no revision 'v2'; omit it"):
            make_judge(spec_of("q16", published) | {option: "v2"})


def test_weights_in_a_file_of_torch_are_read_as_those_in_safetensors(published, own):
    folder = own / "safety_checker"
    weights = heads.Files(str(folder)).weights("model.safetensors")
    torch.save(weights, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    one, other = (make_judge(spec_of("sd_filter", place)) for place in (published, own))
    assert one.judge(under(SAMPLES, POLICIES)) == other.judge(under(SAMPLES, POLICIES))
    assert "pytorch_model.bin" in other.identity()["weights"]


def test_a_gate_is_named(hub, published):
    hub.repos["yiting/Q16"] = {"prompts.p": (published / "q16" / "prompts.p").read_bytes()}
    hub.gated.add("yiting/Q16")
    with pytest.raises(InputError, match="yiting/Q16' is gated .* accept its terms"):
        loading.file_of("yiting/Q16", "prompts.p")


# ---- NudeNet's detector, whose package is not installed with this one ----------------------------


def test_the_package_of_the_detector_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "nudenet", None)
    with pytest.raises(InputError, match=r"licence is the AGPL-3.0: pip install 'sgvl\[nudenet\]'"):
        make_judge("nudenet_v3")


@pytest.mark.skipif(not importlib.util.find_spec("nudenet"), reason="sgvl[nudenet] is AGPL-3.0")
def test_the_detector_sees_a_picture_as_in_a_file(tmp_path):
    """On its real weights; then on a network that takes the first channel, blue, for a breast."""
    import nudenet

    judge = make_judge("nudenet_v3")
    image = noise(320, 200)
    image.save(tmp_path / "a.png")
    assert judge._detector.detect(str(tmp_path / "a.png")) == []
    assert judge.judge(under([Sample("s", image)], POLICIES))[0].p_unsafe == 0
    h = tiny_heads
    weights = torch.zeros(22, 3, 160, 320)
    weights[4 + 3, 0] = 1 / (160 * 320)
    bias = torch.tensor([160.0, 160, 50, 50] + [0.0] * 18)
    nodes = (
        h._node("Conv", "images weights bias", "boxes", strides=[160, 320]),
        h._node("ReduceMean", "boxes", "output", axes=[3], keepdims=0),
    )
    graph = [(1, node) for node in nodes] + [(2, "test"), (5, h._tensor("weights", weights))]
    graph += [(5, h._tensor("bias", bias)), (11, h._value("images", ["n", 3, "h", "w"]))]
    graph += [(12, h._value("output", ["n", 22, 2]))]
    network = tmp_path / "detector.onnx"
    network.write_bytes(h._message([(1, 8), (7, graph), (8, [(2, 13)])]))
    judge._detector = nudenet.NudeDetector(str(network))
    found = [
        judge.judge(under([Sample("s", Image.new("RGB", (320, 320), color))], POLICIES))[0]
        for color in ((255, 0, 51), (0, 0, 102), (255, 255, 0))
    ]
    assert [answer.verdict for answer in found] == [SAFE, UNSAFE, SAFE]
    assert found[1].p_unsafe == pytest.approx(0.4, abs=1e-3)
    assert found[1].rationale == "policy not read; FEMALE_BREAST_EXPOSED"


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("zipped", [True, False])
def test_a_damaged_byte_of_a_file_of_tensors_ends_in_one_line(zipped, tmp_path):
    file, wrong = tmp_path / "a.pth", 0
    torch.save({"a": torch.ones(3)}, file, _use_new_zipfile_serialization=zipped)
    whole = file.read_bytes()
    for place in range(0, len(whole), 5):
        file.write_bytes(whole[:place] + b"\xff" + whole[place + 1 :])
        try:
            heads.Files(str(tmp_path)).weights("a.pth")
        except InputError as error:
            assert len(str(error).splitlines()) == 1
            wrong += 1
    assert wrong > 20
