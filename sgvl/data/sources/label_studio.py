"""Label Studio's JSON export as a file of labels, and its spellings of a picture's path.

Each task becomes a row for each of its sets of choices. Where a task has several (``from_name`` in
the export), each is named after the policy that it is about. Labels agree over annotators, or one
annotation is the ground truth. A skipped task and one without choices are passed over with a line.
"""

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from urllib.parse import unquote, urlsplit

UPLOADED = re.compile(r"[0-9a-f]{8}-(?=.)")  # stands before the name of an uploaded file


def rows(tasks: list, file: Path, problems: list[str]) -> Iterator[tuple[str, dict]]:
    """Yield the place and the columns of each row; add what is wrong to ``problems``.

    A plain object, as pandas writes it, is a row as it stands.
    """
    skipped: dict[str, list[str]] = {}
    for number, task in enumerate(tasks, start=1):
        if not isinstance(task, dict):
            problems.append(f"{file}, entry {number}: expected a task or a row, got {task!r:.40}")
        elif not isinstance(task.get("data"), dict):
            yield f"entry {number}", task
        else:
            place = f"task {task.get('id', number)}"
            columns = {k: v for k, v in task["data"].items() if k != "label"}
            labels, reason = _labels(task)
            if reason:
                skipped.setdefault(reason, []).append(place)
            for name, found in labels.items():
                if len(found) > 1:
                    votes = " and ".join(found)
                    problems.append(
                        f"{file}, {place}: its annotators disagree ({votes}); mark one annotation "
                        "as ground truth, or settle it, and export again"
                    )
                else:
                    policy = {"policy": name} if len(labels) > 1 else {}
                    yield place, columns | policy | {"label": found[0]}
    for reason, places in skipped.items():
        more = f" and {len(places) - 5} more" if len(places) > 5 else ""
        tasks_named = ", ".join(places[:5]) + more
        warnings.warn(f"{file}: passed over, {reason}: {tasks_named}", stacklevel=4)


def _labels(task: dict) -> tuple[dict[str, list[str]], str]:
    """Return the labels of each set of choices, or else why there are none."""
    made = [a for a in task.get("annotations") or [] if isinstance(a, dict)]
    kept = [a for a in made if not a.get("was_cancelled")]
    kept = [a for a in kept if a.get("ground_truth")] or kept
    labels: dict[str, dict[str, None]] = {}
    for annotation in kept:
        for part in annotation.get("result") or []:
            value = part.get("value") if isinstance(part, dict) else None
            choices = value.get("choices") if isinstance(value, dict) else None
            for choice in choices if isinstance(choices, list) else []:
                labels.setdefault(str(part.get("from_name")), {})[str(choice).strip().lower()] = (
                    None
                )
    if labels:
        return {name: list(found) for name, found in labels.items()}, ""
    return {}, "skipped by its annotator" if made and not kept else "without an annotation"


def path_of(image: str, root: Path) -> str:
    """Return the path within ``root`` of a picture that Label Studio serves; others as they are.

    It spells them ``/data/local-files/?d=photos/a.jpg``, a path below a folder of its own, of which
    the longest end that exists is taken, and ``/data/upload/3/0fc1f5a2-a.jpg``.
    """
    try:
        url = urlsplit(image)
    except ValueError:
        return image
    if url.path.rstrip("/").endswith("/data/local-files"):
        parts = PurePosixPath(unquote(url.query.removeprefix("d=")).replace("\\", "/")).parts
        ends = ["/".join(parts[k:]) for k in range(len(parts))]
    elif "/data/upload/" in url.path:
        name = unquote(url.path.rpartition("/")[2])
        ends = [name, UPLOADED.sub("", name, count=1)]
    else:
        return image
    return next((end for end in ends if os.path.isfile(root / end)), ends[-1] if ends else image)
