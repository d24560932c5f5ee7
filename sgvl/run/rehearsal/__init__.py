"""The rehearsal of a profile for GPUs: every unit, on this machine, with stand-ins.

``python -m sgvl.run PROFILE --rehearse`` runs the profile ``PROFILE_rehearsal``, whose parameter
files it writes into that profile's run folder. They are those of ``PROFILE`` but for the keys in
``parameters.CHANGES``: few steps, small sets, and the CPU. Models and data sets come from a hub on
this machine that serves small ones under the same names, in the published form. Neither a notebook
nor a module outside this folder knows of a rehearsal.
"""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import yaml

from sgvl.common.files import write as write_file
from sgvl.common.paths import ROOT, runs
from sgvl.run.rehearsal import parameters
from sgvl.run.rehearsal.hub import Hub, local_hub
from sgvl.run.rehearsal.models import stand_ins
from sgvl.run.rehearsal.parameters import Rehearsed
from sgvl.run.rehearsal.published import publish
from sgvl.run.rehearsal.server import RehearsalHandler
from sgvl.run.servers import declared
from sgvl.run.units import SERVED, SERVERS, Unit, parts

TOKEN = "rehearsal"  # has accepted the terms of every gated set on the local hub
NO_PROXY = "127.0.0.1"  # of the hub and of servers; all others are asked through the proxy


def write(profile: str, units: dict[str, Unit]) -> str:
    """Write the parameter files of the profile that rehearses ``profile``; return its name."""
    name = f"{profile}_rehearsal"
    servers = declared(profile, units)
    rehearsed = Rehearsed(profile, name, runs(name), servers)
    texts = {
        unit.name: yaml.safe_dump(rehearsed.parameters(unit.name, unit.parameters), sort_keys=False)
        for unit in units.values()
    }
    texts |= {Path(SERVERS).stem: yaml.safe_dump(parameters.servers(servers))} if servers else {}
    folder = runs(name) / "params"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for unit, text in texts.items():
        write_file(folder / f"{unit}.yaml", text)
    return name


def hub_models(units: dict[str, Unit]) -> set[str]:
    """Return the models that units load from the hub: neither nano nor in a folder."""
    dicts = [d for unit in units.values() for d in parts(unit.parameters) if isinstance(d, dict)]
    dicts = [d for d in dicts if d.get("kind") not in SERVED]
    named = {d[key] for d in dicts for key in ("model", "clip") if key in d}
    return {m for m in named - {"nano"} if not (m.startswith("runs/") or (ROOT / m).is_dir())}


@contextmanager
def stage(name: str, units: dict[str, Unit]) -> Iterator[Hub]:
    """Serve the models, data sets and chat servers that ``units`` ask, and point children at them.

    The environment of this process is changed until the end: the address of the hub, its token,
    its caches, and the proxy. What a user has set is back afterwards, and no cache of theirs is
    touched.

    Raises InputError for a model that has no stand-in.
    """
    with local_hub(RehearsalHandler) as hub:
        publish(hub)
        for model, folder in stand_ins(hub_models(units), runs(name) / "models").items():
            files = [file for file in folder.rglob("*") if file.is_file()]
            hub.repos[model] = {
                file.relative_to(folder).as_posix(): file.read_bytes() for file in files
            }
        hub.members.add(TOKEN)
        hub.commit = _digest(hub)
        values = [part for unit in units.values() for part in parts(unit.parameters)]
        dicts = [value for value in values if isinstance(value, dict)]
        hub.revisions |= {str(value["revision"]) for value in dicts if "revision" in value}
        keys = {value["key_variable"] for value in dicts if value.get("key_variable")}
        cache = runs(name) / "cache"
        proxies = ("http_proxy", "https_proxy", "all_proxy")
        environment = {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": TOKEN,
            "HF_HOME": str(cache / "huggingface"),
            "HF_HUB_OFFLINE": "0",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_XET": "1",
            "SGVL_DOWNLOADS": str(cache / "downloads"),
            "CUDA_VISIBLE_DEVICES": "",
            **dict.fromkeys(keys, TOKEN),
            **dict.fromkeys([*proxies, *map(str.upper, proxies)], hub.url),
            **dict.fromkeys(("no_proxy", "NO_PROXY"), NO_PROXY),
        }
        before = dict(os.environ)
        # The variables that huggingface_hub would prefer to HF_HOME.
        for variable in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_DATASETS_CACHE"):
            os.environ.pop(variable, None)
        os.environ.update(environment)
        try:
            yield hub
        finally:
            os.environ.clear()
            os.environ.update(before)


def _digest(hub: Hub) -> str:
    """Return a commit for what a hub serves, so that a cache of another content is not used."""
    sha = hashlib.sha256()
    for files in hub.repos.values():
        for path, content in files.items():
            sha.update(path.encode() + content)
    return sha.hexdigest()[:40]
