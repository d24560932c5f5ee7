"""List the systems that can judge, print the spec of one, or check it.

    python -m sgvl.judges                          list them, as in docs/JUDGES.md
    python -m sgvl.judges llama_guard_4            print its spec, for 05_benchmark
    python -m sgvl.judges llama_guard_4 --check    ask a tiny model of its architecture
    python -m sgvl.judges llama_guard_4 --check --model FOLDER    ask the weights in a folder
    python -m sgvl.judges openai_decisions --check    ask a server here that answers at random
    python -m sgvl.judges glm_4v_9b --check --url http://gpu:8000/v1    ask a real one

A check asks about two pictures under a policy, and says what is read once for several cases. The
answers of a tiny model mean nothing: it has random weights. Exit codes: 0 done, 2 bad input.
"""

import os
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from sgvl.common import commands
from sgvl.common.errors import ExitCode, InputError
from sgvl.judges import JUDGES, make_judge, under
from sgvl.judges.systems import ABSENT, SYSTEMS, System, spec_of
from sgvl.run.rehearsal import NO_PROXY
from sgvl.run.rehearsal.hub import local_hub
from sgvl.run.rehearsal.server import RehearsalHandler
from sgvl.run.units import SERVED

PAGE = """\
# Released models as judges

Written by `python -m sgvl.judges > docs/JUDGES.md`. A name is a kind of judge in a parameter file;
`python -m sgvl.judges NAME` prints the spec that it stands for, with the key `model`.

Each was tried as `--check` does: on a tiny model of its architecture with random weights, or on a
local server that speaks its protocol. Only OpenNSFW and NudeNet v3 were asked with their real
weights, which their packages hold. Llama Guard 4 and Shieldstral got pictures that Pillow had
resized, because their own processors need torchvision. Every judge gives P(unsafe), a served one
where its server sends log-probabilities. Memory is that of the weights, two bytes a parameter in
bfloat16 and four of a classifier: pictures, policies and replies come on top.

Before its first answer a chat model proves on its own weights that the policy arrives and that
batches and shared parts change no answer; what they would change is asked the slower way, and
`prefix_sharing` says so. Classifiers read no policy. Pictures are prepared as by their authors,
thresholds are theirs, and those on CLIP share its pass over a picture.

| name | model | class | parameters | memory | licence | gate | asked by | how the policy reaches \
it | known trouble |
| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"""


def main(arguments: list[str] | None = None) -> ExitCode:
    """Run the command line and return its exit code."""
    parser = commands.parser("sgvl.judges", __doc__)
    parser.add_argument("name", nargs="?", help="of a system")
    parser.add_argument("--check", action="store_true", help="ask it about two pictures")
    parser.add_argument("--model", help="a folder or hub id with its weights, for --check")
    parser.add_argument("--url", help="of its server, up to and with /v1, for --check")
    options = parser.parse_args(arguments)
    return commands.run(lambda: _main(**vars(options)))


def _main(name: str | None, check: bool, model: str | None, url: str | None) -> ExitCode:
    if not name and (check or model or url):
        raise InputError("name the judge; `python -m sgvl.judges` lists them")
    if not name:
        print(page(), end="")
        return ExitCode.DONE
    spec, system = spec_of(name), SYSTEMS.get(name)
    if not check and (model or url):
        raise InputError("--model and --url are for --check; add it")
    if url and spec["kind"] not in SERVED:
        raise InputError(f"--url is for judges behind a server; {name} is loaded here, by --model")
    if not check:
        print(yaml.safe_dump([spec], sort_keys=False), end="")
    elif model or url:
        _check(spec | {key: v for key, v in (("model", model), ("url", url)) if v})
    elif spec["kind"] in SERVED:
        print("a stand-in on this machine answers, at random; --url asks a real server")
        with local_hub(RehearsalHandler) as hub:
            os.environ |= dict.fromkeys(("NO_PROXY", "no_proxy"), NO_PROXY)
            _check(spec | {"url": f"{hub.url}/v1", "key_variable": ""})
    else:
        from sgvl.models import tiny

        with TemporaryDirectory() as folder:
            quick = {"max_new_tokens": 8, "dtype": "float32"}
            for key, kind in {
                "model": system.stand_in or system.architecture,
                "clip": "clip",
            }.items():
                if key in spec:
                    quick[key] = str(Path(folder) / key)
                    tiny.save(kind, quick[key])
            if quick.keys() & {"model", "clip"}:
                print("a tiny model with random weights answers; --model asks the real one")
            _check({key: quick.get(key, value) for key, value in spec.items()})
    return ExitCode.DONE


def page() -> str:
    """Return the table of systems, as ``docs/JUDGES.md`` holds it."""
    rows = [
        f"| `{name}` | {s.spec.get('model', 'in a package')} | {_class(s)} | {_size(s)} | "
        f"{s.memory} | {s.licence} | {s.gate} | {_way(s.spec)} | {s.policy} | {s.trouble} |"
        for name, s in SYSTEMS.items()
    ]
    rows += [
        f"| `{name}` | {model} | | | | | | | | cannot be asked: {reason} |"
        for name, (model, reason) in ABSENT.items()
    ]
    return "\n".join([PAGE, *rows, ""])


def _class(system: System) -> str:
    """Return the class that loads a model, in transformers or here."""
    from transformers.models.auto import modeling_auto as auto

    own = {"shieldgemma2": "ShieldGemma2ForImageClassification"}  # transformers lists Gemma 3's
    classes = auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES | own
    judge = JUDGES[system.spec["kind"]].rpartition(":")[2]
    return f"`{classes.get(system.architecture, judge)}`"


def _size(system: System) -> str:
    return f"{system.billions:g} B" if system.billions else ""


def _way(spec: dict) -> str:
    kind = [] if spec["kind"] == "chat" else [f"kind `{spec['kind']}`"]
    own = {"prompt": "prompt", "parser": "parser", "policy_form": "form"}
    return ", ".join(
        [*kind, *(f"{name} `{spec[key]}`" for key, name in own.items() if key in spec)]
    )


def _check(spec: dict) -> None:
    from PIL import Image

    from sgvl.data import Sample
    from sgvl.policies.policy import load

    judge, policy = make_judge(spec), load("L3")
    if judge.prefix_sharing:
        policy_too = "the policy arrives" if judge.reads_policy else "it reads no policy"
        print(f"the architecture is {judge.model.config.model_type}; {policy_too}")
        print(f"read once for several cases: {judge.prefix_sharing}")
    samples = [Sample(color, Image.new("RGB", (320, 224), color)) for color in ("teal", "white")]
    for sample, answer in zip(samples, judge.judge(under(samples, [policy])), strict=True):
        p = "none" if answer.p_unsafe is None else f"{answer.p_unsafe:.3f}"
        said = answer.rationale if answer.reply is None else answer.reply
        print(f"{sample.id}: {answer.verdict}, P(unsafe) {p}, {said}")


if __name__ == "__main__":
    sys.exit(main())
