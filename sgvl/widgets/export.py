"""The static twin: the prose of a notebook and every state of its widgets in one HTML file."""

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path

import ipywidgets

from sgvl.common.errors import InputError
from sgvl.common.paths import PACKAGE
from sgvl.widgets.panels import Panel
from sgvl.widgets.parts import Shown, style

KERNEL = "kernel"  # tag of a Markdown cell that speaks of what the page has not
FILES = PACKAGE / "widgets"

_SOURCE = re.compile(r'src=\\"(data:[^"\\]+)\\"')  # as it stands in JSON


def export(path: Path, notebook: Path, shown: Mapping[str, Panel | Shown]) -> Path:
    """Write a notebook as one page that works from a file, without a kernel or a network.

    Its Markdown comes over, but for cells tagged ``kernel`` and the table of what it needs. A code
    cell becomes what its last line shows, if that is a name in ``shown``, else nothing. The page
    holds all states of each panel, each picture once. Raises InputError for a name that no cell
    shows, and for a panel that has no twin.
    """
    import mistune
    import nbformat

    prose = mistune.create_markdown(escape=False, plugins=["table"])
    body, panels, left = [], [], dict(shown)
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown" and KERNEL not in cell.metadata.get("tags", []):
            body.append(prose(cell.source.partition("\n| needs |")[0]))
        elif cell.cell_type == "code":
            part = left.pop(cell.source.rpartition("\n")[2], None)
            if isinstance(part, Panel):
                body.append(_section(part))
                panels.append(part.twin())
            elif part:
                body.append(part.html)
    if left:
        raise InputError(f"{notebook.name}: no cell ends with {', '.join(left)}")
    return _write(path, "\n".join(body), panels)


def _write(path, body, panels):
    pictures: dict[str, int] = {}
    heads: list[str] = []

    def picture(match):
        return rf"data-picture=\"{pictures.setdefault(match[1], len(pictures))}\""

    def head(match):
        heads.append(match[1])
        return f'<h2 id="part-{len(heads)}">{match[1]}</h2>'

    states = _SOURCE.sub(picture, json.dumps(panels, ensure_ascii=False))
    data = f'{{"panels": {states}, "pictures": {json.dumps(list(pictures))}}}'
    body = re.sub("<h2>(.*?)</h2>", head, body)
    links = [
        f'<a href="#part-{k}" title="{head}" aria-label="{head}">{head.partition(" · ")[0]}</a>'
        for k, head in enumerate(heads, start=1)
        if " · " in head  # the parts of a lesson: A · One picture, five verdicts
    ]
    parts = {
        "title": re.search("<h1>(.*?)</h1>", body)[1],
        "style": style(),
        "links": " ".join(links),
        "body": body,
        # "</" would end the script in which the data stand.
        "data": data.replace("</", "<\\/"),
        "clauses": (FILES / "clauses.js").read_text(encoding="utf-8"),
        "script": (FILES / "page.js").read_text(encoding="utf-8"),
    }
    page = (FILES / "page.html").read_text(encoding="utf-8")
    written = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], page)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(written, encoding="utf-8", newline="\n")
    return path


def _section(panel: Panel) -> str:
    controls = "".join(_control(name, panel.controls[name]) for name in panel.twin_controls)
    return (
        f'<section class="panel"><form>{controls}</form><p class="said"></p>'
        f'<div class="view wide"></div><p role="status"></p></section>'
    )


def _control(name: str, control: ipywidgets.Widget) -> str:
    """The same control in HTML; the value of one that chooses is the place of the choice."""
    label = html.escape(control.description)
    if isinstance(control, ipywidgets.Textarea):
        text = html.escape(control.value)
        return f'<label>{label} <textarea name="{name}" rows="4">{text}</textarea></label>'
    stops = [str(stop[0] if isinstance(stop, tuple) else stop) for stop in control.options]
    if isinstance(control, ipywidgets.SelectionSlider):
        shown = html.escape(json.dumps(stops))
        field = f'type="range" name="{name}" max="{len(stops) - 1}" value="0" data-stops="{shown}"'
        return f"<label>{label} <input {field}> <output></output></label>"
    if isinstance(control, ipywidgets.ToggleButtons):
        buttons = "".join(
            f'<button type="button" value="{place}">{html.escape(stop)}</button>'
            for place, stop in enumerate(stops)
        )
        field = f'<input type="hidden" name="{name}" value="0">'
        return f'<span role="group" aria-label="{label}">{label} {field}{buttons}</span>'
    options = "".join(
        f'<option value="{place}">{html.escape(stop)}</option>' for place, stop in enumerate(stops)
    )
    return f'<label>{label} <select name="{name}">{options}</select></label>'
