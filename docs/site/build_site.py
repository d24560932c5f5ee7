"""Build the site of a finished nano run, as ``make site`` does; nothing is executed here.

Pages are laid out as their files are in the checkout, so that links between them hold: README, the
guides of docs/, the published report, and in notebooks/ what the run has executed. Sphinx with
MyST-NB makes HTML of them (conf.py), which is then checked: it must load nothing from a network,
every picture must be described, and every link within the site must lead somewhere.
"""

import base64
import json
import os
import re
import shutil
import sys
from collections.abc import Collection, Iterator
from contextlib import suppress
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import nbformat

from sgvl.common import commands, files
from sgvl.common.errors import ExitCode, InputError, raise_any
from sgvl.common.paths import FIGURES, NOTEBOOKS, PACKAGE, PARAMS, ROOT, need_checkout, runs

HERE = Path(__file__).resolve().parent
OUT = ROOT / "build" / "site"
PROFILE = "nano"
LESSON = "classroom.html"  # in FIGURES / PROFILE; its page, lesson.md, leads to it
MADE_BY = {"nano_seeds": "make seeds", "nano_ablations": "make stage2"}  # profiles of one notebook
LINK = re.compile(r"(?<!!)\[([^\]\[]*)\]\(([^()\s]+)\)")
RELATIVE = re.compile(r"\]\((?!\w+:|[#/])")
REMOTE = re.compile(r"(?:url\(|@import\s+)[\"']?((?:https?:)?//[^\"')]+)")  # in a style sheet


def main() -> ExitCode:
    """Lay the pages out, make HTML of them, check it, and print its size."""
    source, html, cache = OUT / "source", OUT / "html", OUT / "doctrees"
    lay_out(source)
    for old in (html, cache):
        shutil.rmtree(old, ignore_errors=True)
    from sphinx.cmd.build import build_main

    options = ["-q", "-W", "--keep-going", "-c", str(HERE), "-d", str(cache)]
    if build_main([*options, str(source), str(html)]):
        return ExitCode.INTERNAL
    shutil.copy(FIGURES / PROFILE / LESSON, html)
    raise_any(problems(html))
    sizes = [file.stat().st_size for file in html.rglob("*") if file.is_file()]
    pages = len(list(html.rglob("*.html")))
    print(f"{html / 'index.html'}: {pages} pages, {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB")
    return ExitCode.DONE


# ---- pages -------------------------------------------------------------------------------------


def lay_out(source: Path) -> None:
    """Write the sources of all pages to a folder.

    Raises
    ------
    InputError
        If the run is not finished, with the command that finishes it.
    """
    source = source.resolve()
    need_checkout()
    executed = {name: _executed(PROFILE, name) for name in _units(PROFILE)}
    lacking = [name for name, notebook in executed.items() if not notebook]
    if lacking:
        what = ", ".join(lacking[:3])
        raise InputError(f"runs/{PROFILE} has no finished {what}; the command is: make run")
    shutil.rmtree(source, ignore_errors=True)
    shutil.copytree(HERE / "pages", source)
    for pages in ("[A-Z]*.md", "docs/*.md", "sgvl/nano/model/*.md"):
        for page in ROOT.glob(pages):
            _copy(page, source)
    _report(source)
    _api(source / "api")
    pages = {source / "notebooks" / path: page for notebook in NOTEBOOKS.glob("*.ipynb")
             for path, page in _notebook_pages(notebook, executed)}  # fmt: skip
    known = {file.resolve() for file in source.rglob("*.*")} | pages.keys()
    for path, page in pages.items():
        path.parent.mkdir(exist_ok=True)
        _tidy(page)
        _describe(page)
        _detach(page, path.parent)
        for cell in page.cells:
            if cell.cell_type == "markdown":
                cell.source = relinked(cell.source, path.parent, source, known)
        files.write(path, nbformat.writes(page).replace(f"{ROOT}/", ""))  # of this machine
    for page in source.rglob("*.md"):
        text = page.read_text(encoding="utf-8")
        files.write(page, relinked(text, page.parent, source, known))


def _units(profile):
    return sorted(file.stem for file in (PARAMS / profile).glob("[0-9]*.yaml"))


def _executed(profile, name):
    """Return the executed notebook of a unit, or None if it did not finish."""
    notebook, receipt = (runs(profile) / f"{name}.{ending}" for ending in ("ipynb", "json"))
    with suppress(OSError, ValueError, TypeError, KeyError):
        status = json.loads(receipt.read_text(encoding="utf-8"))["status"]
        if status == "ok" and notebook.is_file():
            return notebook
    return None


def _copy(file, source):
    to = source / file.relative_to(ROOT)
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, to)


def _report(source):
    """Copy the published report, its judge cards, and the files that they link to."""
    folder = FIGURES / PROFILE
    for file in folder.glob("*"):
        if file.suffix in (".png", ".pdf", ".csv") or file.match("card_*.md"):
            _copy(file, source)
    text = (folder / "REPORT.md").read_text(encoding="utf-8")
    text = re.sub(r'href="(card_[\w.-]+)\.md"', r'href="\1.html"', text)
    cards = "```{toctree}\n:hidden:\n:glob:\n\ncard_*\n```\n"
    files.write(source / "figures" / PROFILE / "REPORT.md", f"{text}\n{cards}")


def _notebook_pages(notebook, executed):
    """Yield the pages of a notebook, each with its path below notebooks/.

    One with variants has a page of each, beneath one that lists them.
    """
    name = notebook.stem
    variants = {unit.partition(".")[2]: file for unit, file in executed.items()
                if unit.partition(".")[0] == name}  # fmt: skip
    if not variants:
        profile = next(profile for profile in MADE_BY if name in _units(profile))
        variants = {"": _executed(profile, name)}
    for variant, file in variants.items():
        page = nbformat.read(file or notebook, as_version=4)
        first = page.cells[0]
        if not file:
            first.source += f"\n\nNot run here, so it has no outputs: `{MADE_BY[profile]}` runs it."
        if variant:
            first.source = first.source.replace("\n", f": {variant}\n", 1)
            for cell in page.cells:
                if cell.cell_type == "markdown":
                    cell.source = RELATIVE.sub("](../", cell.source)
        yield f"{name}/{variant}.ipynb" if variant else f"{name}.ipynb", page
    if "" not in variants:
        page = nbformat.read(notebook, as_version=4)
        entries = "\n".join(f"{variant} <{name}/{variant}>" for variant in variants)
        text = f"Executed once for each variant:\n\n```{{toctree}}\n:maxdepth: 1\n\n{entries}\n```"
        page.cells = [page.cells[0], nbformat.v4.new_markdown_cell(text)]
        yield f"{name}.ipynb", page


def _tidy(page) -> None:
    """Leave out the outputs that are nothing but the end of a line."""
    for cell in page.cells:
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("text", "-").strip()]


def _describe(page) -> None:
    """Describe the pictures of each cell, where the notebook does not by the sentence above.

    MyST-NB reads the description of all pictures of a cell from the metadata of the cell.
    """
    above = ""
    for cell in page.cells:
        if cell.cell_type == "markdown":
            above = plain(cell.source) or above
        texts = [
            output.metadata.get(mime, {}).get("alt", above)
            for output in cell.get("outputs", [])
            for mime in output.get("data", {})
            if mime.startswith("image/")
        ]
        if texts:
            cell.metadata["mystnb"] = {"image": {"alt": " ".join(dict.fromkeys(texts))}}


def _detach(page, folder) -> None:
    """Write the attachments of a notebook to a folder, and link them there."""
    for cell in page.cells:
        for name, data in cell.pop("attachments", {}).items():
            (folder / name).write_bytes(base64.b64decode(next(iter(data.values()))))
            cell.source = cell.source.replace(f"(attachment:{name})", f"({name})")


def plain(markdown: str) -> str:
    """Return the last heading and the last paragraph of a Markdown text, without their marks."""
    parts = [part for part in re.split(r"\n\s*\n", markdown.strip()) if not part.startswith("|")]
    heads = [part for part in parts if part.startswith("#")][-1:]
    texts = [part for part in parts if not part.startswith("#")][-1:]
    text = LINK.sub(r"\1", ": ".join(heads + texts))
    return " ".join(re.sub(r"[*`#]", "", text).split())


def relinked(markdown: str, folder: Path, source: Path, known: Collection[Path]) -> str:
    """Lead links to code to the API, those to the lesson to its page, and drop others that are out.

    Parameters
    ----------
    folder : of the page, below ``source``
    known : the files that the site is made from
    """

    def led(link):
        text, target = link.groups()
        path = (folder / target.partition("#")[0]).resolve()
        if "://" in target or target.startswith("#") or path in known:
            return link[0]
        if path == source / "figures" / PROFILE / LESSON:
            return f"[{text}]({os.path.relpath(source / 'lesson.md', folder)})"
        room = source / "api" / f"{'.'.join(Path(os.path.relpath(path, source)).parts[:2])}.rst"
        return f"[{text}]({os.path.relpath(room, folder)})" if room in known else text

    return LINK.sub(led, markdown)


# ---- the API -----------------------------------------------------------------------------------


def _api(to):
    """Write a page for each folder of the package, with all its public modules."""
    rooms = {"sgvl": [file.stem for file in PACKAGE.glob("[!_]*.py")]}
    for folder in sorted(PACKAGE.iterdir()):
        if (folder / "__init__.py").exists():
            rooms[f"sgvl.{folder.name}"] = list(_modules(folder))
    for room, modules in rooms.items():
        below = [_documented(f"{room}.{module}", "-") for module in sorted(modules)]
        files.write(to / f"{room}.rst", "\n".join([_documented(room, "="), *below]))
    index = (to / "index.rst").read_text(encoding="utf-8")
    summary = ".. autosummary::\n\n" + "".join(f"   {room}\n" for room in rooms)
    pages = ".. toctree::\n   :hidden:\n\n" + "".join(f"   {room}\n" for room in rooms)
    files.write(to / "index.rst", f"{index}\n{summary}\n{pages}")


def _modules(folder) -> Iterator[str]:
    for file in folder.rglob("*.py"):
        parts = file.relative_to(folder).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        if parts and not any(part.startswith("_") for part in parts):
            yield ".".join(parts)


def _documented(module, mark):
    return f"{module}\n{mark * len(module)}\n\n.. automodule:: {module}\n"


# ---- what is wrong with the HTML ---------------------------------------------------------------


class Page(HTMLParser):
    """What a page loads, links to, can be linked to, and does not describe."""

    LOADED = {"script": "src", "img": "src", "iframe": "src", "source": "src", "video": "src"}

    def __init__(self, html: str):
        super().__init__()
        self.loads, self.links, self.ids, self.undescribed = [], [], set(), []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        has = dict(attributes)
        self.ids |= {has[name] for name in ("id", "name") if has.get(name)}
        if has.get(self.LOADED.get(tag)):
            self.loads.append(has[self.LOADED[tag]])
        if tag == "link" and {"stylesheet", "preload", "icon"} & set(has.get("rel", "").split()):
            self.loads.append(has["href"])
        if tag == "a" and has.get("href"):
            self.links.append(has["href"])
        if tag == "img" and not (has.get("alt") or "").strip():
            self.undescribed.append(has.get("src", "")[:60])


def problems(html: Path) -> list[str]:
    """List what is wrong with the pages in a folder: a line each, with the page."""
    files_of_theme = html / "_static"
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in html.rglob("*.html")
             if not file.is_relative_to(files_of_theme)}  # fmt: skip
    found = []
    for file, page in sorted(pages.items()):
        name = file.relative_to(html)
        found += [f"{name}: a picture without alt: {src}" for src in page.undescribed]
        for url in page.loads:
            if urlsplit(url).scheme in ("http", "https") or url.startswith("//"):
                found.append(f"{name}: loads {url}")
        for url in {*page.loads, *page.links}:
            if problem := _broken(url, file, pages):
                found.append(f"{name}: {problem}")
    for sheet in html.rglob("*.css"):
        loaded = REMOTE.findall(sheet.read_text(encoding="utf-8"))
        found += [f"{sheet.relative_to(html)}: loads {url}" for url in loaded]
    return found


def _broken(url, file, pages):
    """Return what is wrong with a link within the site; "" if nothing is."""
    parts = urlsplit(url)
    if parts.scheme or url.startswith("//"):
        return ""
    to = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if not to.is_file():
        return f"{url} leads nowhere"
    if parts.fragment and to in pages and unquote(parts.fragment) not in pages[to].ids:
        return f"{url}: no such place on the page"
    return ""


if __name__ == "__main__":
    sys.exit(commands.run(main))
