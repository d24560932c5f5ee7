"""docs/LICENCES.md: the licences of the locked packages, of the art and of the weights.

    python tests/test_licences.py

writes it: packages from the metadata that they install, art and weights from CREDITS.md.
"""

import re
from contextlib import suppress
from importlib import metadata
from pathlib import Path

from test_environment import CORE, EXTRAS, LOCK, locked

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "LICENCES.md"
COPYLEFT = re.compile(r"GPL|MPL|Mozilla|General Public", re.IGNORECASE)
MIT = re.compile(b"MIT License|Permission is hereby granted, free of charge")
OF_ART = re.compile(r"CC BY(?:-SA)? 4\.0|Apache-2\.0|BSD 2-Clause")
HEAD = f"""# Licences

Written by `python tests/test_licences.py`; a test holds it to {LOCK} and CREDITS.md.
The kit itself is under Apache-2.0. Licences of models that can be named as judges stand in
[JUDGES.md](JUDGES.md).
"""


def stated(package: metadata.Distribution) -> str:
    """Return the licence of a package: by its expression, classifiers, field or licence file."""
    about = package.metadata
    classifiers = [c for c in about.get_all("Classifier") or [] if c.startswith("License :: ")]
    named = [c.rpartition(" :: ")[2] for c in classifiers if not c.endswith("OSI Approved")]
    field = (about.get("License") or "").strip().partition("\n")[0]
    if said := about.get("License-Expression") or ", ".join(named) or field:
        return said
    texts = [file.read_binary() for file in package.files or [] if file.name == "LICENSE"]
    return "MIT, by its file" if MIT.search(b"".join(texts)) else "not stated"


def brought_by(name: str) -> str:
    parts = [part for part, named in ({"core": CORE} | EXTRAS).items() if name in named]
    return ", ".join(parts) or "another package"


def packages(page: str) -> dict[str, str]:
    """Return the licence of each locked package; of one that is not installed, as it was."""
    found = dict(re.findall(r"(?m)^\| (\S+) \| \S+ \| (.*?) \|", page))
    for name in locked():
        with suppress(metadata.PackageNotFoundError):
            found[name] = stated(metadata.distribution(name))
    return {name: found[name] for name in locked()}


def art() -> list[tuple[str, str, str]]:
    """Return (name, kind, licence) of the art and the models that CREDITS.md names."""
    credits = (ROOT / "CREDITS.md").read_text(encoding="utf-8")
    sections = re.findall(r"(?ms)^## (\w+)\n(.*?)(?=^## |\Z)", credits)
    return [
        (name.rstrip("."), kind.lower(), OF_ART.search(text)[0])
        for kind, texts in sections
        for name, text in re.findall(r"(?ms)^\*\*(.+?)\*\*(.*?)(?=^\*\*|\Z)", texts)
    ]


def table(heads, rows) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (heads, ["---"] * len(heads), *rows)]


def made(page: str) -> str:
    licences, pins = packages(page), locked()
    share = {name: words for name, words in licences.items() if COPYLEFT.search(words)}
    unlocked = sorted(set().union(*EXTRAS.values()) - set(licences) - {"sgvl"})
    copyleft = ", ".join(f"{name} ({brought_by(name)}: {words})" for name, words in share.items())
    rows = [(name, pins[name], licences[name], brought_by(name)) for name in licences]
    note = (
        f"With a share-alike licence, or a choice of one: {copyleft}. Not locked, and so not "
        f"listed: {', '.join(unlocked)}."
    )
    return "\n".join([
        HEAD, "## Art and weights", "",
        *table(("what", "kind", "licence"), art()), "",
        "## Packages", "", note, "",
        *table(("package", "version", "licence", "declared in"), rows), "",
    ])  # fmt: skip


def test_the_page_is_that_of_the_lock_and_of_the_credits():
    page = PAGE.read_text(encoding="utf-8")
    assert page == made(page), "run python tests/test_licences.py"
    assert "not stated" not in page


def test_no_core_package_has_a_licence_that_would_bind_the_kit():
    licences = packages(PAGE.read_text(encoding="utf-8"))
    bound = {name: licences[name] for name in CORE if re.search(r"\bA?GPL", licences[name])}
    assert not bound


def test_a_licence_is_read_from_every_place_that_packages_use(tmp_path):
    heads = {
        "License-Expression: MIT\nLicense: long text": "MIT",
        "Classifier: License :: OSI Approved :: BSD License\nLicense: BSD": "BSD License",
        "Classifier: License :: OSI Approved\nLicense: PSF\n  and more": "PSF",
        "Summary: nothing said": "not stated",
    }
    for number, (head, expected) in enumerate(heads.items()):
        folder = tmp_path / f"p{number}-1.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Name: p{number}\nVersion: 1\n{head}\n", encoding="utf-8")
        assert stated(metadata.Distribution.at(folder)) == expected
    (folder / "LICENSE").write_text("Permission is hereby granted, free of charge, to", "utf-8")
    (folder / "RECORD").write_text(f"{folder.name}/LICENSE,,\n", "utf-8")
    assert stated(metadata.Distribution.at(folder)) == "MIT, by its file"


if __name__ == "__main__":
    PAGE.write_text(
        made(PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""), encoding="utf-8"
    )
