"""One HTML file of a notebook: its prose and every state of its widgets, without a kernel."""

import html
import json
import re
from collections.abc import Mapping
from pathlib import Path

import ipywidgets

from sgvl.common import files
from sgvl.common.errors import InputError
from sgvl.common.paths import PACKAGE
from sgvl.widgets.panels import Panel, options
from sgvl.widgets.parts import View, style

KERNEL = "kernel"  # tag of a Markdown cell about what the page does not have
FILES = PACKAGE / "widgets"

_SOURCE = re.compile(r'src=\\"(data:[^"\\]+)\\"')  # in JSON


def export(path: Path, notebook: Path, namespace: Mapping[str, object]) -> Path:
    """Write a notebook as one page that works from a file, without a kernel or a network.

    Markdown is kept, without the table of what the notebook needs and without cells tagged
    ``kernel``. A code cell whose last line is the name of a panel or a view becomes that; other
    code is left out. The page holds all states of each panel, and each picture once; what is folded
    (answers, numbers, the teacher's notes) is hidden until its box is ticked.

    Parameters
    ----------
    path : of the page
    notebook : of which the page is made
    namespace : ``globals()`` of the notebook, or a dict of its panels and views by name

    Returns
    -------
    Path
        ``path``

    Raises
    ------
    InputError
        For a panel or a view that no cell ends with, and for a panel with a text field of its own.
    """
    import mistune
    import nbformat

    prose = mistune.create_markdown(escape=False, plugins=["table"])
    body, panels = [], []
    # Jupyter's own names of results, such as _8, begin with an underscore.
    parts = {
        name: value
        for name, value in namespace.items()
        if isinstance(value, Panel | View) and not name.startswith("_")
    }
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown" and KERNEL not in cell.metadata.get("tags", []):
            body.append(prose(cell.source.partition("\n| needs |")[0]))
        elif cell.cell_type == "code":
            part = parts.pop(cell.source.rpartition("\n")[2], None)
            if isinstance(part, Panel):
                body.append(_section(part))
                panels.append(part.page_data())
            elif part:
                body.append(part.html)
    if parts:
        raise InputError(f"{notebook.name}: no cell ends with {', '.join(parts)}")
    return _write(path, "\n".join(body), panels)


def _write(path, body, panels):
    pictures: dict[str, int] = {}
    heads: list[str] = []

    def number_picture(match):
        return rf"data-picture=\"{pictures.setdefault(match[1], len(pictures))}\""

    def number_head(match):
        heads.append(match[1])
        return f'<h2 id="part-{len(heads)}">{match[1]}</h2>'

    states = _SOURCE.sub(number_picture, json.dumps(panels, ensure_ascii=False))
    data = f'{{"panels": {states}, "pictures": {json.dumps(list(pictures))}}}'
    body = re.sub("<h2>(.*?)</h2>", number_head, body)
    links = [
        f'<a href="#part-{k}" title="{head}" aria-label="{head}">{head.partition(" · ")[0]}</a>'
        for k, head in enumerate(heads, start=1)
        if " · " in head  # the parts of a lesson: A · One picture, five verdicts
    ]
    fields = {
        "title": re.search("<h1>(.*?)</h1>", body)[1],
        "style": style(),
        "links": " ".join(links),
        "body": body,
        "data": data.replace("</", "<\\/"),  # "</" would end the script that holds the data
        "clauses": (FILES / "clauses.js").read_text(encoding="utf-8"),
        "script": (FILES / "page.js").read_text(encoding="utf-8"),
    }
    page = (FILES / "page.html").read_text(encoding="utf-8")
    filled = re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], page)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, filled)
    return path


def _section(panel: Panel) -> str:
    controls = "".join(_control(name, control) for name, control in panel.page_controls.items())
    return (
        f'<section class="panel"><form>{controls}</form><p class="summary"></p>'
        f'<div class="view wide"></div><p role="status"></p></section>'
    )


def _control(name: str, control: ipywidgets.Widget) -> str:
    """Return a control as HTML; where one chooses, the value is the index of the option."""
    label = html.escape(control.description)
    if isinstance(control, ipywidgets.Textarea):
        text = html.escape(control.value)
        return f'<label>{label} <textarea name="{name}" rows="4">{text}</textarea></label>'
    names = [option for option, _ in options(control)]
    if isinstance(control, ipywidgets.SelectionSlider):
        stops = html.escape(json.dumps(names))
        field = f'type="range" name="{name}" max="{len(names) - 1}" value="0" data-stops="{stops}"'
        return f"<label>{label} <input {field}> <output></output></label>"
    if isinstance(control, ipywidgets.ToggleButtons):
        buttons = "".join(
            f'<button type="button" value="{index}">{html.escape(option)}</button>'
            for index, option in enumerate(names)
        )
        field = f'<input type="hidden" name="{name}" value="0">'
        return f'<span role="group" aria-label="{label}">{label} {field}{buttons}</span>'
    items = "".join(
        f'<option value="{index}">{html.escape(option)}</option>'
        for index, option in enumerate(names)
    )
    return f'<label>{label} <select name="{name}">{items}</select></label>'
