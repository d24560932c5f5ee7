"""Terms that have to be accepted on the hub before a profile can run."""

import os

# Repositories whose terms are to be accepted, as far as their pages say, and what they are.
GATED = {
    "tyodd/SafeEditBench": "data",
    "yiting/UnsafeBench": "data",
    "AIML-TUDA/LlavaGuard": "data",
    "AIML-TUDA/smid": "data: pictures of LlavaGuard",
    "google/gemma-3-27b-it": "the recaptioner of `paper`",
    "google/gemma-3-4b-it": "a judge",
    "google/shieldgemma-2-4b-it": "a judge",
    "meta-llama/Llama-Guard-3-11B-Vision": "a judge",
    "meta-llama/Llama-Guard-4-12B": "a judge",
    "AIML-TUDA/LlavaGuard-v1.2-0.5B-OV-hf": "a judge",
    "AIML-TUDA/LlavaGuard-v1.2-7B-OV-hf": "a judge",
}
# By the kind of a source in 01_data.
OF_KIND = {
    "safeeditbench": ["tyodd/SafeEditBench"],
    "unsafebench": ["yiting/UnsafeBench"],
    "llavaguard": ["AIML-TUDA/LlavaGuard", "AIML-TUDA/smid"],
}


UNKNOWN = "not checked"


def accepted(repo: str) -> str:
    """Ask the hub whether the terms are accepted with the token at hand: yes, no, not checked."""
    import httpx2
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

    if constants.HF_HUB_OFFLINE:
        return f"{UNKNOWN}: HF_HUB_OFFLINE is set"
    kind = "dataset" if GATED[repo].startswith("data") else "model"
    token = "" if os.environ.get("HF_TOKEN") else ": HF_TOKEN is not set"
    try:
        HfApi().auth_check(repo, repo_type=kind)
    except GatedRepoError:
        return f"no{token}"
    except RepositoryNotFoundError:  # so the hub says, too, to who may not know of it
        return f"no, or there is no such repository{token}"
    except (HfHubHTTPError, httpx2.HTTPError, OSError) as error:
        return f"{UNKNOWN}: {type(error).__name__}"
    return "yes"
