"""Files of data sets on the hub: all of one commit, cached and resumed by the hub's own client."""

from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import httpx2
from datasets import Dataset, concatenate_datasets
from huggingface_hub import HfApi, constants, errors

from sgvl.common.errors import InputError

TOKEN = "HF_TOKEN"
MEANWHILE = "the nano profile runs without it: python -m sgvl.run nano"


def download(repo: str, revision: str, pattern: str) -> tuple[str, list[Path]]:
    """The files of a data set that match a pattern, at the commit that ``revision`` names now.

    Returns the data set's name with its commit (``owner/name@1a2b3c4d``, which a later run can
    pin) and the files, by name. Raises InputError that says what to do about a gate, a wrong name
    or revision, files that are not there, or no network.
    """
    with explained(repo, revision):
        client = HfApi()
        info = client.dataset_info(repo, revision=revision)
        names = sorted(file.rfilename for file in info.siblings)
        wanted = [name for name in names if fnmatch(name, pattern)]
        if not wanted:
            there = ", ".join(names[:10]) or "none"
            raise InputError(f"{repo}@{info.sha[:8]}: no file matches {pattern}; files: {there}")
        kept = {"repo_type": "dataset", "revision": info.sha}
        files = [Path(client.hf_hub_download(repo, name, **kept)) for name in wanted]
    return f"{repo}@{info.sha[:8]}", files


def file(repo: str, revision: str, name: str) -> Path | None:
    """One file of a data set; None if the data set has none of this name."""
    with explained(repo, revision):
        try:
            found = HfApi().hf_hub_download(repo, name, repo_type="dataset", revision=revision)
        except errors.RemoteEntryNotFoundError:
            return None
    return Path(found)


def parquet(repo: str, revision: str, pattern: str) -> tuple[str, Dataset]:
    """Parquet files as one data set, with the name and commit that ``download`` returns."""
    source, files = download(repo, revision, pattern)
    try:
        return source, concatenate_datasets([Dataset.from_parquet(str(file)) for file in files])
    except Exception as error:  # pyarrow's and datasets' own, by the dozen
        raise InputError(f"{source}: {pattern} cannot be read: {error}") from error


@contextmanager
def explained(repo: str, revision: str):
    """The client's errors as one line each: what happened and what to do."""
    page = f"{constants.ENDPOINT}/datasets/{repo}"
    try:
        yield
    except errors.GatedRepoError:
        told = f"{repo} is gated. Accept its terms at {page} and set {TOKEN} to a token of yours"
        raise InputError(f"{told}; meanwhile {MEANWHILE}") from None
    except errors.RepositoryNotFoundError:
        told = f"{repo}: no such data set at {page}, or one that {TOKEN} may not see"
        raise InputError(f"{told}; check the name and the token") from None
    except errors.RevisionNotFoundError:
        raise InputError(
            f"{repo} has no revision {revision!r}; its commits are at {page}"
        ) from None
    except errors.HfHubHTTPError as error:
        told = f"{repo}: the hub answered {error.response.status_code}"
        raise InputError(f"{told}; try again, finished files are kept, or see {page}") from None
    except (httpx2.HTTPError, OSError) as error:
        told = f"{repo}: the hub cannot be reached ({type(error.__cause__ or error).__name__})"
        raise InputError(
            f"{told}; connect, and unset HF_HUB_OFFLINE, or try again: finished files are kept; "
            f"meanwhile {MEANWHILE}"
        ) from None
