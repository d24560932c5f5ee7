"""Files of data sets on the hub: all of one commit, cached and resumed by the hub's own client."""

import re
from collections.abc import Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

import httpx2
from datasets import Dataset, concatenate_datasets
from huggingface_hub import HfApi, constants, errors

from sgvl.common.errors import InputError
from sgvl.data.real_rows import need_columns

TOKEN = "HF_TOKEN"
REASON = 200  # characters of the hub's own sentence that an error repeats
MEANWHILE = "the nano profile runs without it: python -m sgvl.run nano"


def download(repo: str, revision: str, pattern: str) -> tuple[str, list[Path]]:
    """Download the files of a data set that match ``pattern``, all from one commit.

    Parameters
    ----------
    repo : ``owner/name``
    revision : branch, tag or commit; resolved to a commit once
    pattern : as in ``fnmatch``

    Returns
    -------
    tuple
        The source, ``owner/name@1a2b3c4d`` with the commit, which ``revision`` can pin; and the
        files, sorted by name.

    Raises
    ------
    InputError
        That says what to do: for a gate, a wrong name or revision, no such files, no network.
    """
    with explained(repo, revision):
        client = HfApi()
        info = client.dataset_info(repo, revision=revision)
        names = sorted(file.rfilename for file in info.siblings)
        wanted = [name for name in names if fnmatch(name, pattern)]
        if not wanted:
            there = ", ".join(names[:10]) or "none"
            raise InputError(f"{repo}@{info.sha[:8]}: no file matches {pattern}; files: {there}")
        pinned = {"repo_type": "dataset", "revision": info.sha}
        files = [Path(client.hf_hub_download(repo, name, **pinned)) for name in wanted]
    return f"{repo}@{info.sha[:8]}", files


def file(repo: str, revision: str, name: str) -> Path | None:
    """Download one file of a data set; return None if the data set has none of this name."""
    with explained(repo, revision):
        try:
            return Path(HfApi().hf_hub_download(repo, name, repo_type="dataset", revision=revision))
        except errors.RemoteEntryNotFoundError:
            return None


def parse_url(url: str) -> tuple[str, str, str] | None:
    """Return repository, revision and path of a data set's file on the hub; None for other URLs.

    The host is compared: a URL elsewhere must not be read from the hub with the reader's token.
    """
    address, _, path = url.partition("/datasets/")
    file = re.fullmatch(r"([^/]+/[^/]+)/resolve/([^/]+)/([^?]+)(\?.*)?", path)
    own = (constants.ENDPOINT, constants._HF_DEFAULT_ENDPOINT)
    hosts = {endpoint.partition("://")[2] for endpoint in own}
    return file.groups()[:3] if file and re.sub("^https?://", "", address) in hosts else None


def parquet(
    repo: str, revision: str, pattern: str, columns: Sequence[str] = ()
) -> tuple[str, Dataset]:
    """Download Parquet files as ``download`` does, and return the source and all their rows.

    Raises InputError as ``download`` does, and for a file that is not Parquet or lacks one of
    ``columns``.
    """
    source, files = download(repo, revision, pattern)
    try:
        rows = concatenate_datasets([Dataset.from_parquet(str(file)) for file in files])
    except Exception as error:  # pyarrow's and datasets' own, by the dozen
        raise InputError(f"{source}: {pattern} cannot be read: {error}") from error
    need_columns(rows.column_names, columns, f"{source}, {pattern}")
    return source, rows


@contextmanager
def explained(repo: str, revision: str):
    """Turn the client's errors into an InputError of one line: what happened and what to do."""
    page = f"{constants.ENDPOINT}/datasets/{repo}"
    try:
        yield
    except errors.GatedRepoError as error:
        raise InputError(
            f"{repo} is gated{_reason(error)}. Accept its terms at {page} and set {TOKEN} to a "
            f"token of yours; meanwhile {MEANWHILE}"
        ) from None
    except errors.RepositoryNotFoundError:
        raise InputError(
            f"{repo}: no such data set at {page}, or one that {TOKEN} may not see; "
            "check the name and the token"
        ) from None
    except errors.RevisionNotFoundError:
        raise InputError(
            f"{repo} has no revision {revision!r}; its commits are at {page}"
        ) from None
    except errors.HfHubHTTPError as error:
        status = error.response.status_code
        step = f"check what {TOKEN} may do" if status in (401, 403) else "try again"
        raise InputError(
            f"{repo}: the hub answered {status}{_reason(error)}; "
            f"{step}, finished files are kept, or see {page}"
        ) from None
    except (httpx2.HTTPError, OSError) as error:
        cause = type(error.__cause__ or error).__name__
        raise InputError(
            f"{repo}: the hub cannot be reached ({cause}); connect, and unset HF_HUB_OFFLINE, "
            f"or try again: finished files are kept; meanwhile {MEANWHILE}"
        ) from None


def _reason(error: errors.HfHubHTTPError) -> str:
    """Return the hub's own sentence in brackets, on one line; "" if it gave none."""
    sentence = " ".join((error.server_message or "").split())[:REASON]
    return f" ({sentence.rstrip('.')})" if sentence else ""
