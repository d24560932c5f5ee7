"""Servers that units ask: started before the first of these units, stopped after the last.

A profile declares them in ``params/<profile>/servers.yaml``, by name. A unit needs those whose
``url`` its parameters name, or whose address TRL's ``vllm_server_base_url`` names, so no unit lists
its servers twice:

    captioner:
      url: http://localhost:8001/v1
      model: Qwen/Qwen2.5-VL-7B-Instruct
      gpus: [0, 1]
      arguments: [--data-parallel-size, "2"]

What already answers at the URL is used as it is, and never stopped.
"""

import http.client
import json
import os
import shlex
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

from sgvl.common import process_group
from sgvl.common.errors import InputError, nearest, raise_any
from sgvl.common.paths import ROOT, plain_name, runs
from sgvl.run.parameters import checked, load_yaml
from sgvl.run.units import SERVERS, Unit, parameters_of, parts

VLLM = ["vllm", "serve", "{model}", "--host", "127.0.0.1", "--port", "{port}"]
HERE = ("localhost", "127.0.0.1")  # hosts on which a server can be started
VISIBLE = "CUDA_VISIBLE_DEVICES"
ROLLOUTS = "vllm_server_base_url"  # TRL's setting: a server without its /v1
POLL = 0.2  # seconds between two looks at a server that is starting
TAIL = 20  # lines of a log that are shown


class Server(BaseModel):
    """A server as a profile declares it; ``command`` is how it is started, by default vLLM."""

    model_config = ConfigDict(strict=True, extra="forbid")

    url: str  # as in the parameters of the units that ask it: up to and with /v1
    model: str  # its name there, too
    gpus: list[int] = []  # which it sees, of those that the runner does; empty: it may choose
    arguments: list[str] = []  # added to the command
    variables: dict[str, str] = {}  # of its environment, beside those of the runner
    command: Annotated[list[str], Field(min_length=1)] = VLLM
    patience: PositiveInt = 1800  # seconds until it must answer: weights are loaded, or downloaded

    def line(self) -> list[str]:
        """Return the command with its arguments."""
        facts = {"model": self.model, "port": str(urlsplit(self.url).port)}
        words = [*self.command, *self.arguments]
        for name, value in facts.items():
            words = [word.replace(f"{{{name}}}", value) for word in words]
        return words

    def environment(self) -> dict[str, str]:
        """Return the variables that are set for it."""
        seen = list(filter(None, os.environ.get(VISIBLE, "").split(",")))
        own = [seen[k] if k < len(seen) else f"{k}" for k in self.gpus]
        gpus = {VISIBLE: ",".join(own)} if own else {}
        return gpus | self.variables

    def shown(self) -> str:
        """Return the line of a shell that starts it."""
        variables = [f"{name}={value}" for name, value in self.environment().items()]
        return " ".join([*variables, shlex.join(self.line())])


class ServerFault(RuntimeError):
    """A server that ended, or did not answer in time; the text ends with the tail of its log."""


def declared(profile: str, units: dict[str, Unit]) -> dict[str, Server]:
    """Read and check the servers of a profile, by name; none if it has no ``servers.yaml``.

    Raises
    ------
    InputError
        For a wrong key or value, a URL that is not on this machine, two servers at one URL, one
        that no unit asks, and a unit that asks it for another model; all problems at once.
    """
    file = parameters_of(profile) / SERVERS
    if not file.exists():
        return {}
    where, servers, problems = os.path.relpath(file, ROOT), {}, []
    for name, values in load_yaml(file).items():
        try:
            plain_name(f"{where}: server", name)  # its log has it
            if not isinstance(values, dict):
                raise InputError(f"{where}: {name}: expected `key: value` lines, got {values!r}")
            servers[name] = Server(**checked(Server, values, f"{where}: {name}"))
        except InputError as error:
            problems += error.problems
    asked = [(unit, *pair) for unit in units.values() for pair in _asking(unit)]
    urls = [server.url for server in servers.values()]
    for name, server in servers.items():
        own = f"{where}: {name}: url {server.url!r}"
        askers = [(unit, model) for unit, url, model in asked if url == server.url]
        if not _is_local(server.url):
            problems.append(f"{own}: expected http://localhost:PORT/v1")
        elif urls.count(server.url) > 1:
            problems.append(f"{own}: two servers have it")
        elif not askers:
            known = sorted({url for _, url, _ in asked})
            problems.append(f"{own}: no unit asks it; {nearest(server.url, known)}")
        problems += [
            f"{where}: {name}: model {server.model!r}, but {unit.name} asks it for {model!r}"
            for unit, model in askers
            if model not in (None, server.model)
        ]
    raise_any(problems)
    return servers


def _asking(unit: Unit) -> list[tuple[str, str | None]]:
    """List the servers' URLs that a unit's parameters name, each with the model, if it is named."""
    found = [part for part in parts(unit.parameters) if isinstance(part, dict)]
    asked = [(part["url"], part.get("model")) for part in found if isinstance(part.get("url"), str)]
    bases = [part[ROLLOUTS] for part in found if isinstance(part.get(ROLLOUTS), str)]
    return asked + [(f"{base.rstrip('/')}/v1", None) for base in bases]


def _is_local(url: str) -> bool:
    try:
        at = urlsplit(url)
        return at.scheme == "http" and at.hostname in HERE and bool(at.port)
    except ValueError:
        return False


def asked_by(unit: Unit, servers: dict[str, Server]) -> list[str]:
    """List the names of the servers that a unit asks."""
    urls = {url for url, _ in _asking(unit)}
    return [name for name, server in servers.items() if server.url in urls]


def need_commands(units: Iterable[Unit], servers: dict[str, Server]) -> None:
    """Raise InputError for servers that are to be started by commands that are not installed."""
    names = dict.fromkeys(name for unit in units for name in asked_by(unit, servers))
    raise_any(
        f"server {name}: {program} is not installed; pip install -e '.[gpu]', or start the server "
        "yourself"
        for name in names
        if not shutil.which(program := servers[name].command[0])
        and models_at(servers[name].url) is None
    )


def models_at(url: str) -> list[str] | None:
    """Return the models that a server on this machine lists; None if none answers there."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with direct.open(f"{url}/models", timeout=5) as answer:
            return [str(model["id"]) for model in json.load(answer)["data"]]
    except (urllib.error.HTTPError, http.client.HTTPException):
        return []
    except OSError:
        return None
    except (ValueError, LookupError, TypeError):
        return []  # some other page


class Servers:
    """The servers of one run. Those that it has started end with it, also if it is killed.

    Parameters
    ----------
    profile : whose run folder takes the logs
    servers : by name, as ``declared`` returns them
    """

    def __init__(self, profile: str, servers: dict[str, Server]):
        self.servers, self.folder = servers, runs(profile) / "servers"
        self.keepers: dict[str, subprocess.Popen] = {}

    def start(self, unit: Unit) -> None:
        """Start the servers that a unit asks and that do not run, and wait until all answer.

        Raises ServerFault for one that ends, answers with other models, or is not ready in time.
        """
        names = asked_by(unit, self.servers)
        for name in names:
            if name in self.keepers and self.keepers[name].poll() is None:
                continue
            if models_at(self.servers[name].url) is None:
                self._spawn(name)
        for name in names:
            self._wait(name)

    def _spawn(self, name: str) -> None:
        server = self.servers[name]
        print(f"server {name}: {server.shown()}", flush=True)
        self.folder.mkdir(parents=True, exist_ok=True)
        with self.log(name).open("ab") as log:
            environment = os.environ | server.environment()
            self.keepers[name] = process_group.start(server.line(), log, environment)

    def _wait(self, name: str) -> None:
        server = self.servers[name]
        end = time.monotonic() + server.patience
        while server.model not in (models := models_at(server.url) or []):
            if fault := self.fault(name):
                raise ServerFault(fault)
            if models:
                raise ServerFault(
                    f"server {name}: {server.url} serves {', '.join(models)}, not {server.model}; "
                    "stop what runs there, or take another port"
                )
            if time.monotonic() > end:
                problem = f"does not list {server.model} after {server.patience} s (`patience`)"
                raise ServerFault(self._with_log(name, problem))
            time.sleep(POLL)

    def keep(self, units: Iterable[Unit]) -> None:
        """Stop the started servers that none of these units asks; their GPUs are free then."""
        wanted = {name for unit in units for name in asked_by(unit, self.servers)}
        for name in [name for name in self.keepers if name not in wanted]:
            process_group.end(self.keepers.pop(name))

    def faults(self, unit: Unit) -> str:
        """Say which of the servers that a unit asks have ended; "" if none has."""
        return "\n".join(filter(None, map(self.fault, asked_by(unit, self.servers))))

    def fault(self, name: str) -> str:
        """Say that a started server has ended, with the tail of its log; "" if it has not."""
        code = self.keepers[name].poll() if name in self.keepers else None
        return "" if code is None else self._with_log(name, f"ended with exit code {code}")

    def log(self, name: str) -> Path:
        """Return the file that takes what a server prints."""
        return self.folder / f"{name}.log"

    def _with_log(self, name: str, problem: str) -> str:
        log = self.log(name)
        lines = log.read_text("utf-8", "replace").splitlines()[-TAIL:] if log.exists() else []
        head = f"server {name} ({self.servers[name].url}) {problem}; {os.path.relpath(log, ROOT)}:"
        return "\n".join([head, *lines])
