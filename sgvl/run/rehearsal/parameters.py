"""The parameters of a rehearsal: those of a profile, with a few keys changed, all listed here."""

import math
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from sgvl.common.paths import ROOT
from sgvl.run.rehearsal import published
from sgvl.run.servers import ROLLOUTS, Server

TWO_RANKS = ("03_sft.recap", "04_grpo.full")  # units that train in two processes, where any do
SHORT = {"max_steps": 2, "logging_steps": 1}  # settings of a training
TOKENS = 24  # of a reply
PORTS = 20_000  # from the port of a server to that of its stand-in


class Rehearsed:
    """The parameters of one profile's units as they are rehearsed.

    Parameters
    ----------
    profile : whose units are rehearsed
    name : of the profile that rehearses them
    folder : where stand-ins for folders of data are made
    servers : those that the profile declares, by name
    """

    def __init__(
        self, profile: str, name: str, folder: Path, servers: dict[str, Server] | None = None
    ):
        self.profile, self.name, self.folder = profile, name, folder
        self._moved = {server.url: _moved(server.url) for server in (servers or {}).values()}

    def parameters(self, unit: str, real: dict) -> dict:
        """Return a unit's parameters with the keys of ``CHANGES`` changed, at any depth."""
        values = self._changed(real, unit)
        if "settings" in values:
            values["settings"] |= SHORT | self._batch(real, values["processes"])
        return values

    def _changed(self, value, unit: str):
        if isinstance(value, list):
            return [self._changed(part, unit) for part in value]
        if not isinstance(value, dict):
            return value
        return {
            key: CHANGES[key](self, unit, part) if key in CHANGES else self._changed(part, unit)
            for key, part in value.items()
        }

    def _batch(self, real: dict, processes: int) -> dict:
        """Return batch settings for fewer processes: as many rows in all of them at a time."""
        of_one = real["settings"].get("per_device_train_batch_size", 8) * real["processes"]
        size = {"per_device_train_batch_size": of_one // processes}
        steps = real["settings"].get("gradient_accumulation_steps")
        return size if steps is None else size | {"gradient_accumulation_steps": min(steps, 2)}

    def _profile(self, unit: str, value: str) -> str:
        return self.name if value == self.profile else value

    def _model(self, unit: str, value: str) -> str:
        path, own = PurePosixPath(value), PurePosixPath("runs", self.profile)
        if own not in path.parents:
            return value
        return str(PurePosixPath("runs", self.name) / path.relative_to(own))

    def _folder(self, unit: str, value: str) -> str:
        return os.path.relpath(published.write_folder(self.folder / "sets"), ROOT) if value else ""

    def _votes(self, unit: str, value: str) -> str:
        return os.path.relpath(published.write_votes(self.folder / "votes.json"), ROOT)

    def _url(self, unit: str, value: str) -> str:
        return self._moved.get(value) or value.replace("https://", "http://")

    def _processes(self, unit: str, value: int) -> int:
        return min(value, 2 if unit in TWO_RANKS else 1)


def servers(real: dict[str, Server]) -> dict[str, dict]:
    """Return the servers of a rehearsal as ``servers.yaml`` declares them: small, by rule."""
    command = [sys.executable, "-m", "sgvl.run.rehearsal.server", "{port}", "{model}"]
    return {
        name: {"url": _moved(server.url), "model": server.model, "command": [*command]}
        for name, server in real.items()
    }


def _moved(url: str) -> str:
    """Return the URL of a stand-in: not through the proxy, nor at the port of a real server."""
    return f"http://127.0.0.1:{urlsplit(url).port + PORTS}/v1"


def _set(new) -> Callable:
    return lambda self, unit, value: new


def _all(self, unit: str, value):
    """Return 0, which means all; pictures are names of sets in 02, and drawn ones in the lesson."""
    return 0 if isinstance(value, int) and not unit.startswith("08") else value


def _at_most(most: int) -> Callable:
    return lambda self, unit, value: min(value, most)


# The keys that may differ, each with what it becomes; settings of a training have those of SHORT
# and the sizes of batches beside.
CHANGES: dict[str, Callable] = {
    # Names of this profile's folders; names of models stay, and lead to the hub on this machine.
    **dict.fromkeys(("profile", "data_profile", "benchmark_profile"), Rehearsed._profile),
    **dict.fromkeys(("benchmark", "method"), Rehearsed._profile),
    **dict.fromkeys(("model", "pairs_train"), Rehearsed._model),  # or a set of 01b
    # What stands in for hardware, servers and folders of data.
    "url": Rehearsed._url,
    ROLLOUTS: lambda self, unit, value: self._url(unit, f"{value}/v1").removesuffix("/v1"),
    "device": _set("cpu"),
    "dtype": _set("float32"),
    **dict.fromkeys(("bf16", "use_vllm", "offload"), _set(False)),
    "processes": Rehearsed._processes,
    "layout": _set("ddp"),
    "path": Rehearsed._folder,
    # No edit of random weights passes the gate, so the published pairs are annotated, by rule.
    **{"made": _set(""), "votes": Rehearsed._votes},
    # Sizes: the sets are small, so all of each is taken.
    **dict.fromkeys(("images", "rows", "pairs", "pictures"), _all),
    **dict.fromkeys(("max_new_tokens", "max_tokens", "max_completion_length"), _at_most(TOKENS)),
    "resamples": _at_most(200),
}


def differences(real, rehearsed, path: str = "") -> Iterator[str]:
    """Yield the dotted path of each value that differs, is missing or was added."""
    if isinstance(real, dict) and isinstance(rehearsed, dict):
        for key in {**real, **rehearsed}:
            yield from differences(
                real.get(key, math.nan), rehearsed.get(key, math.nan), f"{path}.{key}".strip(".")
            )
    elif isinstance(real, list) and isinstance(rehearsed, list) and len(real) == len(rehearsed):
        for k, (one, other) in enumerate(zip(real, rehearsed, strict=True)):
            yield from differences(one, other, f"{path}.{k}")
    elif real != rehearsed:
        yield path
