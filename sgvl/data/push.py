"""Put saved data sets on the hub, with their card. Nothing is sent unless it is confirmed.

    python -m sgvl.data.push nano me/nano --sets safeeditbench general             what would go
    python -m sgvl.data.push nano me/nano --sets safeeditbench general --confirm   send it

A repository is private unless `--access` says gated (whoever asks is let in by its owner, by hand)
or public. Drawn sets may be public. What holds real pictures may not: it goes to a private or gated
repository alone, and its card is tagged not-for-all-audiences. The token is the hub's own, from
HF_TOKEN or `hf auth login`. Exit codes: 0 done, 2 bad input.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import CommitOperationAdd, HfApi, get_token

from sgvl.common.errors import InputError, need_known
from sgvl.common.paths import runs
from sgvl.data import dataset_card, store
from sgvl.data.sources import hub

ACCESS = ("private", "gated", "public")


class Plan(NamedTuple):
    """What would be sent: content by its name in the repository, and whether it may be public."""

    files: dict[str, bytes | Path]
    real: list[str]  # sets with real pictures


def plan(folder: Path, names: Sequence[str]) -> Plan:
    """The files of these sets in ``folder``, their manifest, card and Croissant file.

    Raises InputError as ``store.read`` does.
    """
    if not names:
        raise InputError("push: no sets named; name them after --sets")
    real = [name for name in names if not dataset_card.is_drawn(store.read(name, folder))]
    manifest = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))
    manifest["sets"] = {name: manifest["sets"][name] for name in names}
    texts = dataset_card.texts(folder, names) | {
        store.MANIFEST: json.dumps(manifest, indent=1) + "\n"
    }
    files = {f"{name}.parquet": folder / f"{name}.parquet" for name in names}
    return Plan(files | {name: text.encode() for name, text in texts.items()}, real)


def push(
    folder: Path, names: Sequence[str], repo: str, confirm: bool = False, access: str = "private"
) -> str:
    """Send sets to the hub's data set ``repo`` and return its address; without ``confirm``, refuse.

    Raises InputError for real pictures that would be public, by ``access`` or because the
    repository is, for a repository with other sets, and as ``hub.download`` does. Nothing is sent
    before all that is settled.
    """
    need_known("push: access", access, ACCESS)
    files, real = plan(folder, names)
    if real and access == "public":
        raise InputError(
            f"{', '.join(real)}: real pictures; access is private or gated, not public"
        )
    if not confirm:
        raise InputError(f"{len(files)} files would go to {repo}, {access}; confirm to send them")
    if not get_token():
        raise InputError(f"push: set {hub.TOKEN} to a token of yours that may write to {repo}")
    client = HfApi()
    with hub.explained(repo, "main"):
        client.create_repo(repo, repo_type="dataset", private=access != "public", exist_ok=True)
        if access == "gated":
            client.update_repo_settings(repo, repo_type="dataset", gated="manual", private=False)
        info = client.dataset_info(repo)  # one that was there before keeps its own access
        if real and not (info.private or info.gated):
            raise InputError(
                f"{repo} is public, and {', '.join(real)} holds real pictures; see --access"
            )
        there = [file.rfilename for file in info.siblings if file.rfilename.endswith(".parquet")]
        if others := sorted(set(there) - set(files)):  # the new card would be silent about them
            raise InputError(
                f"{repo} holds {', '.join(others)}; name these sets, too, or another repo"
            )
        done = client.create_commit(
            repo,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=f"sgvl: {', '.join(names)}",
            repo_type="dataset",
        )
    return str(done.repo_url)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m sgvl.data.push", description=__doc__.split("\n")[0]
    )
    parser.add_argument("profile", help="whose sets: a folder of runs/, such as nano")
    parser.add_argument("repo", help="owner/name on the hub")
    parser.add_argument("--sets", nargs="+", required=True, help="names of saved sets")
    parser.add_argument("--access", choices=ACCESS, default="private")
    parser.add_argument("--confirm", action="store_true", help="send; without it, only show")
    options = parser.parse_args(arguments)
    folder = runs(options.profile) / "data"
    try:
        if options.confirm:
            print(push(folder, options.sets, options.repo, True, options.access))
        else:
            files, real = plan(folder, options.sets)
            print("would go, and nothing was sent:", *files, sep="\n  ")
            print("real pictures:", ", ".join(real) or "none")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
