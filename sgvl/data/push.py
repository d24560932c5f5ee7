"""Upload saved data sets, or a release, to the hub. Nothing is sent unless it is confirmed.

    python -m sgvl.data.push nano me/nano --sets safeeditbench general             list the files
    python -m sgvl.data.push nano me/nano --sets safeeditbench general --confirm   send them
    python -m sgvl.data.push nano me/bench --release bench --dry-run               list the files

A release is what 01d_release writes, with its own card; all of its files are compared with its
checksums first. ``--dry-run`` says what is the default, and excludes ``--confirm``.

A repository is private unless `--access` says gated (its owner admits each reader by hand) or
public. Drawn sets may be public. Real pictures go to a private or gated repository only, and their
card is tagged not-for-all-audiences. Those with metadata, such as where they were taken, go as PNG
files of the same pixels without it, and those that cannot be decoded stay here; `--keep-metadata`
sends all as they are. The token is the hub's own, from HF_TOKEN or `hf auth login`.
Exit codes: 0 done, 2 bad input.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset
from huggingface_hub import CommitOperationAdd, DatasetCard, HfApi, get_token

from sgvl.common import commands
from sgvl.common.errors import ExitCode, InputError, raise_any
from sgvl.common.files import sha256
from sgvl.common.paths import plain_name, runs
from sgvl.data import arrow, dataset_card, store
from sgvl.data.images import ImageError, has_metadata, without_metadata
from sgvl.data.sources import hub
from sgvl.data.sources.safeeditbench import CHECKSUMS

ACCESS = ("private", "gated", "public")


def plan(
    folder: Path, names: Sequence[str], keep_metadata: bool = False
) -> tuple[dict[str, bytes | Path], list[str]]:
    """Return the files to send for these sets, by name, and the sets that hold real pictures.

    The files are the sets in ``folder``, their part of the manifest, and their card. A real set
    whose pictures have metadata is written anew without it, unless ``keep_metadata``. Raises
    InputError as ``store.read`` does.
    """
    if not names:
        raise InputError("push: no sets named; name them after --sets")
    real = [name for name in names if not dataset_card.is_drawn(store.read(name, folder))]
    manifest = json.loads((folder / store.MANIFEST).read_text(encoding="utf-8"))
    manifest["sets"] = {name: manifest["sets"][name] for name in names}
    parquet: dict[str, bytes | Path] = {name: folder / f"{name}.parquet" for name in names}
    for name in real:
        rows = store.read(name, folder)
        bare = None if keep_metadata else _without_metadata(rows)
        if bare is None and arrow.is_folded(parquet[name]):
            bare = rows
        if bare is not None:
            parquet[name] = arrow.temporary_file(".parquet")
            bare.to_parquet(parquet[name])
            manifest["sets"][name]["sha256"] = sha256(parquet[name])
    return {
        **{f"{name}.parquet": content for name, content in parquet.items()},
        "README.md": str(dataset_card.make_card(folder, names)).encode(),
        store.MANIFEST: (json.dumps(manifest, indent=1) + "\n").encode(),
    }, real


def plan_release(folder: Path) -> tuple[dict[str, bytes | Path], list[str]]:
    """Return the files of a release by name, and its own name if it holds real pictures.

    Raises InputError for a folder that is no release, and for files that are not those of its
    checksums.
    """
    try:
        lines = (folder / CHECKSUMS).read_text(encoding="utf-8").splitlines()
        digests = {name: digest for digest, name in (line.split("  ", 1) for line in lines)}
    except (OSError, ValueError):
        raise InputError(f"{folder} is no finished release; run notebook 01d_release") from None
    there = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    raise_any(
        f"{folder / name} is not the file of {CHECKSUMS}; write the release again"
        for name in sorted({*there, *digests, "README.md"} - {CHECKSUMS})
        if name not in there or name not in digests or sha256(there[name]) != digests[name]
    )
    tags = DatasetCard.load(folder / "README.md").data.tags
    return there, [] if "synthetic" in (tags or []) else [folder.name]


def _without_metadata(dataset: Dataset) -> Dataset | None:
    """Return a set without the metadata of its pictures; None if they have none."""
    files = store.without_decoding(dataset)
    marked = [row["image"] is not None and has_metadata(row["image"]["bytes"]) for row in files]

    def bare(file: dict) -> dict | None:
        try:
            return {"bytes": without_metadata(file["bytes"]), "path": None}
        except ImageError:
            return None

    if not any(marked):
        return None
    rows = (
        row | {"image": bare(row["image"])} if has else row
        for row, has in zip(files, marked, strict=True)
    )
    return arrow.write_rows(rows, files.features).cast(dataset.features)


def send(
    files: dict[str, bytes | Path], real: Sequence[str], repo: str, access: str, what: str
) -> str:
    """Upload files to the hub's data set ``repo`` in one commit and return its URL.

    All checks come before the first file is sent.

    Parameters
    ----------
    files, real : as ``plan`` returns them
    repo : ``owner/name``; it is made if it is not there
    access : one of ``ACCESS``
    what : named in the message of the commit

    Raises
    ------
    InputError
        For real pictures that would be public, by ``access`` or because the repository is; for a
        repository that holds other sets; without a token; and as ``hub.download`` does.
    """
    if real and access == "public":
        raise InputError(
            f"{', '.join(real)}: real pictures; access is private or gated, not public"
        )
    if not get_token():
        raise InputError(f"push: set {hub.TOKEN} to a token of yours that may write to {repo}")
    client = HfApi()
    with hub.explained(repo, "main"):
        client.create_repo(repo, repo_type="dataset", private=access != "public", exist_ok=True)
        if access == "gated":
            client.update_repo_settings(repo, repo_type="dataset", gated="manual", private=False)
        info = client.dataset_info(repo)  # a repository that existed keeps its own access
        if real and not (info.private or info.gated):
            raise InputError(
                f"{repo} is public, and {', '.join(real)} holds real pictures; see --access"
            )
        there = {file.rfilename for file in info.siblings if file.rfilename.endswith(".parquet")}
        if others := sorted(there - files.keys()):  # the new card would not mention them
            raise InputError(
                f"{repo} holds {', '.join(others)}; name these sets, too, or another repo"
            )
        done = client.create_commit(
            repo,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=f"sgvl: {what}",
            repo_type="dataset",
        )
    return str(done.repo_url)


def main(arguments: list[str] | None = None) -> ExitCode:
    """Run the command line and return its exit code."""
    parser = commands.parser("sgvl.data.push", __doc__)
    parser.add_argument("profile", help="the folder of runs/ that holds the sets, such as nano")
    parser.add_argument("repo", help="owner/name on the hub")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--sets", nargs="+", help="names of saved sets")
    what.add_argument("--release", help="the folder of the profile's release/, such as bench")
    parser.add_argument("--access", choices=ACCESS, default="private")
    sent = parser.add_mutually_exclusive_group()
    sent.add_argument("--confirm", action="store_true", help="send; without it, list the files")
    sent.add_argument("--dry-run", action="store_true", help="list the files, the default")
    parser.add_argument("--keep-metadata", action="store_true", help="of real pictures: EXIF, GPS")
    options = parser.parse_args(arguments)
    return commands.run(lambda: _main(options))


def _main(options: argparse.Namespace) -> ExitCode:
    run = runs(options.profile)
    if options.release:
        files, real = plan_release(run / "release" / plain_name("release", options.release))
        what = options.release
    else:
        files, real = plan(run / "data", options.sets, options.keep_metadata)
        what = ", ".join(options.sets)
    if options.confirm:
        print(send(files, real, options.repo, options.access, what))
    else:
        print("nothing was sent; these files would be:", *sorted(files), sep="\n  ")
        print("real pictures:", ", ".join(real) or "none")
    return ExitCode.DONE


if __name__ == "__main__":
    sys.exit(main())
